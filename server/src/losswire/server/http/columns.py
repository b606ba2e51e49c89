"""The columns of a summary's data: which are read, and how some rows of them become a batch."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np

from losswire.server.catalogue.record import LossRecord
from losswire.server.catalogue.value_rules import Array
from losswire.server.errors import InvalidEvaluationError
from losswire.server.http.evaluation_json import number_types
from losswire.server.pipeline.decode import Detached
from losswire.server.pipeline.field_path import path
from losswire.summaries import Column
from losswire.v1 import loss_service_pb2, summary_pb2, tensor_pb2
from losswire.wire import Violation, bytes_of, encode_spec

Part = tuple[loss_service_pb2.SummarizeLossesRequest, Detached]
"""A part of a SummarizeLosses, and the elements of its tensors, by path."""

_WEIGHT_TYPES: Final = ("float64", "float64")
"""The data types of plain numbers in a weight: a small one must not become 0."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """One column that is read as an input of the loss."""

    column: str
    types: tuple[str, str]
    """The data types of plain integers and of other numbers."""
    accepted: frozenset[str]
    """The data types that the loss takes."""
    row_axis: int
    """The axis of the rows in the input; a table has them in the first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """Where the data has what a batch needs."""

    inputs: Mapping[str, Wanted]
    """The inputs that the candidates share, by name."""
    optional: Collection[str]
    """Those of them that the data may lack."""
    candidates: Sequence[Mapping[str, Wanted]]
    """The own inputs of each candidate; none where nothing is compared."""
    slices: Sequence[str]
    """The columns that the tables of slices name, each once."""
    sample_weight: str | None
    clusters: str | None
    ids: str | None

    @property
    def names(self) -> set[str]:
        """The names of all columns that are read where the data has them."""
        every = [*self.inputs.values(), *(w for each in self.candidates for w in each.values())]
        roles = (self.sample_weight, self.clusters, self.ids)
        named = (each for each in roles if each is not None)
        return {*(each.column for each in every), *self.slices, *named}

    @property
    def uses(self) -> Iterator[tuple[str, str]]:
        """Each column that must be there, and what it is for."""
        for name, each in self.inputs.items():
            if name not in self.optional:
                yield each.column, f'input "{name}"'
        for number, inputs in enumerate(self.candidates):
            for name, each in inputs.items():
                yield each.column, f'input "{name}" of candidate {number}'
        for column in self.slices:
            yield column, "slices"
        for use in ("sample_weight", "clusters", "ids"):
            if (column := getattr(self, use)) is not None:
                yield column, use


class Source(Protocol):
    """The columns of some rows, by name. Used on any thread."""

    @property
    def names(self) -> Collection[str]:
        """The names of the columns."""

    @property
    def is_table(self) -> bool:
        """Whether the rows are in the first axis of every column."""

    def array(self, wanted: Wanted) -> Array:
        """Return a column of numbers; InvalidEvaluationError with its path."""

    def column(self, name: str) -> Column:
        """Return a column of slices, clusters or ids; InvalidEvaluationError with its path."""


def columns_of(
    record: LossRecord | None,
    *,
    shared: Collection[str],
    inputs: Mapping[str, str],
    candidates: Mapping[str, Mapping[str, str]],
    tables: Sequence[tuple[str, ...]],
    roles: Mapping[str, str],
    wide: bool,
) -> Columns:
    """Return the columns that a summary reads.

    An input of the loss that is neither shared nor a candidate's own comes from the column that
    `inputs` names, or from that of its own name; one that the loss can do without only where the
    data has that column. `record` is None for a loss that is not there, which is refused later.
    """
    known = list(record.inputs) if record else []
    own = {name for each in candidates.values() for name in each}
    names = [name for name in known if name not in own and name not in shared]
    # Names that the loss does not have are refused as over gRPC, with the names that it has.
    names += [name for name in inputs if name not in names]
    slices = list(dict.fromkeys(name for each in tables for name in each))
    used = {*slices, *roles.values()}
    required = record.required_inputs if record else ()
    optional = {name for name in names if name not in required and name not in inputs}
    # A column with another use is not taken for an input that the loss can do without.
    chosen = [name for name in names if name not in optional or name not in used]

    def wanted(name: str, column: str) -> Wanted:
        return _wanted(record, name, column, wide=wide)

    return Columns(
        inputs={name: wanted(name, inputs.get(name, name)) for name in chosen},
        optional=optional,
        candidates=[
            {name: wanted(name, column) for name, column in each.items()}
            for each in candidates.values()
        ],
        slices=slices,
        sample_weight=roles.get("sample_weight"),
        clusters=roles.get("clusters"),
        ids=roles.get("ids"),
    )


