"""The messages of a call that carry batches, written with one copy of each array or with none.

Protobuf would copy the elements of a tensor two or three times. The fields of a batch are few and
simple, so their heads are written here, and the elements go from the array into the message. To
other programs the messages are plain protobuf. A server in this process takes the elements beside
the message, where they are.
"""

import ctypes
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from losswire.client._data.batch import Batch, compact
from losswire.client._messages import thresholds
from losswire.client._messages.placed_array import PlacedArray
from losswire.client._messages.weights import WEIGHTS, float_weight
from losswire.summaries import Column
from losswire.v1 import loss_service_pb2, summary_pb2, tensor_pb2
from losswire.wire import (
    bytes_of,
    delimited_tag,
    encode_spec,
    exact_floats,
    new_bytes,
    varint,
)

Array = npt.NDArray[Any]
Part: TypeAlias = bytes | memoryview


_BATCH: Final = delimited_tag(loss_service_pb2.SummarizeLossesRequest.BATCH_FIELD_NUMBER)
_INPUTS: Final = delimited_tag(summary_pb2.SummaryBatch.INPUTS_FIELD_NUMBER)
_CANDIDATES: Final = delimited_tag(summary_pb2.SummaryBatch.CANDIDATES_FIELD_NUMBER)
_SAMPLE_WEIGHT: Final = delimited_tag(summary_pb2.SummaryBatch.SAMPLE_WEIGHT_FIELD_NUMBER)
_COLUMNS: Final = delimited_tag(summary_pb2.SummaryBatch.COLUMNS_FIELD_NUMBER)
_CLUSTERS: Final = delimited_tag(summary_pb2.SummaryBatch.CLUSTERS_FIELD_NUMBER)
_IDS: Final = delimited_tag(summary_pb2.SummaryBatch.IDS_FIELD_NUMBER)
_OWN_INPUTS: Final = delimited_tag(summary_pb2.CandidateBatch.INPUTS_FIELD_NUMBER)
_CODES: Final = delimited_tag(summary_pb2.Column.CODES_FIELD_NUMBER)
_DATA: Final = delimited_tag(tensor_pb2.Tensor.DATA_FIELD_NUMBER)
_KEY: Final = delimited_tag(1)
_VALUE: Final = delimited_tag(2)
"""The fields of an entry of any map."""
_REPORT: Final = summary_pb2.SummaryBatch(report=True).SerializeToString()

Places: TypeAlias = Mapping[int, PlacedArray]


@dataclass(frozen=True, slots=True)
class Handed:
    """A message for a server in this process, and the elements that it is without."""

    message: bytes
    elements: Mapping[str, memoryview]
    """By the paths of their tensors in the message."""

    def __len__(self) -> int:
        """The bytes of both."""
        return len(self.message) + sum(each.nbytes for each in self.elements.values())


Message: TypeAlias = bytes | Handed


@dataclass(frozen=True, slots=True)
class _Beside:
    """What does not go into the message."""

    places: Places
    """The places of arrays in shared memory, by `id`."""
    elements: dict[str, memoryview] | None = None
    """Gets the elements of large arrays, by path; None: they go into the message."""
    borrows: bool = False
    """Whether these may be views of the caller's arrays; otherwise they are copies."""

    def add(self, array: Array, path: str) -> bool:
        """Put the elements of an array beside the message, if they belong there."""
        if self.elements is None or array.nbytes <= thresholds.SENT_TENSOR_BYTES:
            return False
        self.elements[f"batch.{path}"] = bytes_of(array if self.borrows else array.copy())
        return True


_NOTHING_BESIDE: Final = _Beside({})

_SMALLEST_FIRST: Final = (np.int8, np.int16, np.int32)
"""The types that codes are sent in where they fit; otherwise in int64."""


def encode_batch(batch: Batch, loss: str, *, report: bool, places: Places | None = None) -> bytes:
    """Return the message of a batch; `report` asks for a report after it.

    `places` are those of arrays in shared memory, by `id`: they are sent by reference.

    Weights may be bools and integers, as in an evaluation. Raises TypeError and ValueError with
    the field's path for arrays that cannot be sent.
    """
    beside = _NOTHING_BESIDE if places is None else _Beside(places)
    return _joined(_batch(batch, loss, beside, report=report))


