"""Tensors, to and from numpy arrays.

The data type, the shape and the byte count of a tensor are checked here, once for
client and server. Of its values, only bools are checked.
"""

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from losswire.v1 import tensor_pb2
from losswire.wire._dtypes import DATA_TYPES, WireType, wire_type_of

Buffer = bytes | bytearray | memoryview | npt.NDArray[np.uint8]
"""The types that can hold the bytes of a tensor."""

MAX_RANK = 8
"""The largest number of axes of a tensor."""

MAX_AXIS = 2**31 - 1
"""The largest length of one axis."""

_MAX_EXTENT = 2**63 - 1
"""The largest byte count that array libraries can address, empty axes counted as 1."""

_BOOL = tensor_pb2.DATA_TYPE_BOOL


@dataclass(frozen=True, slots=True)
class Violation:
    """One thing that is wrong with a request."""

    field: str
    """The path of the field, such as `inputs["target"].shape`."""
    description: str
    """The problem, and the values that would be accepted."""


class MalformedTensorError(ValueError):
    """A malformed tensor message; `violations` lists all its problems."""

    def __init__(self, violations: Sequence[Violation]) -> None:
        """Begin with all violations of one tensor, at least one."""
        super().__init__("; ".join(f"{v.field}: {v.description}" for v in violations))
        self.violations = tuple(violations)


@dataclass(frozen=True)
class TensorSpec:
    """The data type and shape of a well-formed tensor."""

    wire_type: WireType
    shape: tuple[int, ...]

    @cached_property
    def size_bytes(self) -> int:
        """The number of bytes of the data; exact, whatever the shape."""
        return math.prod(self.shape) * self.wire_type.item_size

    def describe(self) -> str:
        """Describe its size, as `3 x 2 of float32 takes 24`."""
        text = " x ".join(map(str, self.shape)) or "scalar"
        return f"{text} of {self.wire_type.name} takes {self.size_bytes}"


def encode_tensor(array: npt.ArrayLike) -> tensor_pb2.Tensor:
    """Encode an array as a `Tensor`: row-major, contiguous, little-endian.

    Accepts any strides and byte order. Raises TypeError for a dtype that the wire
    does not have and ValueError for more than `MAX_RANK` axes.
    """
    array = np.asarray(array)
    wire_type = _sendable(array)
    native = array if array.dtype == wire_type.numpy else array.astype(wire_type.numpy)
    # tobytes() writes C order whatever the strides, in the one copy that
    # protobuf's demand for exact `bytes` costs in any case.
    data = (native if sys.byteorder == "little" else native.byteswap()).tobytes()
    return tensor_pb2.Tensor(data_type=wire_type.data_type, shape=array.shape, data=data)


def encode_spec(array: npt.NDArray[Any]) -> tensor_pb2.Tensor:
    """Encode an array's data type and shape, with empty data.

    Raises TypeError and ValueError as `encode_tensor` does.
    """
    wire_type = _sendable(array)
    return tensor_pb2.Tensor(data_type=wire_type.data_type, shape=array.shape, data=b"")


def _sendable(array: npt.NDArray[Any]) -> WireType:
    """Return an array's data type on the wire; TypeError or ValueError when it cannot be sent."""
    wire_type = wire_type_of(array.dtype)
    if wire_type is None:
        known = ", ".join(t.name for t in DATA_TYPES.values())
        message = f"dtype {array.dtype} cannot be sent; the wire has {known}"
        raise TypeError(message)
    if array.ndim > MAX_RANK:
        message = f"{array.ndim} axes; at most {MAX_RANK} can be sent"
        raise ValueError(message)
    return wire_type


def read_spec(tensor: tensor_pb2.Tensor, path: str) -> TensorSpec:
    """Read data type and shape, without touching the data.

    `path` names the tensor in violations. Raises MalformedTensorError.
    """
    shape = tuple(tensor.shape[:])  # a list is read at once, the field one by one
    spec = _spec_of(tensor.data_type, shape) if len(shape) <= MAX_RANK else None
    if spec is None:
        raise MalformedTensorError(_mistakes_of(tensor.data_type, shape, path))
    return spec


@lru_cache(maxsize=1024)
def _spec_of(data_type: int, shape: tuple[int, ...]) -> TensorSpec | None:
    """Return the spec of a data type and a shape; None when either is wrong.

    A training loop sends the same few specs over and over.
    """
    wire_type = DATA_TYPES.get(data_type)
    if wire_type is None or not all(0 <= length <= MAX_AXIS for length in shape):
        return None
    if math.prod(max(length, 1) for length in shape) > _MAX_EXTENT // wire_type.item_size:
        return None
    return TensorSpec(wire_type, shape)


def _mistakes_of(data_type: int, shape: tuple[int, ...], path: str) -> list[Violation]:
    """List all that is wrong with a data type and a shape, which is at least one thing."""
    violations = []
    if data_type not in DATA_TYPES:
        known = ", ".join(tensor_pb2.DataType.Name(t.data_type) for t in DATA_TYPES.values())
        given = f"{data_type} is not a data type" if data_type else "is not set"
        violations.append(Violation(f"{path}.data_type", f"{given}; expected one of {known}"))
    if len(shape) > MAX_RANK:
        violations.append(
            Violation(f"{path}.shape", f"has {len(shape)} axes; at most {MAX_RANK} are accepted")
        )
    violations.extend(
        Violation(f"{path}.shape[{axis}]", f"{length} is not in [0, {MAX_AXIS}]")
        for axis, length in enumerate(shape[:MAX_RANK])
        if not 0 <= length <= MAX_AXIS
    )
    return violations or [Violation(f"{path}.shape", "has too many elements")]


def decode_tensor(
    tensor: tensor_pb2.Tensor,
    path: str = "tensor",
    *,
    writable: bool = False,
    detached: memoryview | None = None,
) -> npt.NDArray[Any]:
    """Read a `Tensor` that carries its data, or whose data was detached from it.

    The array is read-only and shares its bytes; a `writable` one has its own. `path` names the
    tensor in violations. Raises MalformedTensorError.
    """
    spec = read_spec(tensor, path)
    if not tensor.HasField("data"):
        raise MalformedTensorError([Violation(path, "has no data")])
    # Each read of a bytes field copies it: read once.
    data = tensor.data if detached is None else detached
    if len(data) != spec.size_bytes:
        raise MalformedTensorError(
            [Violation(f"{path}.data", f"has {len(data)} bytes; {spec.describe()}")]
        )
    return read_elements(spec, bytearray(data) if writable else data, f"{path}.data")


def read_elements(spec: TensorSpec, data: Buffer, path: str = "data") -> npt.NDArray[Any]:
    """Read the elements of a tensor, whose bytes must be `spec.size_bytes`.

    The array shares the bytes and keeps their owner alive. `path` names the
    bytes in violations. Raises MalformedTensorError for a bool that is neither 0 nor 1.
    """
    if spec.wire_type.data_type == _BOOL and np.frombuffer(data, np.uint8).max(initial=0) > 1:
        raise MalformedTensorError(
            [Violation(path, "a bool is one byte, 0 or 1; found another value")]
        )
    if sys.byteorder == "little":
        return np.frombuffer(data, spec.wire_type.numpy).reshape(spec.shape)
    stored = np.frombuffer(data, spec.wire_type.storage)
    return stored.byteswap().view(spec.wire_type.numpy).reshape(spec.shape)
