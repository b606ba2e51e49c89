"""A batch out of the columns of one dict or one Arrow record batch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from losswire.client._data.batch import Array, Batch, compact
from losswire.client._data.wanted import ColumnsWanted
from losswire.client._messages.arrays import as_array, is_python_numbers, to_numpy
from losswire.summaries import Column
from losswire.summaries.columns.arrow import (
    Dense,
    as_arrow_array,
    column_of_arrow,
    exports_arrow,
    tensor_of,
)
from losswire.summaries.columns.integers import accepted, floating_type
from losswire.summaries.columns.labels import ACCEPTED, Labelled, Mask, column_of, is_pandas
from losswire.summaries.columns.place import Place
from losswire.wire import exact_floats


class Source(Protocol):
    """The columns of some rows, by name."""

    @property
    def place(self) -> Place:
        """Where they are, for errors."""

    @property
    def names(self) -> Sequence[str]:
        """The names of the columns."""

    def array(self, name: str) -> Dense:
        """Return a column of numbers."""

    def column(self, name: str) -> Labelled:
        """Return a column of ids, slices or clusters."""


@dataclass(frozen=True)
class DictSource:
    """A dict of arrays of any library."""

    values: Mapping[str, Any]
    place: Place

    @property
    def names(self) -> Sequence[str]:
        """The keys."""
        return list(self.values)

    def array(self, name: str) -> Dense:
        """Return anything that `evaluate` takes, or an Arrow array."""
        value = self.values[name]
        if exports_arrow(value) and not _has_numbers(value):
            return tensor_of(as_arrow_array(value), self.place, name)
        return as_array(value, self.place.column(name)), None

    def column(self, name: str) -> Labelled:
        """Return anything that has a value for each row."""
        value = self.values[name]
        if exports_arrow(value) and not hasattr(value, "iloc"):
            return column_of_arrow(as_arrow_array(value), self.place.column(name))
        return column_of(_own_array(value, self.place.column(name)), self.place.column(name))


def _own_array(value: Any, path: str) -> Any:
    """Return what `column_of` reads: an array of another library as numpy has it."""
    if isinstance(value, (list, tuple, np.ndarray)) or is_pandas(value):
        return value
    try:
        return to_numpy(value)
    except TypeError as error:
        raise TypeError(f"{path}: {error}; {ACCEPTED}") from error


def _has_numbers(value: Any) -> bool:
    """Return whether this is a pandas Series of numbers as numpy has them: there NaN is no null."""
    dtype = getattr(value, "dtype", None)
    return hasattr(value, "iloc") and isinstance(dtype, np.dtype) and dtype.kind in "biuf"


@dataclass(frozen=True)
class ArrowSource:
    """An Arrow record batch, and the columns that its file's path holds."""

    record_batch: Any
    place: Place
    constants: Mapping[str, str | int | None]

    @property
    def names(self) -> Sequence[str]:
        """The names of all columns."""
        return [*self.record_batch.schema.names, *self.constants]

    def array(self, name: str) -> Dense:
        """Return a column of numbers, or of lists of numbers."""
        if name in self.record_batch.schema.names:
            return tensor_of(self.record_batch.column(name), self.place, name)
        value = self.constants[name]
        if not isinstance(value, int):
            raise TypeError(
                f"{self.place.column(name)}: its value {value!r} in the path is no number"
            )
        return np.full(self.record_batch.num_rows, value), None

    def column(self, name: str) -> Labelled:
        """Return a column of ids, slices or clusters."""
        if name in self.record_batch.schema.names:
            return column_of_arrow(self.record_batch.column(name), self.place.column(name))
        value, rows = self.constants[name], self.record_batch.num_rows
        codes = np.zeros(rows, np.int64)
        if value is None:
            return Column(codes), np.ones(rows, np.bool_)
        return (Column(codes + value) if isinstance(value, int) else Column(codes, [value])), None


@dataclass(kw_only=True)
class _Draft:
    """A batch while it is put together: its nulls are not settled."""

    rows: int | None = None
    counted: str = ""
    nulls: Mask | None = None

    def add(self, path: str, length: int, nulls: Mask | None) -> None:
        """Check the number of rows of a column, and add its nulls."""
        if self.rows is None:
            self.rows, self.counted = length, path
        elif length != self.rows:
            raise ValueError(f"{path}: {length} rows, and {self.counted} has {self.rows}")
        if nulls is not None:
            self.nulls = nulls if self.nulls is None else self.nulls | nulls


