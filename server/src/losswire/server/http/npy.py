"""The .npy format: tensors with their data type and shape, in and out, without copying elements.

bfloat16, which numpy does not have, is `<V2`, as numpy writes arrays of the package ml_dtypes.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from losswire.server.catalogue.value_rules import Array
from losswire.v1 import tensor_pb2
from losswire.wire import BY_NAME, MalformedTensorError, Violation, bytes_of, decode_tensor

_MAGIC: Final = b"\x93NUMPY"
_MAX_HEADER: Final = 4096
"""The longest header, which holds 8 axes in far less."""

_ALIGNMENT: Final = 64
"""The header's length is a multiple of it, so that elements in a file are aligned."""

_DESCR: Final = re.compile(rb"'descr'\s*:\s*'([^']{1,16})'")
_ORDER: Final = re.compile(rb"'fortran_order'\s*:\s*(True|False)")
_SHAPE: Final = re.compile(rb"'shape'\s*:\s*\(([0-9,\s]*)\)")

_CODES: Final[Mapping[str, str]] = {
    "bool": "|b1",
    "uint8": "|u1",
    "int8": "|i1",
    "int16": "<i2",
    "int32": "<i4",
    "int64": "<i8",
    "float16": "<f2",
    "bfloat16": "<V2",
    "float32": "<f4",
    "float64": "<f8",
}
"""What the header calls each data type."""

_NAMES: Final = {code[1:]: name for name, code in _CODES.items()}


@dataclass(frozen=True, slots=True)
class NpyHeader:
    """The header of an .npy file, whose form was checked."""

    data_type: tensor_pb2.DataType.ValueType
    shape: tuple[int, ...]
    size_bytes: int
    """Where the elements begin."""
    swapped: bool
    """Whether the elements are big-endian."""
    by_column: bool
    """Whether the first axis changes fastest."""


def header_bytes(data: bytes | bytearray | memoryview) -> int | None:
    """Return how long the header is; None when more bytes are needed to know.

    It is no longer than the longest that is read: `read_header` refuses the others.
    """
    if len(data) < 12:  # noqa: PLR2004 (magic, version and the longer of two lengths)
        return None
    short = data[6] == 1
    length = int.from_bytes(data[8 : 10 if short else 12], "little") + (10 if short else 12)
    return min(length, _MAX_HEADER)


def read_header(data: bytes | bytearray | memoryview, where: str) -> NpyHeader:
    """Read the header of an .npy file; MalformedTensorError, with the path, for anything else."""
    size = header_bytes(data)
    if bytes(data[:6]) != _MAGIC or size is None or data[6] not in (1, 2, 3):
        raise MalformedTensorError([Violation(where, "is not in the .npy format")])
    text = bytes(data[:size])
    descr, order, shape = _DESCR.search(text), _ORDER.search(text), _SHAPE.search(text)
    if not text.rstrip().endswith(b"}") or not order or not shape:
        raise MalformedTensorError([Violation(where, "has no proper .npy header")])
    code = descr[1].decode("latin-1") if descr else ""
    name = _NAMES.get(code[1:])
    if name is None or code[0] not in "<>|=":
        known = ", ".join(f"{code} ({name})" for name, code in _CODES.items())
        text_of_error = f"is not a data type of the wire; expected one of {known}"
        raise MalformedTensorError([Violation(f"{where}.data_type", text_of_error)])
    lengths = [each for each in shape[1].replace(b" ", b"").split(b",") if each]
    if any(len(each) > 18 for each in lengths):  # noqa: PLR2004 (digits of 64 bits)
        raise MalformedTensorError([Violation(f"{where}.shape", "has an axis that is too long")])
    return NpyHeader(
        data_type=BY_NAME[name].data_type,
        shape=tuple(map(int, lengths)),
        size_bytes=size,
        swapped=code[0] == ">",
        by_column=order[1] == b"True" and len(lengths) > 1,
    )


def copied_bytes(data: memoryview) -> int:
    """Return the memory that `read_npy` takes for a file, at most; 0 for one that it refuses."""
    try:
        header = read_header(data, "")
    except MalformedTensorError:
        return 0
    return data.nbytes * (header.swapped + header.by_column)


def read_npy(data: memoryview, where: str) -> tuple[tensor_pb2.Tensor, memoryview]:
    """Return the message of an .npy file without its elements, and its elements.

    They are copied only where their order is not the wire's. Raises MalformedTensorError with the
    tensor's path; whether the shape fits the elements is judged when the message is decoded.
    """
    header = read_header(data, where)
    elements = data[header.size_bytes :]
    tensor = tensor_pb2.Tensor(data_type=header.data_type, shape=header.shape, data=b"")
    if not header.swapped and not header.by_column:
        return tensor, elements
    array = decode_tensor(tensor, where, detached=elements)
    if header.swapped:
        array = array.byteswap()
    if header.by_column:
        array = array.reshape(header.shape[::-1]).T
    return tensor, bytes_of(np.ascontiguousarray(array))


def read_array(data: memoryview, where: str) -> Array:
    """Return the array of an .npy file; MalformedTensorError, with the tensor's path."""
    tensor, elements = read_npy(data, where)
    return decode_tensor(tensor, where, detached=elements)


def write_npy(array: Array) -> tuple[bytes, memoryview]:
    """Return the header of an array in the .npy format, and its elements."""
    shape = "".join(f"{each}, " for each in array.shape)
    shape = shape.removesuffix(" ") if array.ndim == 1 else shape.removesuffix(", ")
    code = _CODES[array.dtype.name]
    text = f"{{'descr': '{code}', 'fortran_order': False, 'shape': ({shape}), }}"
    used = len(_MAGIC) + 4
    padding = " " * (-(used + len(text) + 1) % _ALIGNMENT)
    header = f"{text}{padding}\n".encode("ascii")
    return _MAGIC + b"\x01\x00" + len(header).to_bytes(2, "little") + header, bytes_of(array)
