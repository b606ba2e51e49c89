"""Whether a loss has become worse: the decision of `losswire gate`.

A check fails only when the increase is surely more than the limit: when the lower end of its
interval is above it. Without enough evidence it passes, and says so.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from losswire.summaries import statistics
from losswire.summaries.figures.increase import (
    SAME_ROWS,
    Group,
    IncomparableError,
    Increase,
    Pairing,
    covers_same_rows,
)

FAILED: Final = "fail"
PASSED: Final = "pass"
UNDECIDED: Final = "not enough evidence"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """What an increase must not exceed."""

    max_increase: float
    """How much the mean may increase; negative asks for a decrease."""
    relative: bool = False
    """Whether that is a fraction of the baseline's mean."""
    level: float = 0.95
    """The level of the intervals, in (0, 1)."""


@dataclass(frozen=True, slots=True)
class Check:
    """The outcome in some rows."""

    where: str
    """`total`, or COLUMN=LABEL."""
    increase: Increase
    bounds: tuple[float, float]
    p_value: float
    """Of an increase of at most the limit; of slices, with Holm's correction."""
    verdict: str

    def to_dict(self) -> dict[str, Any]:
        """Return it by name; numbers may be NaN."""
        return {
            "where": self.where,
            "verdict": self.verdict,
            "baseline_mean": self.increase.baseline.mean,
            "candidate_mean": self.increase.candidate.mean,
            "increase": self.increase.mean,
            "interval": self.bounds,
            "p_value": self.p_value,
            "small": self.increase.small,
        }


@dataclass(frozen=True, slots=True)
class Decision:
    """The outcome of all checks, the one of all rows first."""

    pairing: Pairing
    limit: Limit
    checks: Sequence[Check]
    notes: Sequence[str]
    """What could not be checked, and what else to know."""

    @property
    def passed(self) -> bool:
        """Whether no check failed."""
        return all(each.verdict != FAILED for each in self.checks)

    @property
    def lines(self) -> list[str]:
        """A line for each check."""
        return [_line(each, relative=self.limit.relative) for each in self.checks]

    @property
    def outcome(self) -> str:
        """The answer in a few words."""
        how = "row by row" if self.pairing.paired else "as unpaired evaluations"
        return f"{'passed' if self.passed else 'FAILED'}, compared {how}"

    def to_dict(self, baseline: str, candidate: str) -> dict[str, Any]:
        """Return it by name, with what both were called; numbers may be NaN."""
        return {
            "passed": self.passed,
            "baseline": baseline,
            "candidate": candidate,
            "paired": self.pairing.paired,
            "max_increase": self.limit.max_increase,
            "relative": self.limit.relative,
            "level": self.limit.level,
            "checks": [each.to_dict() for each in self.checks],
            "notes": list(self.notes),
        }


def decide(pairing: Pairing, limit: Limit, columns: Sequence[str] = ()) -> Decision:
    """Check all rows, and each slice of some columns.

    Raises IncomparableError for what no increase follows from, instead of passing it.
    """
    before, after = pairing.totals
    _check_rows(pairing, before, after, relative=limit.relative)
    total = pairing.increase(before, after, relative=limit.relative)
    slices, notes = _check_slices(pairing, limit, columns)
    if not pairing.paired and covers_same_rows(
        pairing.baseline.evaluation, pairing.candidate.evaluation
    ):
        notes.append(SAME_ROWS)
    return Decision(pairing, limit, [_check(limit, "total", total), *slices], notes)


def _check_rows(pairing: Pairing, before: Group, after: Group, *, relative: bool) -> None:
    """Refuse what no increase follows from."""
    sides = (("baseline", pairing.baseline, before), ("candidate", pairing.candidate, after))
    for field, side, group in sides:
        if not side.count(group):
            raise IncomparableError(field, f"{side.evaluation.text}: no row takes part")
    mean = pairing.baseline.mean(before).mean
    if not math.isfinite(mean):
        text = f"the mean of the baseline is {mean}; nothing can be compared with it"
        raise IncomparableError("baseline", text)
    if relative and mean <= 0:
        text = f"the mean of the baseline is {mean:.6g}, and not above 0"
        raise IncomparableError("relative", text)


def _check_slices(
    pairing: Pairing, limit: Limit, columns: Sequence[str]
) -> tuple[list[Check], list[str]]:
    """Check all slices together; returns what cannot be checked as lines."""
    found: list[tuple[str, Increase]] = []
    notes: list[str] = []
    for column in dict.fromkeys(columns):
        if column not in pairing.columns:
            known = ", ".join(pairing.columns) or "none"
            text = f"{column}: both must have slices of it; both have: {known}"
            raise IncomparableError("slice", text)
        for label, before, after in pairing.slices(column):
            where = f"{column}={label}"
            if not (before and pairing.baseline.count(before)):
                notes.append(f"{where}: not checked, the baseline has no such rows")
            elif not (after and pairing.candidate.count(after)):
                notes.append(f"{where}: not checked, the candidate has no such rows")
            elif limit.relative and not pairing.baseline.mean(before).mean > 0:
                notes.append(f"{where}: not checked, the mean of the baseline is not above 0")
            else:
                found.append((where, pairing.increase(before, after, relative=limit.relative)))
    p_values = statistics.holm([each.p_above(limit.max_increase) for _, each in found])
    checks = [
        _check(limit, where, increase, p_value)
        for (where, increase), p_value in zip(found, p_values, strict=True)
    ]
    return checks, notes


def _check(limit: Limit, where: str, increase: Increase, p_value: float | None = None) -> Check:
    bounds = increase.interval(limit.level)
    if p_value is None:
        p_value = increase.p_above(limit.max_increase)
    if math.isfinite(increase.baseline.mean) and not math.isfinite(increase.candidate.mean):
        verdict = FAILED
    elif p_value < (1 - limit.level) / 2:
        # Of one check, this is the same as: the lower end of the interval is above the limit.
        verdict = FAILED
    else:
        verdict = PASSED if bounds[1] <= limit.max_increase else UNDECIDED
    return Check(where, increase, bounds, p_value, verdict)


def _line(check: Check, *, relative: bool) -> str:
    found = check.increase
    line = f"{check.where}: {check.verdict}: mean {_number(found.baseline.mean)} -> "
    line += _mean(found.candidate.mean)
    if math.isfinite(found.mean):
        unit = " of the baseline's mean" if relative else ""
        line += f", increase {_number(found.mean)} {_interval(check.bounds)}{unit}"
    if found.small:
        line += " (few rows: the interval may be too narrow)"
    return line


def _mean(value: float) -> str:
    return _number(value) if math.isfinite(value) else str(value)


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.6g}"


def _interval(bounds: tuple[float, float]) -> str:
    low, high = bounds
    return "-" if math.isnan(low) else f"[{_number(low)}, {_number(high)}]"