class Assembler:
    """Puts together the batches of one call; those of tables must agree in shapes."""

    def __init__(self, wanted: ColumnsWanted) -> None:
        self._wanted = wanted
        self._shapes: dict[str, tuple[tuple[int, ...], str]] = {}

    def batch(
        self,
        source: Source,
        *,
        partition: str | None = None,
        first_row: int | None = None,
        total_rows: int | None = None,
    ) -> tuple[int, Batch | None]:
        """Return the number of rows and the batch; None where none of them is without a null.

        Raises ValueError and TypeError that name the place, the column and the row.
        """
        wanted, draft = self._wanted, _Draft()
        there = source.names
        self._check_names(source, there)
        optional = {name: each for name, each in wanted.optional.items() if each in there}
        names = [{**wanted.inputs, **optional}, *wanted.candidates.values()]
        inputs, *candidates = self._accepted(
            [self._arrays(own, source, draft) for own in names], names, source.place
        )
        weight = self._weight(source, draft)
        columns = {name: self._column(name, source, draft) for name in wanted.slice_columns}
        clusters, ids = (
            None if name is None else self._column(name, source, draft)
            for name in (wanted.cluster, wanted.ids)
        )
        if not draft.rows or (draft.nulls is not None and draft.nulls.all()):
            return draft.rows or 0, None
        if draft.nulls is not None:
            whole = _Filler(draft.nulls, wanted.row_axes)
            inputs, candidates = whole.inputs(inputs), [whole.inputs(each) for each in candidates]
            weight = whole.weight(weight)
        batch = Batch(
            rows=draft.rows,
            inputs=inputs,
            candidates=tuple(candidates),
            sample_weight=weight,
            columns=columns,
            clusters=clusters,
            ids=ids,
            partition=partition,
            first_row=first_row,
            total_rows=total_rows,
            # Arrow's memory never changes.
            is_lasting=isinstance(source, ArrowSource),
            row_axes=wanted.row_axes,
        )
        return batch.rows, batch

    def _check_names(self, source: Source, there: Sequence[str]) -> None:
        self._wanted.columns_in(there, source.place.name)
        if source.place.is_dict:
            for name in self._wanted.shared_only.intersection(there):
                raise ValueError(
                    f"{source.place.column(name)}: this input has no rows; give it in shared"
                )

    def _arrays(
        self, columns: Mapping[str, str], source: Source, draft: _Draft
    ) -> dict[str, Array]:
        return {name: self._input(name, column, source, draft) for name, column in columns.items()}

    def _accepted(
        self, found: list[dict[str, Array]], columns: list[Mapping[str, str]], place: Place
    ) -> list[dict[str, Array]]:
        """Return inputs and candidates of a table with integers in types that the loss takes."""
        if place.is_dict:
            return found
        preferred = floating_type(each for own in found for each in own.values())
        types = self._wanted.types
        return [
            {
                name: accepted(array, types.get(name, ()), place.column(own[name]), preferred)
                for name, array in arrays.items()
            }
            for arrays, own in zip(found, columns, strict=True)
        ]

    def _input(self, name: str, column: str, source: Source, draft: _Draft) -> Array:
        """Return one input, with its rows in the axis where the loss expects them."""
        array, nulls = source.array(column)
        axis = self._wanted.row_axes.get(name, 0)
        path = source.place.column(column)
        if source.place.is_dict:
            if axis is not None:
                draft.add(path, _length(array, axis, path), self._allowed(nulls, source, column))
            return array
        if axis is None:
            raise ValueError(f'{path}: the input "{name}" has no rows; give it in shared')
        draft.add(path, len(array), self._allowed(nulls, source, column))
        if nulls is None or not nulls.all():
            self._check_shape(column, array, source)
        return np.moveaxis(array, 0, axis) if axis < array.ndim else array

    def _check_shape(self, column: str, array: Array, source: Source) -> None:
        """Raise ValueError where the lists of a table are longer than in another batch."""
        place = source.place
        where = f"{place.row(0)} of {place.name}"
        shape, first = self._shapes.setdefault(column, (array.shape[1:], where))
        if shape != array.shape[1:]:
            raise ValueError(
                f"{place.column(column)}: {place.row(0)} has the shape {array.shape[1:]}, and "
                f"{first} {shape}; all must be the same"
            )

    def _weight(self, source: Source, draft: _Draft) -> Array | None:
        name = self._wanted.sample_weight
        if name is None:
            return None
        array, nulls = source.array(name)
        given = source.values[name] if isinstance(source, DictSource) else None
        if array.dtype == np.float32 and is_python_numbers(given):
            # Python's floats are float64: a small weight in float32 could become 0.
            array = np.array(given, np.float64)
        path = source.place.column(name)
        draft.add(path, _length(array, 0, path), self._allowed(nulls, source, name))
        return exact_floats(array, path)

    def _column(self, name: str, source: Source, draft: _Draft) -> Column:
        column, nulls = source.column(name)
        draft.add(source.place.column(name), len(column.codes), self._allowed(nulls, source, name))
        if nulls is not None and not nulls.all():
            # The code at the place of a null may be of no row; the first valid one is of some.
            column = Column(
                np.where(nulls, column.codes[(~nulls).argmax()], column.codes), column.labels
            )
        return compact(column)

    def _allowed(self, nulls: Mask | None, source: Source, column: str) -> Mask | None:
        """Return the nulls if they may be skipped; raises ValueError otherwise."""
        if nulls is None or not nulls.any():
            return None
        if self._wanted.nulls == "refuse":
            row = source.place.row(int(nulls.argmax()))
            raise ValueError(
                f"{source.place.column(column)}: {row} is null or has a null; fill it, or leave "
                'such rows out with nulls="skip"'
            )
        return nulls


def _length(array: Array, axis: int, path: str) -> int:
    if array.ndim <= axis:
        raise ValueError(
            f"{path}: its shape {array.shape} has no axis for rows; give what all rows "
            "share in shared"
        )
    return int(array.shape[axis])


@dataclass(frozen=True)
class _Filler:
    """Takes rows with nulls out of the evaluation: another row's values, and the weight 0."""

    nulls: Mask
    row_axes: Mapping[str, int | None]

    def inputs(self, arrays: Mapping[str, Array]) -> dict[str, Array]:
        """Return the inputs with the values of the first row without a null."""
        return {
            name: self._filled(array, self.row_axes.get(name, 0)) for name, array in arrays.items()
        }

    def _filled(self, array: Array, axis: int | None) -> Array:
        if axis is None:
            return array
        filled = np.array(array)
        rows = np.moveaxis(filled, axis, 0)
        rows[self.nulls] = rows[int((~self.nulls).argmax())]
        return filled

    def weight(self, given: Array | None) -> Array:
        """Return the weights with 0 for the rows with nulls."""
        weight = np.ones(len(self.nulls), np.float32) if given is None else np.array(given)
        weight[self.nulls] = 0
        return weight
