"""Rows of a chunked call: the messages that carry them, and their packing.

Protobuf copies a bytes field several times on its way in and out. The two messages
that carry rows are one such field and nothing else, so they are written by hand (tag,
length, payload) and read without a copy. To other programs they are plain protobuf.
Messages that another encoder wrote in another way are read by protobuf.
"""

import ctypes
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

import numpy as np
import numpy.typing as npt
from google.protobuf.message import Message

from losswire.v1 import loss_service_pb2
from losswire.wire._bytes import new_bytes
from losswire.wire._fields import delimited_tag, read_delimited
from losswire.wire._tensor import TensorSpec, read_elements
from losswire.wire._varint import varint

MessageT = TypeVar("MessageT", bound=Message)


class RowsField(Generic[MessageT]):
    """The one bytes field of a message that carries rows."""

    def __init__(self, message_type: type[MessageT], name: str) -> None:
        """Begin with the type of the message and the name of the field, one of a oneof."""
        field = message_type.DESCRIPTOR.fields_by_name[name]
        self._message_type = message_type
        self._name = name
        self._tag = delimited_tag(field.number)

    def encode(self, parts: Sequence[memoryview]) -> bytes:
        """Write a message of a payload in parts, in one copy, during which other threads run."""
        message, memory = self.reserve(sum(part.nbytes for part in parts))
        start = 0
        for part in parts:
            stop = start + part.nbytes
            # Python's own join would hold the interpreter lock for a millisecond.
            np.copyto(memory[start:stop], np.asarray(part))
            start = stop
        return message

    def reserve(self, nbytes: int) -> tuple[bytes, npt.NDArray[np.uint8]]:
        """Allocate a message with a payload of `nbytes`, and return the array to write it into.

        The array is the message's own memory: keep the message while it is written, and write
        nothing after anybody else has seen it.
        """
        head = self._tag + varint(nbytes)
        message, address = new_bytes(len(head) + nbytes)
        memory = np.ctypeslib.as_array((ctypes.c_uint8 * len(message)).from_address(address))
        memory[: len(head)] = np.frombuffer(head, np.uint8)
        return message, memory[len(head) :]

    def decode(self, data: bytes) -> memoryview | MessageT:
        """Read a message: the payload if it carries rows, else the message itself.

        Raises DecodeError when the bytes are something else.
        """
        start = self._start_of_payload(data)
        if start is not None:
            return memoryview(data)[start:]
        message = self._message_type.FromString(data)
        if message.HasField(self._name):
            return memoryview(getattr(message, self._name))
        return message

    def _start_of_payload(self, data: bytes) -> int | None:
        """Return the offset of the payload; None when the message has other fields."""
        found = read_delimited(data, 0, self._tag)
        return found[0] if found is not None and found[1] == len(data) else None


ROWS: Final = RowsField(loss_service_pb2.EvaluateChunkedRequest, "rows")
"""The rows of the streamed inputs, from the client."""

GRADIENT_ROWS: Final = RowsField(loss_service_pb2.EvaluateChunkedResponse, "gradient_rows")
"""Their gradients, from the server."""


@dataclass(frozen=True, slots=True)
class Packing:
    """The layout of k rows of several tensors in one payload: k rows of the first, and so on."""

    specs: tuple[TensorSpec, ...]
    """The whole tensors; each has at least one axis, the first of which counts the rows."""

    @property
    def row_bytes(self) -> int:
        """The bytes of one row of all tensors."""
        return sum(map(_row_bytes, self.specs))

    def split(self, payload: memoryview) -> list[npt.NDArray[Any]]:
        """Return the rows of each tensor, without a copy, aligned or not.

        The payload must hold whole rows, at least one byte each. Raises
        MalformedTensorError for elements that their type does not have.
        """
        count = payload.nbytes // self.row_bytes
        arrays, start = [], 0
        for spec in self.specs:
            stop = start + count * _row_bytes(spec)
            rows = TensorSpec(spec.wire_type, (count, *spec.shape[1:]))
            arrays.append(read_elements(rows, payload[start:stop], "rows"))
            start = stop
        return arrays


def _row_bytes(spec: TensorSpec) -> int:
    return TensorSpec(spec.wire_type, spec.shape[1:]).size_bytes


def bytes_of(array: npt.NDArray[Any]) -> memoryview:
    """Return the elements of an array in the wire's order; copies an array of another layout."""
    native = np.ascontiguousarray(array, array.dtype.newbyteorder("="))
    if sys.byteorder != "little":
        native = native.byteswap()
    return native.reshape(-1).view(np.uint8).data
