"""What every tool gets of a summary or a comparison: named numbers, texts and files."""

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Final

from losswire.client import Comparison, Summary
from losswire.client._report import comparison_page, summary_page
from losswire.client._report.buckets import halved
from losswire.summaries.figures.histogram import Histogram, histogram_of
from losswire.summaries.figures.slices import CROSS
from losswire.summaries.figures.statistics import Statistics
from losswire.summaries.figures.words import mean_sentence
from losswire.v1.summary_pb2 import LossDistribution

Evaluated = Summary | Comparison

QUANTILES: Final[Mapping[str, float]] = {"median": 0.5, "p90": 0.9, "p99": 0.99}
"""The quantiles that every tool gets."""

_FIGURES: Final = (
    "mean",
    "standard_error",
    "std",
    "minimum",
    "maximum",
    "count",
    "ignored_count",
    "nan_count",
    "infinite_count",
)
_OTHER: Final = re.compile(r"[^\w.\- :/]|(?<=/)(?=/)")
"""Characters that the name of a metric must not have in every tool."""


@dataclass(frozen=True)
class Content:
    """What is written."""

    metrics: Mapping[str, float]
    """Numbers by name: of the whole, `mean`; of a slice, `slices/country/DE/mean`."""
    distributions: Mapping[str, LossDistribution]
    """Distributions by name."""
    tags: Mapping[str, str]
    """Texts by name."""
    page: str
    """The report as HTML."""
    state: bytes
    """What `from_bytes` reads."""
    table: str
    """Everything as JSON, without the buckets."""
    sentence: str
    """The answer in words."""

    def files(self) -> dict[str, bytes]:
        """Return the files that are kept with a run, by name."""
        histograms = {
            name: {"edges": found.edges.tolist(), "weights": found.weights.tolist()}
            for name, each in self.distributions.items()
            for found in [histogram(each)]
        }
        return {
            "report.html": self.page.encode(),
            "summary.json": self.table.encode(),
            "histogram.json": json.dumps(histograms).encode(),
            "summary.binpb": self.state,
        }


def content_of(evaluated: Evaluated, prefix: str, most_slices: int) -> Content:
    """Return what is written of a summary or a comparison; raises as `check` does."""
    check(evaluated, most_slices)
    numbers = (
        _of_summary(evaluated, most_slices)
        if isinstance(evaluated, Summary)
        else _of_comparison(evaluated, most_slices)
    )
    return Content(
        metrics=_named(numbers, prefix),
        distributions={f"{prefix}{name}": each for name, each in _distributions(evaluated)},
        tags=_tags(evaluated),
        page=(
            summary_page(evaluated)
            if isinstance(evaluated, Summary)
            else comparison_page(evaluated)
        ),
        state=evaluated.to_bytes(),
        table=json.dumps(evaluated.to_dict(), indent=1, allow_nan=False),
        sentence=_sentence(evaluated),
    )


def check(evaluated: Evaluated, most_slices: int) -> None:
    """Raise TypeError for other objects, ValueError for a negative number of slices."""
    if not isinstance(evaluated, Summary | Comparison):
        kind = type(evaluated).__name__
        raise TypeError(f"summary: expected a Summary or a Comparison, got {kind}")
    if most_slices < 0:
        raise ValueError(f"slices: expected a number of at least 0, got {most_slices}")


def figures(statistics: Statistics) -> Iterator[tuple[str, float]]:
    """Return the numbers of some rows by name; a bound that is not known is left out."""
    for name in _FIGURES:
        value = getattr(statistics, name)
        if value is not None:
            yield name, float(value)
    low, high = statistics.interval()
    if not math.isnan(low):
        yield from (("interval_low", low), ("interval_high", high))
    if statistics.weight_sum:
        yield from ((name, statistics.quantile(q)) for name, q in QUANTILES.items())
    for name, (value, _) in statistics.derived_figures.items():
        yield name, value


def _of_summary(summary: Summary, most: int) -> Iterator[tuple[str, float]]:
    """Return the numbers of a summary and of its slices."""
    yield from figures(summary)
    yield from _of_slices(summary.slices, most)


def _of_slices(tables: Mapping[str, Any], most: int) -> Iterator[tuple[str, float]]:
    """Return mean, standard error and count of each slice, of tables with few enough of them."""
    for column, table in tables.items():
        if len(table) > most:
            continue
        for label, each in table.items():
            start = f"slices/{_part(column)}/{_part(label)}"
            yield from (
                (f"{start}/mean", each.mean),
                (f"{start}/standard_error", each.standard_error),
                (f"{start}/count", float(each.count)),
            )


