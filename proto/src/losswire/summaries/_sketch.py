"""Sketches of the values of groups of rows: dense counts in logarithmic buckets."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Self

import numpy as np
import numpy.typing as npt

from losswire.summaries._buckets import MIN_SCALE, bucket_indices
from losswire.summaries._kernels import NUMPY, Kernels
from losswire.v1 import summary_pb2

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

MAX_BUCKETS: Final = 8192
"""The most buckets of one sketch, as the contract says."""
_MAX_CELLS: Final = 1 << 23
"""The most buckets of all groups of a table together, empty ones included: 64 MiB."""
_MARGIN: Final = 64
"""How many buckets are added on either side when a table grows, so that it seldom does."""


@dataclass(frozen=True, slots=True)
class Extent:
    """Which buckets some values go to, of which at least one is not 0."""

    scale: int
    low: int
    high: int
    kinds: int
    """2 where there are negative ones, otherwise 1."""

    @classmethod
    def of(cls, values: Floats, scale: int) -> "Extent | None":
        """Return the extent of finite values; None where all are 0."""
        magnitudes = np.abs(values)
        magnitudes = magnitudes[magnitudes > 0]
        if not len(magnitudes):
            return None
        low, high = bucket_indices([magnitudes.min(), magnitudes.max()], scale).tolist()
        return cls(scale, low, high, 2 if (values < 0).any() else 1)


@dataclass(frozen=True, slots=True)
class Bucketed:
    """The buckets of some values, at a scale that is at least that of the tables they go to."""

    scale: int
    zeros: int
    """How many values are 0."""
    nonzero: Flags | None
    """Which values are not 0; None: all."""
    signs: Integers | None
    """1 for each negative one of those that are not 0; None: there is none."""
    indices: Integers
    """The bucket of each that is not 0, by magnitude."""
    low: int
    """The smallest and the largest index."""
    high: int

    @classmethod
    def of(cls, values: Floats, scale: int, kernels: Kernels = NUMPY) -> Self:
        """Find the buckets of finite values."""
        nonzero = values != 0
        zeros = len(values) - int(np.count_nonzero(nonzero))
        if zeros:
            values = values[nonzero]
        negative = values < 0
        signs = negative.astype(np.int64) if negative.any() else None
        indices = kernels.indices(values if signs is None else np.abs(values), scale)
        low, high = (int(indices.min()), int(indices.max())) if len(indices) else (0, 0)
        return cls(scale, zeros, nonzero if zeros else None, signs, indices, low, high)

    @property
    def extent(self) -> Extent | None:
        """The buckets of those that are not 0; None where all are."""
        if not len(self.indices):
            return None
        return Extent(self.scale, self.low, self.high, 1 if self.signs is None else 2)


class SketchTable:
    """Weights by bucket, for each of some groups. All groups have the same scale."""

    def __init__(self, groups: int, scale: int, kernels: Kernels = NUMPY) -> None:
        """Start without values, at the scale of the accuracy that was asked for."""
        self.scale = scale
        self._kernels = kernels
        self.zero: Floats = np.zeros(groups)
        self._first = 0
        """The index of the first bucket."""
        self._weights: Floats = np.zeros((groups, 1, 0))
        """By group, sign (positive first; the second only once there are negative values) and
        bucket."""

    @property
    def nbytes(self) -> int:
        """The memory of the table, in bytes."""
        return self.zero.nbytes + self._weights.nbytes

    def bytes_with(self, extent: Extent | None, groups: int) -> int:
        """Return the memory of the table with values of an extent and as many groups, at most."""
        _, kinds, span = self._weights.shape
        if extent is not None:
            shift = extent.scale - self.scale
            first, last = extent.low >> shift, extent.high >> shift
            if span:
                first, last = min(first, self._first), max(last, self._first + span - 1)
            kinds = max(kinds, extent.kinds)
            if last - first + 1 != span:
                span = last - first + 1 + 2 * _MARGIN
        return _bytes_of(groups, kinds, span)

    def add(
        self, values: "Floats | Bucketed", group: Integers | None, weights: Floats | None
    ) -> None:
        """Add finite values of shape (rows), each with its group (None: there is one) and weight.

        `weights`: None: 1 each. Tables of the same values share their buckets.
        """
        found = values if isinstance(values, Bucketed) else Bucketed.of(values, self.scale)
        if found.nonzero is not None:
            at = None if group is None else group[~found.nonzero]
            ours = None if weights is None else weights[~found.nonzero]
            self._add_zeros(found.zeros, at, ours)
            group = None if group is None else group[found.nonzero]
            weights = None if weights is None else weights[found.nonzero]
        if not len(found.indices):
            return
        kinds = 1 if found.signs is None else 2
        shift = found.scale - self.scale
        self._make_room(found.low >> shift, found.high >> shift, kinds, len(self.zero))
        shift = found.scale - self.scale
        self._cover(found.low >> shift, found.high >> shift, kinds)
        indices = found.indices >> shift if shift else found.indices
        if group is not None and weights is None and self._weights.shape[1] == 1:
            self._kernels.count(self._weights[:, 0], indices, group, self._first)
        else:
            self._count(indices - self._first, group, found.signs, weights)
        self._shrink()

    def _add_zeros(self, count: int, group: Integers | None, weights: Floats | None) -> None:
        if group is None:
            self.zero[0] += count if weights is None else weights.sum()
        else:
            self.zero += np.bincount(group, weights, minlength=len(self.zero))

    def _count(
        self,
        at: Integers,
        group: Integers | None,
        signs: Integers | None,
        weights: Floats | None,
    ) -> None:
        """Add weights to cells; `at` is the position of each value's bucket."""
        _, kinds, span = self._weights.shape
        if signs is not None:
            at = at + signs * span
        if group is not None:
            at = at + group * (kinds * span)
        flat = self._weights.reshape(-1)
        # bincount makes an array of all cells: with many groups that costs more than the values.
        if flat.size <= 4 * len(at):
            flat += np.bincount(at, weights, minlength=flat.size)
        else:
            np.add.at(flat, at, 1.0 if weights is None else weights)

    def _cover(self, first: int, last: int, kinds: int) -> None:
        """Make room for the buckets from `first` to `last`."""
        groups, old_kinds, span = self._weights.shape
        if span:
            first, last = min(first, self._first), max(last, self._first + span - 1)
        if kinds <= old_kinds and (first, last) == (self._first, self._first + span - 1):
            return
        if not span or first < self._first:
            first -= _MARGIN
        if not span or last >= self._first + span:
            last += _MARGIN
        grown = np.zeros((groups, max(kinds, old_kinds), last - first + 1))
        start = self._first - first if span else 0
        grown[:, :old_kinds, start : start + span] = self._weights
        self._weights, self._first = grown, first

    def _make_room(self, first: int, last: int, kinds: int, groups: int) -> None:
        """Lower the scale until the buckets from `first` to `last` of this scale can be covered.

        Before anything is allocated: two losses may be 500 000 buckets apart, in each group.
        """
        cells = groups * max(kinds, self._weights.shape[1])
        while self.scale > MIN_SCALE:
            span = self._weights.shape[2]
            low, high = self._first, self._first + span - 1
            if span and cells * (max(last, high) - min(first, low) + 1) > _MAX_CELLS:
                # Some of these may be empty.
                low, high = self._used() or (first, last)
            elif not span:
                low, high = first, last
            if cells * (max(last, high) - min(first, low) + 1) <= _MAX_CELLS:
                return
            self._lower()
            first >>= 1
            last >>= 1

    def _shrink(self, among: Integers | slice = slice(None)) -> None:
        """Lower the scale while one of some groups has too many buckets."""
        while self.scale > MIN_SCALE:
            _, kinds, span = self._weights.shape
            if kinds * span <= MAX_BUCKETS:
                return
            used = np.count_nonzero(self._weights[among], axis=(1, 2))
            if not len(used) or int(used.max()) <= MAX_BUCKETS:
                return
            self._lower()

    def _used(self) -> tuple[int, int] | None:
        """Return the first and the last bucket that have something, in any group."""
        used = np.flatnonzero(self._weights.any(axis=(0, 1)))
        return (int(used[0]) + self._first, int(used[-1]) + self._first) if len(used) else None

    def _lower(self) -> None:
        """Join each two neighbouring buckets, which is exact."""
        groups, kinds, span = self._weights.shape
        odd = self._first & 1
        padded = np.zeros((groups, kinds, (span + odd + 1) // 2 * 2))
        padded[:, :, odd : odd + span] = self._weights
        self._weights = padded[:, :, ::2] + padded[:, :, 1::2]
        self._first >>= 1
        self.scale -= 1

    def lower_to(self, scale: int) -> None:
        """Lower the scale until it is not above `scale`."""
        while self.scale > scale:
            self._lower()

    def grow(self, groups: int) -> None:
        """Add groups without values."""
        used = self._used()
        if used:
            self._make_room(*used, 1, groups)
        missing = groups - len(self.zero)
        self.zero = np.concatenate([self.zero, np.zeros(missing)])
        empty = np.zeros((missing, *self._weights.shape[1:]))
        self._weights = np.concatenate([self._weights, empty])

    def merge(self, other: "SketchTable", into: Integers | slice = slice(None)) -> None:
        """Add the values of another table, whose scale may be lowered."""
        self.lower_to(other.scale)
        other.lower_to(self.scale)
        self.zero[into] += other.zero
        used = other._used()  # noqa: SLF001 (of the same class)
        if used is None:
            return
        kinds = other._weights.shape[1]  # noqa: SLF001
        self._make_room(*used, kinds, len(self.zero))
        other.lower_to(self.scale)
        first, last = other._used() or used  # noqa: SLF001
        self._cover(first, last, kinds)
        start, count = first - self._first, last - first + 1
        theirs = other._weights[:, :, first - other._first :][:, :, :count]  # noqa: SLF001
        self._weights[into, :kinds, start : start + count] += theirs
        self._shrink(into)

    def write(self, group: int, message: summary_pb2.LossSketch) -> None:
        """Write the sketch of one group to a message."""
        message.scale = self.scale
        message.zero_weight = self.zero[group]
        for sign, name in enumerate(("positive", "negative")[: self._weights.shape[1]]):
            weights = self._weights[group, sign]
            used = np.flatnonzero(weights)
            getattr(message, f"{name}_indices").extend((used + self._first).tolist())
            getattr(message, f"{name}_weights").extend(weights[used].tolist())

    def read(self, group: int, message: summary_pb2.LossSketch) -> None:
        """Add the values of a message to one group."""
        other = SketchTable(1, message.scale)
        other.zero[0] = message.zero_weight
        parts = (
            (message.positive_indices, message.positive_weights),
            (message.negative_indices, message.negative_weights),
        )
        for sign, (indices, weights) in enumerate(parts):
            if indices:
                at = np.array(indices, np.int64)
                other._cover(int(at.min()), int(at.max()), sign + 1)
                other._weights[0, sign, at - other._first] += np.array(weights)
        self.merge(other, np.array([group]))


def _bytes_of(groups: int, kinds: int, span: int) -> int:
    """Return the memory of a table of a width, whose scale is lowered where it is too large."""
    cells = min(groups * kinds * span, _MAX_CELLS + groups * kinds * 2 * _MARGIN)
    return 8 * (groups + cells)


def bytes_of_sketches(messages: Sequence[summary_pb2.LossSketch], scale: int) -> int:
    """Return the memory of the table that messages are read into, at most; one for each group.

    `scale` is that of the accuracy that was asked for.
    """
    kinds, low, high = 1, 0, -1
    for each in messages:
        for kind, indices in enumerate((each.positive_indices, each.negative_indices), 1):
            if not indices:
                continue
            kinds = max(kinds, kind)
            finer = 2.0 ** (scale - each.scale)
            first, last = int(indices[0] * finer // 1), int((indices[-1] + 1) * finer // 1)
            low, high = (first, last) if high < low else (min(low, first), max(high, last))
    return _bytes_of(len(messages), kinds, high - low + 1 + 2 * _MARGIN)
