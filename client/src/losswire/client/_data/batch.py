"""One batch of rows: the form that every kind of data is read into."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from losswire.summaries import Column

Array = npt.NDArray[Any]
Arrays = Mapping[str, Array]


@dataclass(frozen=True, kw_only=True, eq=False)
class Batch:
    """Some rows, neighbours in their partition, and all that belongs to them."""

    rows: int
    """How many, N."""
    inputs: Arrays
    """The loss's inputs by name, each of shape (N, ...) or as `row_axes` says; all candidates
    share them."""
    candidates: tuple[Arrays, ...] = ()
    """Each candidate's own inputs by name, in the order of the candidates."""
    sample_weight: Array | None = None
    """A weight for each row, of shape (N), or for each value, of shape (N, ...)."""
    columns: Mapping[str, Column] = field(default_factory=dict)
    """The columns that slices are made of, by name."""
    clusters: Column | None = None
    """The cluster of each row."""
    ids: Column | None = None
    """The id of each row."""
    partition: str | None = None
    """The key of the part of the data that the rows are in, such as its path; None where the data
    has no names for its parts."""
    first_row: int | None = None
    """The number of the first row in the partition; None where the data does not say."""
    total_rows: int | None = None
    """How many rows the whole data has, over all partitions; None where this is not known."""
    is_lasting: bool = False
    """Whether the arrays stay as they are until the call ends. False: the caller may fill them
    again when the next batch is asked for."""
    row_axes: Mapping[str, int | None] = field(default_factory=dict)
    """The axis of the rows in each input where it is not the first; None: the input has none."""

    @property
    def nbytes(self) -> int:
        """The bytes of all arrays; labels are not counted."""
        columns = (*self.columns.values(), self.clusters, self.ids)
        return (
            sum(array.nbytes for each in (self.inputs, *self.candidates) for array in each.values())
            + (0 if self.sample_weight is None else self.sample_weight.nbytes)
            + sum(column.codes.nbytes for column in columns if column is not None)
        )

    def rows_between(self, start: int, stop: int) -> "Batch":
        """Return the rows from `start` up to and without `stop`: views, without a copy.

        Columns with more labels than the cut has rows get codes and labels of their own.
        Raises IndexError unless 0 <= start <= stop <= rows.
        """
        if not 0 <= start <= stop <= self.rows:
            raise IndexError(f"rows {start} to {stop} are not within the batch's {self.rows}")
        cut = slice(start, stop)
        return replace(
            self,
            rows=stop - start,
            inputs=self._cut(self.inputs, cut),
            candidates=tuple(self._cut(each, cut) for each in self.candidates),
            sample_weight=None if self.sample_weight is None else self.sample_weight[cut],
            columns={name: _cut_column(column, cut) for name, column in self.columns.items()},
            clusters=None if self.clusters is None else _cut_column(self.clusters, cut),
            ids=None if self.ids is None else _cut_column(self.ids, cut),
            first_row=None if self.first_row is None else self.first_row + start,
        )

    def _cut(self, arrays: Arrays, cut: slice) -> dict[str, Array]:
        axes = {name: self.row_axes.get(name, 0) for name in arrays}
        return {
            name: array if (axis := axes[name]) is None else array[(slice(None),) * axis + (cut,)]
            for name, array in arrays.items()
        }


def compact(column: Column) -> Column:
    """Return the column with at most one label for each row, as messages require."""
    if column.labels is None or len(column.labels) <= len(column.codes):
        return column
    used, codes = np.unique(column.codes, return_inverse=True)
    labels = [column.labels[code] for code in used.tolist()]
    return Column(codes.astype(np.int64, copy=False), labels)


def _cut_column(column: Column, cut: slice) -> Column:
    return compact(Column(column.codes[cut], column.labels))
