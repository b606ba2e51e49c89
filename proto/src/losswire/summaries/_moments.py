"""Centred moments of groups of rows, merged pairwise (Chan, Golub and LeVeque 1983).

The numbers are measured from an origin near their mean. A variance may be 18 orders of magnitude
below the square of the mean, so that rounding the mean of the numbers themselves would be seen.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from losswire.v1 import summary_pb2

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


class MomentsTable:
    """Moments of `dimension` numbers of each row, for each of some groups."""

    def __init__(self, groups: int, dimension: int) -> None:
        """Start without rows."""
        self.dimension = dimension
        self.weight: Floats = np.zeros(groups)
        self.means: Floats = np.zeros((groups, dimension))
        self.products: Floats = np.zeros((groups, dimension * (dimension + 1) // 2))

    @classmethod
    def of_rows(
        cls,
        numbers: Sequence[Floats],
        group: Integers | None,
        groups: int,
        weights: Floats | None = None,
        totals: Floats | None = None,
    ) -> "MomentsTable":
        """Return the moments of some rows.

        `numbers` are arrays of shape (rows), `group` the group of each row (None: there is one),
        `weights` their weights (None: 1 each), `totals` the sum of these by group if it is known.
        """
        table = cls(groups, len(numbers))
        if totals is None:
            totals = sums_by_group(weights, group, groups, len(numbers[0]))
        table.weight = totals.copy()
        weight = np.where(table.weight == 0, 1.0, table.weight)
        deviations, rounded = [], []
        for position, each in enumerate(numbers):
            mean = sums_by_group(times(each, weights), group, groups) / weight
            deviation = each - (mean[0] if group is None else mean[group])
            rounded.append(sums_by_group(times(deviation, weights), group, groups) / weight)
            table.means[:, position] = mean + rounded[-1]
            deviations.append(deviation)
        for position, (row, column) in enumerate(_triangle(len(numbers))):
            left = times(deviations[row], weights)
            # The deviations are from the rounded mean: what that adds is taken away again.
            excess = rounded[row] * rounded[column] * table.weight
            total = _products(left, deviations[column], group, groups)
            table.products[:, position] = total - excess
        return table

    def shift(self, deltas: Sequence[Floats]) -> None:
        """Measure from other origins; the numbers are pairs of n - origin x d and d.

        `deltas` has the old origin minus the new one of each pair, for each group.
        """
        if not any(each.any() for each in deltas):
            return
        change = np.zeros((len(self.weight), self.dimension, self.dimension))
        change[:] = np.eye(self.dimension)
        for pair, each in enumerate(deltas):
            change[:, 2 * pair, 2 * pair + 1] = each
        rows, columns = np.tril_indices(self.dimension)
        whole = np.zeros_like(change)
        whole[:, rows, columns] = self.products
        whole[:, columns, rows] = self.products
        whole = change @ whole @ change.transpose(0, 2, 1)
        self.products = whole[:, rows, columns]
        self.means = (change @ self.means[:, :, None])[:, :, 0]

    def grow(self, groups: int) -> None:
        """Add groups without rows."""
        missing = groups - len(self.weight)
        self.weight = np.concatenate([self.weight, np.zeros(missing)])
        for name in ("means", "products"):
            array = getattr(self, name)
            empty = np.zeros((missing, array.shape[1]))
            setattr(self, name, np.concatenate([array, empty]))

    def merge(self, other: "MomentsTable", into: Integers | slice = slice(None)) -> None:
        """Add the rows of another table; `into` says which group each of its groups goes to."""
        ours, theirs = self.weight[into], other.weight
        total = ours + theirs
        safe = np.where(total == 0, 1.0, total)
        delta = other.means - self.means[into]
        share = theirs / safe
        # Where this table has no rows, the other's are taken over as they are.
        empty = ours == 0
        factor = np.where(empty, 0.0, ours * share)
        for position, (row, column) in enumerate(_triangle(self.dimension)):
            step = other.products[:, position] + delta[:, row] * delta[:, column] * factor
            self.products[into, position] += step
        # From the heavier side: the mean of the lighter one may be far larger than that of both.
        moved = np.where(
            (theirs > ours)[:, None],
            other.means - delta * (ours / safe)[:, None],
            self.means[into] + delta * share[:, None],
        )
        self.means[into] = np.where(empty[:, None], other.means, moved)
        self.weight[into] = total

    def write(self, group: int, message: summary_pb2.Moments) -> None:
        """Write the moments of one group to a message."""
        message.weight = self.weight[group]
        message.means[:] = self.means[group].tolist()
        message.products[:] = self.products[group].tolist()

    def read(self, group: int, message: summary_pb2.Moments) -> None:
        """Read the moments of one group from a message; one that was never written is empty."""
        self.weight[group] = message.weight
        if message.means:
            self.means[group] = message.means
            self.products[group] = message.products

    def bytes_with(self, groups: int) -> int:
        """Return the memory of the table with as many groups."""
        return 8 * groups * (1 + self.dimension + self.dimension * (self.dimension + 1) // 2)

    @property
    def nbytes(self) -> int:
        """The memory of the table, in bytes."""
        arrays = (self.weight, self.means, self.products)
        return sum(each.nbytes for each in arrays)


def _triangle(dimension: int) -> list[tuple[int, int]]:
    """List the positions of a lower triangle, by rows."""
    return [(row, column) for row in range(dimension) for column in range(row + 1)]


def times(numbers: Floats, weights: Floats | None) -> Floats:
    """Return numbers times their weights; None: 1 each."""
    return numbers if weights is None else numbers * weights


def _products(left: Floats, right: Floats, group: Integers | None, groups: int) -> Floats:
    if group is None:
        # Not a dot product: BLAS wakes threads for it, and adds up less exactly.
        return np.array([(left * right).sum()])
    return sums_by_group(left * right, group, groups)


def sums_by_group(
    numbers: Floats | None, group: Integers | None, groups: int, rows: int = 0
) -> Floats:
    """Add up numbers of rows by group (None: there is one group); None: 1 for each of `rows`."""
    if group is None:
        return np.array([float(rows) if numbers is None else numbers.sum()])
    return np.asarray(np.bincount(group, numbers, minlength=groups), np.float64)