def hand_over(batch: Batch, loss: str, *, report: bool) -> Handed:
    """Return the message of a batch as `encode_batch` does, for a server in this process.

    The elements of large arrays are views of them where that is possible: where they are
    contiguous, and the caller does not fill them again.
    """
    beside = _Beside({}, {}, borrows=batch.is_lasting)
    message = b"".join(_batch(batch, loss, beside, report=report))
    return Handed(message, beside.elements or {})


def _batch(batch: Batch, loss: str, beside: _Beside, *, report: bool) -> list[Part]:
    parts = _inputs(_INPUTS, batch.inputs, loss, "", beside)
    for position, own in enumerate(batch.candidates):
        path = f"candidates[{position}]."
        parts += _delimited(_CANDIDATES, _inputs(_OWN_INPUTS, own, loss, path, beside))
    if batch.sample_weight is not None:
        weight = exact_floats(batch.sample_weight, "sample_weight")
        parts += _delimited(_SAMPLE_WEIGHT, _tensor(weight, "sample_weight", beside))
    for name, column in batch.columns.items():
        parts += _entry(_COLUMNS, name, _column(column, f'columns["{name}"]'))
    if batch.clusters is not None:
        parts += _delimited(_CLUSTERS, _column(batch.clusters, "clusters"))
    if batch.ids is not None:
        parts += _delimited(_IDS, _column(batch.ids, "ids"))
    if report:
        parts.append(_REPORT)
    return _delimited(_BATCH, parts)


def _inputs(
    tag: bytes, inputs: Mapping[str, Array], loss: str, prefix: str, beside: _Beside
) -> list[Part]:
    decisive = inputs.get("input")
    parts: list[Part] = []
    for name, array in inputs.items():
        path = f'{prefix}inputs["{name}"]'
        sent = array
        if name in WEIGHTS:
            sent = float_weight(array, path, loss, None if decisive is None else decisive.dtype)
        parts += _entry(tag, name, _tensor(sent, path, beside))
    return parts


def _tensor(array: Array, path: str, beside: _Beside = _NOTHING_BESIDE) -> list[Part]:
    placed = beside.places.get(id(array))
    if placed is not None:
        return [placed.reference().SerializeToString()]
    try:
        head = encode_spec(array)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{path}: {error}") from error
    head.ClearField("data")
    elements = [] if beside.add(array, path) else [bytes_of(array)]
    return [head.SerializeToString(), *_delimited(_DATA, elements)]


def _column(column: Column, path: str) -> list[Part]:
    column = compact(column)
    codes = _narrowed(column.codes, column.labels)
    labels = summary_pb2.Column(labels=column.labels or ())
    return [*_delimited(_CODES, _tensor(codes, f"{path}.codes")), labels.SerializeToString()]


def _narrowed(codes: Array, labels: Sequence[str] | None) -> Array:
    """Return codes in the smallest type that holds them: they are often as large as the inputs."""
    if not codes.size:
        return codes
    low, high = (int(codes.min()), int(codes.max())) if labels is None else (0, len(labels) - 1)
    for dtype in _SMALLEST_FIRST:
        limits: Any = np.iinfo(dtype)
        if limits.min <= low and high <= limits.max:
            return codes.astype(dtype)
    return codes


def _entry(tag: bytes, name: str, value: Sequence[Part]) -> list[Part]:
    """Return an entry of a map."""
    return _delimited(tag, [*_delimited(_KEY, [name.encode()]), *_delimited(_VALUE, value)])


def _delimited(tag: bytes, parts: Sequence[Part]) -> list[Part]:
    """Return a field whose value has some parts."""
    return [tag, varint(sum(map(len, parts))), *parts]


def _joined(parts: Iterable[Part]) -> bytes:
    """Return one message; while arrays are copied, other threads run."""
    parts = list(parts)
    message, address = new_bytes(sum(map(len, parts)))
    memory = np.ctypeslib.as_array((ctypes.c_uint8 * len(message)).from_address(address))
    start = 0
    for part in parts:
        stop = start + len(part)
        np.copyto(memory[start:stop], np.frombuffer(part, np.uint8))
        start = stop
    return message
