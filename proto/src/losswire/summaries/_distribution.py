"""The losses of one candidate in each of some groups of rows."""

from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
import numpy.typing as npt

from losswire.summaries._kernels import NUMPY, Kernels
from losswire.summaries._moments import MomentsTable, sums_by_group, times
from losswire.summaries._rows import Rows
from losswire.summaries._sketch import Bucketed, Extent, SketchTable
from losswire.v1 import summary_pb2

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

_COUNTS: Final = (
    "count",
    "ignored_count",
    "nan_count",
    "positive_infinity_count",
    "negative_infinity_count",
)
_SUMS: Final = (
    "weight_sum",
    "weight_square_sum",
    "sum",
    "mean_numerator",
    "mean_denominator",
)

GROUP_BYTES: Final = 8 * (len(_COUNTS) + len(_SUMS) + 3 + 6 + 3)
"""Of one group, without its sketch: counts, sums, origin, extremes, terms and values."""


@dataclass(frozen=True)
class CandidateRows:
    """The rows of one candidate, of which the finite ones are selected once for all tables."""

    rows: Rows
    candidate: int
    scale: int
    """The scale of new sketches."""
    kernels: Kernels = NUMPY

    @cached_property
    def all_values(self) -> Floats:
        """The value of each row, (N)."""
        values: Floats = self.rows.values[self.candidate]
        return values

    @cached_property
    def counted(self) -> Flags | None:
        """Which rows take part, (N); None: all."""
        return None if self.rows.counted is None else self.rows.counted[self.candidate]

    @cached_property
    def finite(self) -> Flags:
        """Which rows take part and are finite, (N)."""
        finite = np.isfinite(self.all_values)
        return finite if self.counted is None else finite & self.counted

    @cached_property
    def which(self) -> Flags | None:
        """The same; None: all."""
        return None if self.finite.all() else self.finite

    @cached_property
    def values(self) -> Floats:
        """The values of the finite rows."""
        return self.select(self.all_values)

    @cached_property
    def weights(self) -> Floats | None:
        """Their weights; None: 1 each."""
        return None if self.rows.weights is None else self.select(self.rows.weights)

    @cached_property
    def bucketed(self) -> Bucketed:
        """The buckets of the values, which all tables share."""
        return Bucketed.of(self.values, self.scale, self.kernels)

    @cached_property
    def is_plain(self) -> bool:
        """Whether a row's numerator is its value and its denominator 1."""
        parts = (self.rows.weights, self.rows.numerators, self.rows.denominators)
        return all(each is None for each in parts)

    @cached_property
    def numerators(self) -> Floats:
        """The numerators of the finite rows."""
        if self.rows.numerators is not None:
            return self.select(self.rows.numerators[self.candidate])
        return self.values if self.weights is None else self.values * self.weights

    @cached_property
    def denominators(self) -> Floats:
        """The denominators of the finite rows."""
        if self.rows.denominators is not None:
            return self.select(self.rows.denominators[self.candidate])
        return np.ones(len(self.values)) if self.weights is None else self.weights

    def measured(self, origin: Floats | float) -> tuple[Floats, Floats]:
        """Return n - origin x d and d of the finite rows; `origin` may be an array of theirs."""
        if self.rows.numerators is not None:
            return self.numerators - origin * self.denominators, self.denominators
        # The difference of the values is exact, and rounding their products is not.
        centred = self.values - origin
        if self.rows.denominators is None:
            return times(centred, self.weights), self.denominators
        above = times(centred, self.weights)
        spare = self.denominators - (1.0 if self.weights is None else self.weights)
        return above - origin * spare, self.denominators

    def select(self, array: Floats) -> Floats:
        """Return the finite rows of an array."""
        return array if self.which is None else array[self.which]


