"""By how much the mean of one evaluation is above that of another, and how sure that is."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from losswire.summaries import statistics
from losswire.v1 import summary_pb2

Group = summary_pb2.GroupSummary
_OTHER = "(other)"

SAME_ROWS = "both are of the same rows: a comparison of both would tell smaller differences"


class IncomparableError(ValueError):
    """Evaluations that cannot be compared as requested."""

    def __init__(self, field: str, text: str) -> None:
        """Store which part of the question is wrong, and why."""
        super().__init__(text)
        self.field = field
        """`baseline`, `candidate`, `relative` or `slice`."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """A summary, and what it was called where it was asked for."""

    text: str
    message: summary_pb2.LossSummary


@dataclass(frozen=True, slots=True)
class Side:
    """One candidate of an evaluation."""

    evaluation: Evaluation
    index: int = 0

    def mean(self, group: Group) -> statistics.Estimate:
        """Return its mean in some rows."""
        return statistics.estimate(group, self.index)

    def count(self, group: Group) -> int:
        """Return how many of some rows take part."""
        return group.distributions[self.index].count


@dataclass(frozen=True, slots=True)
class Increase:
    """The mean of a candidate minus that of a baseline, in some rows."""

    baseline: statistics.Estimate
    candidate: statistics.Estimate
    mean: float
    """The increase; a fraction of the baseline's mean where it is relative."""
    standard_error: float
    small: bool
    """Whether there are too few rows for the normal law."""

    def interval(self, level: float) -> tuple[float, float]:
        """Return the two-sided interval by the normal law."""
        return statistics.Estimate(self.mean, self.standard_error, 0).interval(level)

    def p_above(self, limit: float) -> float:
        """Return the one-sided p value of an increase of at most `limit`; NaN if unknown."""
        if math.isnan(self.standard_error) or math.isnan(self.mean):
            return math.nan
        if self.standard_error == 0:
            return 0.0 if self.mean > limit else 1.0
        return math.erfc((self.mean - limit) / self.standard_error / math.sqrt(2)) / 2


@dataclass(frozen=True, slots=True)
class Pairing:
    """A baseline and a candidate, over other rows, or over the same ones."""

    baseline: Side
    candidate: Side
    paired: bool
    """Whether both are candidates of one comparison, row by row."""

    def __post_init__(self) -> None:
        if not self.paired:
            _check_alike(self.baseline.evaluation, self.candidate.evaluation)

    @property
    def totals(self) -> tuple[Group, Group]:
        """All rows of both."""
        return self.baseline.evaluation.message.total, self.candidate.evaluation.message.total

    @property
    def columns(self) -> list[str]:
        """The columns that both have slices of; a cross has commas in its name."""
        theirs = _tables(self.candidate.evaluation)
        return [name for name in _tables(self.baseline.evaluation) if name in theirs]

    def slices(self, column: str) -> Iterator[tuple[str, Group | None, Group | None]]:
        """Yield the label of each slice of a column, and its rows in both."""
        sides = [
            _slices(_tables(each.evaluation)[column]) for each in (self.baseline, self.candidate)
        ]
        for key in sorted({*sides[0], *sides[1]}, key=lambda each: (each is None, each or ())):
            label = _OTHER if key is None else ",".join(key)
            yield label, sides[0].get(key), sides[1].get(key)

    def increase(self, before: Group, after: Group, *, relative: bool = False) -> Increase:
        """Return the increase in some rows; NaN where a mean is not finite."""
        baseline, candidate = self.baseline.mean(before), self.candidate.mean(after)
        if self.paired:
            found = statistics.difference(after, self.candidate.index, self.baseline.index)
            mean, error, small = found.mean, found.standard_error, found.small
        else:
            mean = candidate.mean - baseline.mean
            error = math.hypot(candidate.standard_error, baseline.standard_error)
            small = candidate.small or baseline.small
        if relative:
            error = _relative_error(baseline, candidate, error)
            mean = mean / baseline.mean if baseline.mean > 0 else math.nan
        return Increase(baseline, candidate, mean, error, small)


def _relative_error(
    baseline: statistics.Estimate, candidate: statistics.Estimate, error: float
) -> float:
    """Return the standard error of the quotient of both means, by the delta method.

    `error` is that of their difference, from which their covariance follows.
    """
    if not baseline.mean > 0:
        return math.nan
    quotient = candidate.mean / baseline.mean
    ours, theirs = candidate.standard_error**2, baseline.standard_error**2
    covariance = (ours + theirs - error**2) / 2
    variance = ours + quotient**2 * theirs - 2 * quotient * covariance
    return math.sqrt(max(variance, 0.0)) / baseline.mean


def of_comparison(evaluation: Evaluation, name: str, field: str) -> Side:
    """Return one candidate of a comparison; IncomparableError when there is none of the name."""
    names = list(evaluation.message.candidates)
    if name not in names:
        known = ", ".join(names) or "none: it is no comparison"
        text = f'{evaluation.text} has no candidate "{name}"; it has {known}'
        raise IncomparableError(field, text)
    return Side(evaluation, names.index(name))


def covers_same_rows(first: Evaluation, second: Evaluation) -> bool:
    """Return whether two evaluations are of the same rows, as far as their partitions say."""
    named = [
        {each.partition: [(part.begin, part.end) for part in each.ranges] for each in one.included}
        for one in (first.message, second.message)
    ]
    return bool(named[0]) and any(named[0]) and named[0] == named[1]


def _check_alike(baseline: Evaluation, candidate: Evaluation) -> None:
    """Refuse evaluations whose numbers mean different things."""
    losses = [each.message.loss for each in (baseline, candidate)]
    if losses[0] != losses[1]:
        text = f"{baseline.text} is of {losses[0]}, {candidate.text} of {losses[1]}"
        raise IncomparableError("candidate", text)
    if dict(baseline.message.options) != dict(candidate.message.options):
        text = f"{baseline.text} and {candidate.text} have other options of {losses[0]}"
        raise IncomparableError("candidate", text)


def _tables(evaluation: Evaluation) -> Mapping[str, summary_pb2.SliceTable]:
    return {",".join(each.columns): each for each in evaluation.message.tables}


def _slices(found: summary_pb2.SliceTable) -> Mapping[tuple[str, ...] | None, Group]:
    """Return the slices by their labels, and the rows of all others by None."""
    groups: dict[tuple[str, ...] | None, Group] = {
        tuple(each.labels): each for each in found.slices
    }
    if found.HasField("other"):
        groups[None] = found.other
    return groups