def _of_comparison(comparison: Comparison, most: int) -> Iterator[tuple[str, float]]:
    """Return the numbers of each candidate, and how each two differ."""
    for candidate, each in comparison.items():
        yield from ((f"{_part(candidate)}/{name}", value) for name, value in figures(each))
    for first, second in combinations(comparison.candidates, 2):
        start = f"{_part(first)} - {_part(second)}"
        difference = comparison.difference(first, second)
        low, high = difference.interval()
        yield from (
            (f"{start}/mean", difference.mean),
            (f"{start}/standard_error", difference.standard_error),
            (f"{start}/interval_low", low),
            (f"{start}/interval_high", high),
            (f"{start}/p_value", difference.p_value),
            (f"{start}/wins", float(difference.wins)),
            (f"{start}/ties", float(difference.ties)),
            (f"{start}/losses", float(difference.losses)),
        )
        for name, value in _of_slices(difference.slices, most):
            yield f"{start}/{name}", value


def _part(name: str) -> str:
    """Return a column, label or candidate as one part of a metric's name."""
    return _OTHER.sub("_", name.replace("/", "_").replace(CROSS, " x "))[:80].strip(" .") or "_"


def _named(numbers: Iterator[tuple[str, float]], prefix: str) -> dict[str, float]:
    """Return the numbers by name; of labels that are written alike, later ones get a number."""
    found: dict[str, float] = {}
    for name, value in numbers:
        free, again = f"{prefix}{name}", 1
        while free in found:
            again += 1
            start, _, end = name.rpartition("/")
            free = f"{prefix}{start}_{again}/{end}" if start else f"{prefix}{end}_{again}"
        found[free] = value
    return found


def _distributions(evaluated: Evaluated) -> Iterator[tuple[str, LossDistribution]]:
    """Return the distribution of the losses, of each candidate where there are several."""
    names = [f"{_part(each)}/" for each in evaluated.message.candidates] or [""]
    for name, each in zip(names, evaluated.message.total.distributions, strict=True):
        yield f"{name}distribution", each


def histogram(distribution: LossDistribution, most: int | None = None) -> Histogram:
    """Return the buckets of a distribution; neighbours are joined until there are few enough."""
    extremes = (
        (distribution.minimum, distribution.maximum) if distribution.HasField("minimum") else None
    )
    sketch = distribution.sketch
    found = histogram_of(sketch, None, extremes)
    while most is not None and len(found.weights) > most:
        sketch = halved(sketch)
        found = histogram_of(sketch, None, extremes)
    return found


def _tags(evaluated: Evaluated) -> dict[str, str]:
    """Return what was evaluated and by what."""
    receipts = evaluated.receipts
    return {
        "losswire.loss": evaluated.loss,
        "losswire.options": json.dumps(dict(evaluated.options), sort_keys=True),
        "losswire.rows": str(evaluated.rows),
        "losswire.partitions": str(len(evaluated.included)),
        "losswire.clustered": str(evaluated.message.clustered).lower(),
        "losswire.device": ", ".join(sorted({each.device for each in receipts})),
        "losswire.engine": ", ".join(sorted({each.engine for each in receipts})),
        "losswire.server_version": ", ".join(sorted({each.server_version for each in receipts})),
        "losswire.torch_version": ", ".join(sorted({each.torch_version for each in receipts})),
    }


def _sentence(evaluated: Evaluated) -> str:
    """Return the answer in words."""
    if isinstance(evaluated, Comparison):
        pairs = combinations(evaluated.candidates, 2)
        return " ".join(evaluated.difference(*each).verdict for each in pairs)
    return mean_sentence(evaluated.loss, evaluated)


@dataclass(frozen=True)
class Group:
    """Some rows: all, or a slice; of one candidate."""

    attributes: Mapping[str, str]
    """What they are: nothing for all rows; `candidate`; `table` and `slice`."""
    distribution: LossDistribution
    statistics: Statistics


def groups_of(evaluated: Evaluated, most_slices: int) -> Iterator[Group]:
    """Return all rows and each slice, for each candidate; raises as `check` does."""
    check(evaluated, most_slices)
    message = evaluated.message
    whole: list[tuple[dict[str, str], Any]] = (
        [({}, evaluated)]
        if isinstance(evaluated, Summary)
        else [({"candidate": name}, each) for name, each in evaluated.items()]
    )
    for k, (attributes, statistics) in enumerate(whole):
        yield Group(attributes, message.total.distributions[k], statistics)
        for table in message.tables:
            if len(table.slices) > most_slices:
                continue
            column = CROSS.join(table.columns)
            for each in table.slices:
                named = {**attributes, "table": column, "slice": CROSS.join(each.labels)}
                of_slice = statistics.slices[column][tuple(each.labels)]
                yield Group(named, each.distributions[k], of_slice)
