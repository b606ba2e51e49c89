"""The side data of a batch: sample weights, and columns of slices, clusters and ids."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from losswire.server import thresholds
from losswire.server.catalogue.layouts import FLOATS, INTEGERS
from losswire.server.catalogue.shapes import Shape
from losswire.server.catalogue.value_rules import Array, position
from losswire.server.errors import InvalidEvaluationError
from losswire.server.pipeline.decode import Detached
from losswire.server.pipeline.field_path import path
from losswire.server.pipeline.validate import either
from losswire.summaries import Column
from losswire.v1 import summary_pb2, tensor_pb2
from losswire.wire import DATA_TYPES, MalformedTensorError, Violation

ReadTensor = Callable[[tensor_pb2.Tensor, str, memoryview | None], Array]
"""Returns the array of a tensor, given its path and its elements if these were cut out of it."""

_MAX_LABEL_BYTES: Final = 1024
_MOST_BYTES_A_CHARACTER: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class SideData:
    """What a batch has beside its inputs, checked."""

    weight: Array | None
    """The sample weight, of shape (N) or that of the values."""
    columns: Mapping[str, Column]
    """The columns that the tables name."""
    clusters: Column | None
    ids: Column | None


def text_bytes(batch: summary_pb2.SummaryBatch) -> int:
    """Return the memory that the texts of a batch take beside their characters, in bytes."""
    columns = [*batch.columns.values(), batch.clusters, batch.ids]
    return sum(len(each.labels) for each in columns) * thresholds.LABEL_BYTES


def read_side_data(
    batch: summary_pb2.SummaryBatch,
    detached: Detached,
    *,
    wanted: Sequence[str],
    shapes: Sequence[Shape],
    where: str,
    read: ReadTensor,
) -> SideData:
    """Read and check what a batch has beside its inputs.

    `detached` are elements that were cut out of the batch, by path; `wanted` the columns that it
    must have; `shapes` those of the values of each candidate; `where` is the path of the batch.
    Raises InvalidEvaluationError with all violations, MissingResidentError and MissingRegionError.
    """
    reader = _Reader(detached, shapes, where, read)
    weight = None
    if batch.HasField("sample_weight"):
        weight = reader.weight(batch.sample_weight)
    for name in wanted:
        if name not in batch.columns:
            reader.note(path("columns", name), "is missing; a table of slices names it")
    for name in batch.columns:
        if name not in wanted:
            reader.note(path("columns", name), "is in no table of slices")
    columns = {
        name: reader.column(batch.columns[name], path("columns", name))
        for name in wanted
        if name in batch.columns
    }
    clusters = reader.column(batch.clusters, "clusters") if batch.HasField("clusters") else None
    ids = reader.column(batch.ids, "ids") if batch.HasField("ids") else None
    if reader.found:
        raise InvalidEvaluationError(reader.found)
    known = {name: each for name, each in columns.items() if each is not None}
    return SideData(weight=weight, columns=known, clusters=clusters, ids=ids)


class _Reader:
    """Reads the tensors of one batch, and collects what is wrong with them."""

    def __init__(
        self, detached: Detached, shapes: Sequence[Shape], where: str, read: ReadTensor
    ) -> None:
        self._detached = detached
        self._shapes = shapes
        self._rows = shapes[0][:1] or (1,)
        self._where = where
        self._read = read
        self.found: list[Violation] = []

    def note(self, field: str, description: str) -> None:
        """Add a violation."""
        self.found.append(Violation(f"{self._where}.{field}", description))

    def weight(self, tensor: tensor_pb2.Tensor) -> Array | None:
        """Read the sample weight; None after adding a violation."""
        accepted = [self._rows]
        # One weight for each value is for all candidates, and needs to fit each of them.
        if all(each == self._shapes[0] for each in self._shapes):
            accepted.append(self._shapes[0])
        array = self._array(tensor, "sample_weight", FLOATS, accepted)
        if array is None:
            return None
        # One pass: NaN compares as false.
        if array.size and not (array.min() >= 0 and array.max() < math.inf):
            wrong = ~((array >= 0) & (array < math.inf))
            at = np.unravel_index(int(wrong.argmax()), array.shape)
            text = f"{float(array[at]):g} at {position(at)} is not finite and at least 0"
            self.note("sample_weight", text)
            return None
        return array

    def column(self, message: summary_pb2.Column, field: str) -> Column | None:
        """Read a column; None after adding a violation."""
        codes = self._array(message.codes, f"{field}.codes", INTEGERS, [self._rows])
        count = len(message.labels)
        if count > self._rows[0]:
            self.note(f"{field}.labels", f"has {count}; at most one for each of the rows")
            return None
        labels = list(message.labels)
        for place, label in enumerate(labels):
            if len(label) * _MOST_BYTES_A_CHARACTER <= _MAX_LABEL_BYTES:
                continue
            if (size := len(label.encode())) > _MAX_LABEL_BYTES:
                text = f"has {size} bytes; at most {_MAX_LABEL_BYTES}"
                self.note(f"{field}.labels[{place}]", text)
                return None
        if codes is None:
            return None
        wide = codes.astype(np.int64)
        if not labels:
            return Column(wide)
        if wide.size and not (wide.min() >= 0 and wide.max() < count):
            at = int(((wide < 0) | (wide >= count)).argmax())
            self.note(f"{field}.codes", f"{wide[at]} at [{at}] is not in [0, {count})")
            return None
        return Column(wide, labels)

    def _array(
        self,
        tensor: tensor_pb2.Tensor,
        field: str,
        dtypes: Sequence[str],
        shapes: Sequence[Shape],
    ) -> Array | None:
        """Read a tensor of one of some data types and shapes; None after adding violations."""
        where = f"{self._where}.{field}"
        shape = tuple(tensor.shape)
        wire_type = DATA_TYPES.get(tensor.data_type)
        fine = True
        if wire_type is not None and wire_type.name not in dtypes:
            self.note(f"{field}.data_type", f"is {wire_type.name}; expected {either(dtypes)}")
            fine = False
        # Before it is read: of one in a region a copy is made.
        if shape not in shapes:
            names = either(list(dict.fromkeys(str(list(each)) for each in shapes)))
            self.note(f"{field}.shape", f"is {list(shape[:9])}; expected {names}")
            fine = False
        if not fine:
            return None
        try:
            return self._read(tensor, where, self._detached.get(field))
        except MalformedTensorError as error:
            self.found += error.violations
            return None
