"""The reductions of rows that take the time of a summary, by numpy.

A server replaces them by native code that reads each row once.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from losswire.summaries._buckets import bucket_indices
from losswire.summaries._moments import sums_by_group

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


class GroupMoments(NamedTuple):
    """Moments of the values of some rows, by group, measured from an origin, and extremes."""

    means: Floats
    """The mean of each group, minus its origin; 0 where it has no rows."""
    products: Floats
    """The sum of the squares of the distances from the mean."""
    minimum: Floats
    """The smallest value; infinite where there is none."""
    maximum: Floats
    """The largest value; -infinite where there is none."""


class Kernels:
    """Reductions of finite values, of shape (rows), each row once; `group` is that of each row."""

    def indices(self, magnitudes: Floats, scale: int) -> Integers:
        """Return the bucket of each value, which is greater than 0."""
        return bucket_indices(magnitudes, scale)

    def sums(self, values: Floats, group: Integers, groups: int) -> tuple[Floats, Floats]:
        """Return the number of rows and the sum of the values of each group."""
        return sums_by_group(None, group, groups), sums_by_group(values, group, groups)

    def moments(
        self, values: Floats, group: Integers, origin: Floats, counts: Floats
    ) -> GroupMoments:
        """Return the moments of each group, of which `counts` has the number of rows."""
        groups = len(origin)
        divisor = np.where(counts == 0, 1.0, counts)
        distance = values - origin[group]
        means = np.bincount(group, distance, minlength=groups) / divisor
        distance -= means[group]
        # The distances are from a rounded mean: what that adds is taken away again.
        rounded = np.bincount(group, distance, minlength=groups) / divisor
        products = np.bincount(group, distance * distance, minlength=groups)
        minimum, maximum = np.full(groups, np.inf), np.full(groups, -np.inf)
        np.minimum.at(minimum, group, values)
        np.maximum.at(maximum, group, values)
        return GroupMoments(
            means + rounded, products - rounded * rounded * counts, minimum, maximum
        )

    def count(self, weights: Floats, indices: Integers, group: Integers, first: int) -> None:
        """Add 1 to the bucket of each row: `weights` has, by group, the buckets from `first` on."""
        groups, buckets = weights.shape
        at = indices - first + group * buckets
        flat = weights.reshape(-1)
        # bincount makes an array of all cells: with many groups that costs more than the rows.
        if groups * buckets <= 4 * len(at):
            flat += np.bincount(at, minlength=flat.size)
        else:
            np.add.at(flat, at, 1.0)


NUMPY = Kernels()
