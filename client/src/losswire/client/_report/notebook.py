"""What notebooks show of summaries, comparisons, slices, runs and results.

The drawings of the pages, less of each: a notebook keeps what it shows in its file.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from itertools import combinations
from typing import Final, Protocol

from losswire.client._report import differences
from losswire.client._report.comparison_page import (
    CROSS,
    ComparisonLike,
    detailed_pairs,
    exceptions,
    means,
)
from losswire.client._report.fragment import fragment
from losswire.client._report.markup import Html, element, join
from losswire.client._report.parts import Cell, Column, cut, facts, fold, name, paragraph, table
from losswire.client._report.result_fragment import ResultLike, result_body
from losswire.client._report.rows import rows_table
from losswire.client._report.summary_page import (
    SummaryLike,
    log_figure,
    quantile_name,
    single_columns,
    slice_section,
)
from losswire.summaries.figures import numbers, words
from losswire.summaries.figures.subjects import Figures, Lift
from losswire.summaries.statistics import Estimate

_MOST_SLICES: Final = 10
_MOST_TABLES: Final = 3
_MOST_WORST: Final = 5
_MOST_VERDICTS: Final = 7
_MOST_LABELS: Final = 12


class RunFiguresLike(Protocol):
    """What a drawing reads of the figures of a run."""

    @property
    def candidate(self) -> str:
        """The candidate."""
        ...

    @property
    def count(self) -> int:
        """How many rows took part."""
        ...

    @property
    def mean(self) -> float:
        """The mean."""
        ...

    @property
    def standard_error(self) -> float:
        """Its standard error."""
        ...


class RunLike(Protocol):
    """What a drawing reads of a run."""

    @property
    def run_id(self) -> str:
        """Its id."""
        ...

    @property
    def name(self) -> str:
        """Its name."""
        ...

    @property
    def labels(self) -> Mapping[str, str]:
        """Its labels."""
        ...

    @property
    def loss(self) -> str:
        """The loss."""
        ...

    @property
    def saved(self) -> datetime:
        """When the server kept it."""
        ...

    @property
    def figures(self) -> Sequence[RunFiguresLike]:
        """The figures of each candidate."""
        ...


def result_fragment(result: ResultLike) -> str:
    """Return what a notebook shows of a result."""
    return fragment("Losswire evaluation", result_body(result))


def summary_fragment(summary: SummaryLike) -> str:
    """Return what a notebook shows of a summary."""
    return fragment(f"Losswire summary \u00b7 {summary.message.loss}", summary_part(summary))


def summary_part(summary: SummaryLike) -> Html:
    """Return the answer in words, the distribution and the slices of a summary."""
    message = summary.message
    lifts = {column: list(each.by_lift()) for column, each in summary.slices.items()}
    has_values = bool(message.total.distributions[0].weight_sum)
    stand_out = words.slices_sentence(single_columns(message, lifts))
    shown = list(lifts.items())[:_MOST_TABLES]
    worst = message.total.distributions[0].worst[:_MOST_WORST]
    return join(
        element("p", words.mean_sentence(message.loss, summary), class_="answer"),
        element("p", " ".join(filter(None, [words.rows_sentence(summary), stand_out]))),
        facts(_quantiles(summary)) if has_values else None,
        log_figure(summary) if has_values else None,
        *(
            slice_section(column, each, summary, _MOST_SLICES, explained=False)
            for column, each in shown
        ),
        cut(len(shown), len(lifts), "tables of slices", "the first ones"),
        fold(
            f"The {numbers.rows(len(worst), 'worst row')}",
            rows_table(
                "Worst rows", worst, [("loss", [each.values[0] for each in worst])], parted=False
            ),
        )
        if worst
        else None,
    )


def _quantiles(figures: Figures) -> list[tuple[str, str | Html]]:
    """Return the smallest and the largest loss, and some between them."""
    named = [
        ("smallest", 0.0),
        *((quantile_name(q), q) for q in (0.5, 0.9, 0.99)),
        ("largest", 1.0),
    ]
    return [(each, numbers.significant(figures.quantile(q))) for each, q in named]


def comparison_fragment(comparison: ComparisonLike) -> str:
    """Return what a notebook shows of a comparison."""
    title = f"Losswire comparison \u00b7 {comparison.message.loss}"
    return fragment(title, comparison_part(comparison))


def comparison_part(comparison: ComparisonLike) -> Html:
    """Return the verdicts, how the first pair differs, and the mean of each candidate."""
    message = comparison.message
    first = detailed_pairs(comparison)[0]
    pairs = list(combinations(comparison.candidates, 2))
    others = [
        words.verdict(comparison.difference(*each), *each)
        for each in pairs
        if set(each) != {first.first, first.second}
    ]
    other = exceptions(message, first)
    tables = [CROSS.join(each.columns) for each in message.tables[:_MOST_TABLES]]
    return join(
        element("p", first.verdict, class_="answer"),
        element("p", other) if other else None,
        element("ul", *(element("li", each) for each in others[:_MOST_VERDICTS]))
        if others
        else None,
        cut(min(_MOST_VERDICTS, len(others)), len(others), "other pairs", "the first ones"),
        differences.wins(first),
        differences.distribution(first, message.loss),
        *(
            join(
                element("h3", f"Differences by {each}, {first.title}"),
                differences.slices(each, first, _MOST_SLICES),
            )
            for each in tables
        ),
        element("h3", "Each candidate"),
        means({each: comparison[each] for each in comparison.candidates}, message.loss),
    )


def slices_fragment(column: str, loss: str, lifts: Sequence[Lift], whole: Figures) -> str:
    """Return what a notebook shows of a table of slices."""
    return fragment(
        f"Losswire summary \u00b7 {loss}", slice_section(column, lifts, whole, 2 * _MOST_SLICES)
    )


def run_fragment(run: RunLike, contents: SummaryLike | ComparisonLike | None) -> str:
    """Return what a notebook shows of a run; `contents` are missing in a run of a list."""
    whole: Html | None = None
    if contents is not None:
        part = comparison_part if contents.message.candidates else summary_part
        whole = part(contents)  # type: ignore[arg-type]
    labels = sorted(run.labels.items())
    return fragment(
        f"Losswire run \u00b7 {run.loss}",
        element("h2", name(run.name or run.run_id)),
        facts(
            [
                ("id", name(run.run_id)),
                ("saved", f"{run.saved:%Y-%m-%d %H:%M} UTC"),
                *((each, name(value, 60)) for each, value in labels[:_MOST_LABELS]),
            ]
        ),
        cut(min(_MOST_LABELS, len(labels)), len(labels), "labels", "the first ones"),
        _run_figures(run) if whole is None else whole,
    )


def _run_figures(run: RunLike) -> Html:
    """Return the mean of each candidate with its interval."""
    return join(
        table(
            f"Mean {run.loss}",
            [
                Column("candidate", "text"),
                Column("mean"),
                Column(f"95{numbers.SPACE}% interval", "interval"),
                Column("rows"),
            ],
            [_run_row(each) for each in run.figures],
        ),
        paragraph(f"client.runs.get({run.run_id!r}) has its distribution and slices."),
    )


def _run_row(figures: RunFiguresLike) -> list[Cell]:
    """Return the mean of one candidate."""
    low, high = Estimate(figures.mean, figures.standard_error, figures.count).interval()
    return [
        Cell(name(figures.candidate) if figures.candidate else "all rows"),
        Cell(numbers.within(figures.mean, (high - low) / 2)),
        Cell(numbers.interval((low, high), " \u2026 ")),
        Cell(numbers.count(figures.count)),
    ]
