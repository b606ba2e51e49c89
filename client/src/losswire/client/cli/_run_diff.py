"""Two evaluations side by side: `losswire runs diff`."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from losswire.client.cli._common import UsageError, comparing
from losswire.client.cli._table import interval, number, probability, table
from losswire.summaries import statistics
from losswire.summaries.figures.increase import (
    SAME_ROWS,
    Evaluation,
    Increase,
    Pairing,
    Side,
    covers_same_rows,
)

UNPAIRED = "unpaired: rows that are hard for both widen the intervals of the differences"


def diff_lines(first: Evaluation, second: Evaluation, level: float) -> Iterator[str]:
    """Write both for people; a difference is the second minus the first."""
    for name, pairing in _pairings(first, second):
        before, after = pairing.totals
        total = pairing.increase(before, after)
        yield f"{pairing.baseline.evaluation.message.loss}{f', candidate {name}' if name else ''}"
        titles = ("", first.text, second.text, "DIFFERENCE")
        yield from table(titles, list(_total_rows(pairing, total, level)), "")
        for column in pairing.columns:
            yield ""
            yield from _slice_lines(pairing, column, level)
        yield ""
    yield UNPAIRED
    if covers_same_rows(first, second):
        yield SAME_ROWS


def diff_facts(first: Evaluation, second: Evaluation, level: float) -> dict[str, Any]:
    """Return the same for JSON."""
    found = []
    for name, pairing in _pairings(first, second):
        before, after = pairing.totals
        found.append(
            {
                "candidate": name,
                "total": _facts(pairing.increase(before, after), level),
                "slices": {
                    column: {
                        label: _facts(each, level) | {"p_adjusted": p_value}
                        for label, each, p_value in _known_slices(pairing, column)
                    }
                    for column in pairing.columns
                },
            }
        )
    return {"first": first.text, "second": second.text, "paired": False, "differences": found}


def _pairings(first: Evaluation, second: Evaluation) -> Iterator[tuple[str, Pairing]]:
    """Yield the candidates that both have."""
    if not first.message.candidates and not second.message.candidates:
        with comparing():
            pairing = Pairing(Side(first), Side(second), paired=False)
        yield "", pairing
        return
    names = [list(each.message.candidates) for each in (first, second)]
    common = [name for name in names[0] if name in names[1]]
    if not common:
        message = f"{first.text} and {second.text} have no candidate in common"
        raise UsageError(message)
    for name in common:
        sides = Side(first, names[0].index(name)), Side(second, names[1].index(name))
        with comparing():
            pairing = Pairing(*sides, paired=False)
        yield name, pairing


def _total_rows(
    pairing: Pairing, total: Increase, level: float
) -> Iterator[tuple[str, str, str, str]]:
    before, after = pairing.totals
    yield "rows", str(pairing.baseline.count(before)), str(pairing.candidate.count(after)), ""
    yield "mean", number(total.baseline.mean), number(total.candidate.mean), number(total.mean)
    yield (
        f"{100 * level:.6g} % interval",
        interval(total.baseline.interval(level)),
        interval(total.candidate.interval(level)),
        interval(total.interval(level)),
    )


def _known_slices(pairing: Pairing, column: str) -> list[tuple[str, Increase, float]]:
    """Return the slices that both have, with their p values by Holm."""
    found = [
        (label, pairing.increase(before, after))
        for label, before, after in pairing.slices(column)
        if before and after
    ]
    p_values = statistics.holm([_p_value(each) for _, each in found])
    return [(*each, p_value) for each, p_value in zip(found, p_values, strict=True)]


def _slice_lines(pairing: Pairing, column: str, level: float) -> Iterator[str]:
    known = {label: (each, p_value) for label, each, p_value in _known_slices(pairing, column)}
    rows = []
    for label, before, after in pairing.slices(column):
        if label in known:
            each, p_value = known[label]
            rows.append(
                (
                    label,
                    number(each.baseline.mean),
                    number(each.candidate.mean),
                    number(each.mean),
                    interval(each.interval(level)),
                    probability(p_value),
                )
            )
        else:
            means = [
                number(side.mean(group).mean) if group else "-"
                for side, group in ((pairing.baseline, before), (pairing.candidate, after))
            ]
            rows.append((label, means[0], means[1], "-", "-", "-"))
    first, second = pairing.baseline.evaluation.text, pairing.candidate.evaluation.text
    titles = (column, first, second, "DIFFERENCE", f"{100 * level:.6g} % INTERVAL", "P (HOLM)")
    yield from table(titles, rows, "")


def _p_value(found: Increase) -> float:
    """Return the two-sided p value of no difference."""
    # The smaller tail: as 1 minus the other one, it would be rounded to 0.
    return min(1.0, 2 * replace(found, mean=abs(found.mean)).p_above(0.0))


def _facts(found: Increase, level: float) -> dict[str, Any]:
    return {
        "first_mean": found.baseline.mean,
        "second_mean": found.candidate.mean,
        "difference": found.mean,
        "standard_error": found.standard_error,
        "interval": found.interval(level),
        "p_value": _p_value(found),
        "small": found.small,
    }