class DistributionTable:
    """The losses of one candidate, for each of some groups."""

    def __init__(self, groups: int, scale: int, kernels: Kernels = NUMPY) -> None:
        """Start without rows; `scale` is that of the sketches."""
        self._kernels = kernels
        self.counts: dict[str, Integers] = {name: np.zeros(groups, np.int64) for name in _COUNTS}
        self.sums: dict[str, Floats] = {name: np.zeros(groups) for name in _SUMS}
        self.origin: Floats = np.zeros(groups)
        """The value from which the moments are measured; a group has one with its first row."""
        self.minimum: Floats = np.full(groups, np.inf)
        self.maximum: Floats = np.full(groups, -np.inf)
        self.terms = MomentsTable(groups, 2)
        self.values = MomentsTable(groups, 1)
        self.sketch = SketchTable(groups, scale, kernels)

    @property
    def nbytes(self) -> int:
        """The memory of the table, in bytes."""
        own = sum(each.nbytes for each in (*self.counts.values(), *self.sums.values()))
        own += self.origin.nbytes + self.minimum.nbytes + self.maximum.nbytes
        return own + self.terms.nbytes + self.values.nbytes + self.sketch.nbytes

    def bytes_with(self, extent: Extent | None, groups: int) -> int:
        """Return the memory with values of an extent and as many groups, at most."""
        return groups * GROUP_BYTES + self.sketch.bytes_with(extent, groups)

    def grow(self, groups: int) -> None:
        """Add groups without rows."""
        missing = groups - len(self.minimum)
        for counts in (self.counts, self.sums):
            for name, array in counts.items():
                counts[name] = np.concatenate([array, np.zeros(missing, array.dtype)])
        self.origin = np.concatenate([self.origin, np.zeros(missing)])
        self.minimum = np.concatenate([self.minimum, np.full(missing, np.inf)])
        self.maximum = np.concatenate([self.maximum, np.full(missing, -np.inf)])
        for part in (self.terms, self.values, self.sketch):
            part.grow(groups)

    def add(self, found: CandidateRows, group: Integers | None) -> None:
        """Add rows; `group` is the group of each, (N); None: there is one."""
        groups = len(self.minimum)
        self._add_counts(found, group)
        values, weights = found.values, found.weights
        if not len(values):
            return
        ours = None if group is None else group if found.which is None else group[found.which]
        if ours is not None and found.is_plain:
            self._add_plain(found, ours)
            return
        totals = self._sums_of(found, ours, groups)
        self._find_origins(totals)
        for name, each in totals.items():
            self.sums[name] += each
        origin = self.origin_of_rows(ours)
        weight = totals["weight_sum"]
        moments = MomentsTable.of_rows([values - origin], ours, groups, weights, weight)
        self.terms.merge(self._terms_of(found, ours, groups, moments))
        self.values.merge(moments)
        if ours is None:
            self.minimum = np.minimum(self.minimum, values.min())
            self.maximum = np.maximum(self.maximum, values.max())
        else:
            # Few rows are beyond what is known, and `at` takes longer than the comparison.
            below, above = values < self.minimum[ours], values > self.maximum[ours]
            np.minimum.at(self.minimum, ours[below], values[below])
            np.maximum.at(self.maximum, ours[above], values[above])
        self.sketch.add(found.bucketed, ours, weights)

    def _add_plain(self, found: CandidateRows, group: Integers) -> None:
        """Add rows of several groups whose numerators are their values."""
        groups = len(self.minimum)
        counts, sums = self._kernels.sums(found.values, group, groups)
        totals = dict(zip(_SUMS, (counts, counts, sums, sums, counts), strict=True))
        self._find_origins(totals)
        for name, each in totals.items():
            self.sums[name] += each
        moments = self._kernels.moments(found.values, group, self.origin, counts)
        values = MomentsTable(groups, 1)
        values.weight = counts
        values.means[:, 0], values.products[:, 0] = moments.means, moments.products
        self.terms.merge(self._terms_of(found, group, groups, values))
        self.values.merge(values)
        self.minimum = np.minimum(self.minimum, moments.minimum)
        self.maximum = np.maximum(self.maximum, moments.maximum)
        self.sketch.add(found.bucketed, group, None)

    def _find_origins(self, added: dict[str, Floats]) -> None:
        """Set the origin of groups that have their first rows, or a mean, with these: their mean.

        Of rows whose denominators are all 0 it is that of the values, until there are others.
        """
        origin = self.origin
        first = self.terms.weight == 0
        for above, below in (("sum", "weight_sum"), ("mean_numerator", "mean_denominator")):
            chosen = (first | (self.sums[below] == 0)) & (added[below] != 0)
            found = added[above] / np.where(chosen, added[below], 1.0)
            origin = np.where(chosen & np.isfinite(found), found, origin)
        self._move(origin)

    def _move(self, origin: Floats) -> None:
        """Measure from other origins groups whose denominators are all 0: terms stay the same."""
        with np.errstate(invalid="ignore"):
            moved = self.values.means[:, 0] + (self.origin - origin)
        self.values.means[:, 0] = np.where(self.values.weight > 0, moved, 0.0)
        self.origin = origin

    def origin_of_rows(self, group: Integers | None) -> Floats | float:
        """Return the origin of each row's group."""
        return float(self.origin[0]) if group is None else self.origin[group]

    def _add_counts(self, found: CandidateRows, group: Integers | None) -> None:
        self.counts["count"] += _count(found.counted, group, len(self.minimum), len(found.finite))
        if found.which is None:
            return
        values, counted = found.all_values, found.counted
        kinds = {
            "nan_count": np.isnan(values),
            "positive_infinity_count": values == np.inf,
            "negative_infinity_count": values == -np.inf,
        }
        if counted is not None:
            kinds = {name: each & counted for name, each in kinds.items()}
            kinds["ignored_count"] = ~counted
        for name, each in kinds.items():
            if each.any():
                self.counts[name] += _count(each, group, len(self.minimum), 0)

    @staticmethod
    def _sums_of(found: CandidateRows, group: Integers | None, groups: int) -> dict[str, Floats]:
        values, weights = found.values, found.weights
        rows = len(values)
        total = sums_by_group(weights, group, groups, rows)
        weighted = values if weights is None else values * weights
        squares = total if weights is None else sums_by_group(weights * weights, group, groups)
        added = sums_by_group(weighted, group, groups)
        if found.is_plain:
            return dict(zip(_SUMS, (total, total, added, added, total), strict=True))
        above = sums_by_group(found.numerators, group, groups)
        below = sums_by_group(found.denominators, group, groups)
        return dict(zip(_SUMS, (total, squares, added, above, below), strict=True))

    def _terms_of(
        self, found: CandidateRows, group: Integers | None, groups: int, values: MomentsTable
    ) -> MomentsTable:
        """Return the moments of numerators and denominators, given those of the values."""
        if not found.is_plain:
            numbers = found.measured(self.origin_of_rows(group))
            return MomentsTable.of_rows(numbers, group, groups)
        table = MomentsTable(groups, 2)
        table.weight = values.weight.copy()
        table.means[:, 0], table.means[:, 1] = values.means[:, 0], values.weight > 0
        table.products[:, 0] = values.products[:, 0]
        return table

    def deltas_to(self, other: "DistributionTable", into: Integers) -> Floats:
        """Return the origin of each of the other's groups minus that of ours.

        A group that has none of its own, or whose denominators are all 0, takes over the other's.
        """
        empty = (self.sums["mean_denominator"][into] == 0) & (other.terms.weight > 0)
        origin = self.origin.copy()
        origin[into] = np.where(empty, other.origin, origin[into])
        self._move(origin)
        # Without rows there is nothing that an origin would be of.
        return np.where(other.terms.weight == 0, 0.0, other.origin - self.origin[into])

    def merge(self, other: "DistributionTable", into: Integers, delta: Floats) -> None:
        """Add the rows of another table; `into` says which group each of its groups goes to.

        `delta` is that of `deltas_to`. The other table is changed.
        """
        other.terms.shift([delta])
        other.values.means[:, 0] += delta
        for name, counts in other.counts.items():
            self.counts[name][into] += counts
        for name, sums in other.sums.items():
            self.sums[name][into] += sums
        self.minimum[into] = np.minimum(self.minimum[into], other.minimum)
        self.maximum[into] = np.maximum(self.maximum[into], other.maximum)
        self.terms.merge(other.terms, into)
        self.values.merge(other.values, into)
        self.sketch.merge(other.sketch, into)

    def write(self, group: int, message: summary_pb2.LossDistribution) -> None:
        """Write one group to a message, apart from the worst rows."""
        for name, counts in self.counts.items():
            setattr(message, name, int(counts[group]))
        for name, sums in self.sums.items():
            setattr(message, name, float(sums[group]))
        message.origin = float(self.origin[group])
        self.terms.write(group, message.terms)
        self.values.write(group, message.values)
        if self.minimum[group] <= self.maximum[group]:
            message.minimum, message.maximum = self.minimum[group], self.maximum[group]
        self.sketch.write(group, message.sketch)

    def read(self, group: int, message: summary_pb2.LossDistribution) -> None:
        """Read one group from a message."""
        for name, counts in self.counts.items():
            counts[group] = getattr(message, name)
        for name, sums in self.sums.items():
            sums[group] = getattr(message, name)
        self.origin[group] = message.origin
        self.terms.read(group, message.terms)
        self.values.read(group, message.values)
        if message.HasField("minimum"):
            self.minimum[group], self.maximum[group] = message.minimum, message.maximum
        self.sketch.read(group, message.sketch)


def _count(flags: Flags | None, group: Integers | None, groups: int, rows: int) -> Integers:
    """Count rows by group; None: all of `rows`."""
    if group is None:
        return np.array([rows if flags is None else np.count_nonzero(flags)])
    return np.bincount(group if flags is None else group[flags], minlength=groups)