def _wanted(record: LossRecord | None, name: str, column: str, *, wide: bool) -> Wanted:
    layouts = [each for each in (record.layouts if record else ()) if name in each.inputs]
    accepted = frozenset(dtype for each in layouts for dtype in each.inputs[name].dtypes)
    return Wanted(column, number_types(record, name, wide=wide), accepted, _row_axis(record, name))


def _row_axis(record: LossRecord | None, name: str) -> int:
    """Return the axis of the rows in an input, by the first layout with rows that has it."""
    for layout in record.layouts if record else ():
        rows, spec = layout.values.tokens[:1], layout.inputs.get(name)
        if rows and spec is not None:
            tokens = spec.axes.tokens
            return tokens.index(rows[0]) if rows[0] in tokens else 0
    return 0


def batch_of(columns: Columns, source: Source) -> Part:
    """Return the batch of some rows; InvalidEvaluationError with all violations.

    An input that is missing and was not named is left out: it is missed as over gRPC.
    """
    return _Writer(columns, source).written()


class _Writer:
    """Writes one batch."""

    def __init__(self, columns: Columns, source: Source) -> None:
        self._columns = columns
        self._source = source
        self._message = loss_service_pb2.SummarizeLossesRequest()
        self._detached: dict[str, memoryview] = {}
        self._wrong: list[Violation] = []

    def written(self) -> Part:
        """Return the message and the elements of its tensors."""
        columns, batch = self._columns, self._message.batch
        batch.SetInParent()
        self._check_names()
        self._inputs(columns.inputs, batch.inputs, "")
        for number, inputs in enumerate(columns.candidates):
            own = batch.candidates.add()
            self._inputs(inputs, own.inputs, f"candidates[{number}].")
        if columns.sample_weight is not None:
            wanted = Wanted(
                columns.sample_weight, _WEIGHT_TYPES, frozenset({"float32", "float64"}), 0
            )
            self._tensor(wanted, batch.sample_weight, "sample_weight")
        for name in columns.slices:
            self._column(name, batch.columns[name], path("columns", name))
        for use in ("clusters", "ids"):
            if (name := getattr(columns, use)) is not None:
                self._column(name, getattr(batch, use), use)
        if self._wrong:
            raise InvalidEvaluationError(self._wrong)
        return self._message, self._detached

    def _check_names(self) -> None:
        there = self._source.names
        missing: dict[str, list[str]] = {}
        for column, use in self._columns.uses:
            if column not in there and use != f'input "{column}"':
                missing.setdefault(column, []).append(use)
        for column, uses in missing.items():
            self._wrong.append(Violation(path("columns", column), f"is missing: {uses[0]}"))

    def _inputs(
        self, wanted: Mapping[str, Wanted], inputs: Mapping[str, tensor_pb2.Tensor], prefix: str
    ) -> None:
        for name, each in wanted.items():
            if each.column in self._source.names:
                self._tensor(each, inputs[name], f'{prefix}inputs["{name}"]')

    def _tensor(self, wanted: Wanted, tensor: tensor_pb2.Tensor, where: str) -> None:
        if wanted.column not in self._source.names:
            return
        try:
            array = self._source.array(wanted)
            if self._source.is_table and 0 < wanted.row_axis < array.ndim:
                array = np.moveaxis(array, 0, wanted.row_axis)
            self._put(array, tensor, where)
        except InvalidEvaluationError as error:
            self._wrong += error.violations
        except (TypeError, ValueError) as error:
            # A data type or a number of axes that the wire does not have.
            self._wrong.append(Violation(path("columns", wanted.column), str(error)))

    def _put(self, array: Array, tensor: tensor_pb2.Tensor, where: str) -> None:
        if not array.flags.c_contiguous:
            array = np.ascontiguousarray(array)
        tensor.CopyFrom(encode_spec(array))
        self._detached[f"batch.{where}"] = bytes_of(array)

    def _column(self, name: str, message: summary_pb2.Column, where: str) -> None:
        if name not in self._source.names:
            return
        try:
            column = self._source.column(name)
        except InvalidEvaluationError as error:
            self._wrong += error.violations
            return
        message.labels.extend(column.labels or ())
        self._put(column.codes, message.codes, f"{where}.codes")


def column_error(error: ValueError | TypeError, where: str) -> InvalidEvaluationError:
    """Return the violation of an error whose text begins with its path."""
    return InvalidEvaluationError([Violation(where, str(error).removeprefix(f"{where}: "))])


def refuse_null(nulls: Iterable[bool] | None, first_row: int, name: str) -> None:
    """Raise InvalidEvaluationError, with the row, where a value is null."""
    for row, null in enumerate(nulls if nulls is not None else ()):
        if null:
            where = f"{row_path(first_row + row)}.{name}"
            raise InvalidEvaluationError([Violation(where, "is null, or has one")])


def row_path(row: int) -> str:
    """Return the path of a row, counted from 0 on in the body."""
    return f"rows[{row}]"
