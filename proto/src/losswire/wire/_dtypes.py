"""The data types of the wire, one line each."""

from dataclasses import dataclass
from typing import Any, Self

import ml_dtypes
import numpy as np

from losswire.v1 import tensor_pb2


@dataclass(frozen=True, slots=True, kw_only=True)
class WireType:
    """One data type: its number on the wire and its numpy equivalent."""

    data_type: tensor_pb2.DataType.ValueType
    """The number in `Tensor.data_type`."""
    numpy: np.dtype[Any]
    """The numpy dtype, in the byte order of this machine."""

    name: str
    """The name as numpy and torch spell it, such as `bfloat16`."""
    storage: np.dtype[Any]
    """The unsigned integer that holds one element on the wire, little-endian."""
    item_size: int
    """The bytes of one element."""
    is_float: bool
    """Whether it is a floating type, which gradients can have."""

    @classmethod
    def of(cls, data_type: tensor_pb2.DataType.ValueType, numpy: np.dtype[Any]) -> Self:
        """Derive the rest from the numpy dtype, once: numpy composes a name on each access."""
        return cls(
            data_type=data_type,
            numpy=numpy,
            name=str(numpy.name),
            storage=np.dtype(f"<u{numpy.itemsize}"),
            item_size=numpy.itemsize,
            is_float="float" in numpy.name,
        )


_TABLE: tuple[tuple[tensor_pb2.DataType.ValueType, Any], ...] = (
    (tensor_pb2.DATA_TYPE_BOOL, np.bool_),
    (tensor_pb2.DATA_TYPE_UINT8, np.uint8),
    (tensor_pb2.DATA_TYPE_INT8, np.int8),
    (tensor_pb2.DATA_TYPE_INT16, np.int16),
    (tensor_pb2.DATA_TYPE_INT32, np.int32),
    (tensor_pb2.DATA_TYPE_INT64, np.int64),
    (tensor_pb2.DATA_TYPE_FLOAT16, np.float16),
    (tensor_pb2.DATA_TYPE_BFLOAT16, ml_dtypes.bfloat16),
    (tensor_pb2.DATA_TYPE_FLOAT32, np.float32),
    (tensor_pb2.DATA_TYPE_FLOAT64, np.float64),
)

DATA_TYPES: dict[int, WireType] = {
    number: WireType.of(number, np.dtype(numpy)) for number, numpy in _TABLE
}
"""Every data type of the wire, by its number."""

BY_NAME: dict[str, WireType] = {each.name: each for each in DATA_TYPES.values()}
"""Every data type of the wire, by its name."""


def dtype_name(number: int) -> str:
    """Return the name of a data type; one of a newer contract gets a name with its number."""
    wire_type = DATA_TYPES.get(number)
    return wire_type.name if wire_type else f"data_type_{number}"


_BY_NUMPY = {wire_type.numpy: wire_type for wire_type in DATA_TYPES.values()}


def wire_type_of(dtype: np.dtype[Any]) -> WireType | None:
    """Return the wire type of a numpy dtype of any byte order; None when there is none."""
    return _BY_NUMPY.get(dtype if dtype.isnative else dtype.newbyteorder("="))
