"""Tensors in JSON: numbers and nested lists, base64, or the id of a resident tensor; both ways."""

from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Final

import numpy as np
import orjson

from losswire.server.catalogue.value_rules import Array
from losswire.server.http import limits
from losswire.server.http.json_numbers import Numbers
from losswire.server.http.json_text import dump
from losswire.v1 import tensor_pb2
from losswire.wire import (
    BY_NAME,
    DATA_TYPES,
    ID_BYTES,
    MAX_RANK,
    NONFINITE,
    TensorSpec,
    Violation,
    bytes_of,
    json_values,
)

FindSpec = Callable[[bytes], TensorSpec | None]
"""Returns the spec of the resident tensor of a SHA-256; None when it is not stored."""

_DATA_TYPES: Final[Mapping[str, int]] = {name: each.data_type for name, each in BY_NAME.items()}


@dataclass(frozen=True, slots=True)
class Reading:
    """How the tensors of one request are read, and what is wrong with them."""

    find_spec: FindSpec
    violations: list[Violation] = field(default_factory=list)
    detached: dict[str, memoryview] = field(default_factory=dict)
    """The elements of the tensors that were read, by path."""

    def add(self, where: str, text: str) -> None:
        """Note a violation."""
        self.violations.append(Violation(where, text))


def read_tensor(
    content: object, where: str, guess: Sequence[str], reading: Reading
) -> tensor_pb2.Tensor | None:
    """Read a tensor; None after noting its violations.

    `guess` are the data types that plain lists may have: the first is for integers, the last for
    other numbers.
    """
    if isinstance(content, dict):
        return _read_object(content, where, reading)
    array = _array_of(content, where, None, guess, reading)
    return None if array is None else detach(array, where, reading)


def detach(array: Array, where: str, reading: Reading) -> tensor_pb2.Tensor:
    """Return the message of an array, whose elements stay where they are."""
    reading.detached[where] = bytes_of(array)
    data_type = BY_NAME[array.dtype.name].data_type
    return tensor_pb2.Tensor(data_type=data_type, shape=array.shape, data=b"")


def _read_object(
    content: Mapping[str, object], where: str, reading: Reading
) -> tensor_pb2.Tensor | None:
    """Read a tensor that is written as an object."""
    for names, read in _FORMS.items():
        if set(content) == set(names):
            return read(content, where, reading)
    forms = ", or ".join(" and ".join(names) for names in _FORMS)
    reading.add(where, f"has other fields than one of {forms}")
    return None


def _read_values(
    content: Mapping[str, Any], where: str, reading: Reading
) -> tensor_pb2.Tensor | None:
    """Read nested lists of a given data type."""
    name = _type_of(content, where, reading)
    array = name and _array_of(content["values"], f"{where}.values", name, (), reading)
    return None if not isinstance(array, np.ndarray) else detach(array, where, reading)


def _read_base64(
    content: Mapping[str, Any], where: str, reading: Reading
) -> tensor_pb2.Tensor | None:
    """Read the elements of a tensor in base64."""
    name, shape, data = _type_of(content, where, reading), content["shape"], content["data"]
    if isinstance(shape, Numbers):
        # Judged as a shape with too many axes, if it is a list of integers.
        shape = shape.array if shape.array.dtype == np.int64 and shape.array.ndim == 1 else None
    elif not isinstance(shape, list) or not all(type(each) is int for each in shape):
        shape = None
    if shape is None:
        reading.add(f"{where}.shape", "must be a list of whole numbers")
        return None
    if isinstance(shape, list) and not all(-(1 << 63) <= each < 1 << 63 for each in shape):
        reading.add(f"{where}.shape", "has an axis that is too long")
        return None
    try:
        elements = b64decode(data if isinstance(data, str) else b"*", validate=True)
    except (Base64Error, ValueError):
        reading.add(f"{where}.data", "is not base64")
        return None
    if not name:
        return None
    reading.detached[where] = memoryview(elements)
    # Whether the bytes are those of the shape is judged as it is for every other door.
    return tensor_pb2.Tensor(
        data_type=DATA_TYPES[_DATA_TYPES[name]].data_type, shape=shape, data=b""
    )


def _read_resident(
    content: Mapping[str, Any], where: str, reading: Reading
) -> tensor_pb2.Tensor | None:
    """Read the id of a resident tensor, whose data type and shape the server knows."""
    try:
        sha256 = bytes.fromhex(content["resident"])
    except (TypeError, ValueError):
        sha256 = b""
    if len(sha256) != ID_BYTES:
        reading.add(f"{where}.resident", f"must be {2 * ID_BYTES} hexadecimal digits")
        return None
    spec = reading.find_spec(sha256)
    # One that is not held is refused later, whatever its data type and shape are.
    data_type = tensor_pb2.DATA_TYPE_FLOAT32 if spec is None else spec.wire_type.data_type
    return tensor_pb2.Tensor(
        data_type=data_type,
        shape=() if spec is None else spec.shape,
        resident=tensor_pb2.TensorId(sha256=sha256),
    )


_FORMS: Final[
    Mapping[
        tuple[str, ...],
        Callable[[Mapping[str, Any], str, Reading], tensor_pb2.Tensor | None],
    ]
] = {
    ("data_type", "values"): _read_values,
    ("data_type", "shape", "data"): _read_base64,
    ("resident",): _read_resident,
}


def _type_of(content: Mapping[str, object], where: str, reading: Reading) -> str | None:
    """Return the name of a data type; None after noting a wrong one."""
    name = content["data_type"]
    if isinstance(name, str) and name in _DATA_TYPES:
        return name
    reading.add(f"{where}.data_type", f"must be one of {', '.join(_DATA_TYPES)}")
    return None


def _array_of(
    content: object, where: str, name: str | None, guess: Sequence[str], reading: Reading
) -> Array | None:
    """Return nested lists as an array, of the named data type or a guessed one."""
    array = read_lists(content, where, reading)
    if array is None:
        return None
    if name is None:
        is_float = array.dtype.kind == "f" and array.size
        name = "bool" if array.dtype.kind == "b" else guess[1 if is_float else 0]
    return _cast(array, name, where, reading)


def read_lists(content: object, where: str, reading: Reading) -> Array | None:
    """Return nested lists as an array of int64, float64 or bool; None after noting a violation.

    Numpy would turn a text among numbers into an array of texts, each as long as the longest.
    """
    if isinstance(content, Numbers):
        return content.array
    flat: list[Any] = [content]
    shape: list[int] = []
    while flat and set(map(type, flat)) == {list}:
        lengths = set(map(len, flat))
        if len(lengths) > 1:
            reading.add(where, f"its lists at depth {len(shape)} have different lengths")
            return None
        shape += lengths
        if len(shape) > MAX_RANK:
            reading.add(where, f"has more than {MAX_RANK} axes")
            return None
        flat = list(chain.from_iterable(flat))
    kinds = set(map(type, flat))
    if str in kinds:
        flat = [NONFINITE.get(each, each) if type(each) is str else each for each in flat]
        kinds = set(map(type, flat))
    if not (kinds <= {int, float} or kinds == {bool}):
        _note_wrong(flat, shape, where, reading)
        return None
    try:
        dtype = np.bool_ if kinds == {bool} else np.int64 if kinds == {int} else np.float64
        return _filled(flat, dtype).reshape(shape)
    except OverflowError:
        reading.add(where, "has an integer beyond 64 bits")
        return None


def _filled(numbers: Sequence[Any], dtype: type[np.generic]) -> Array:
    """Return numbers as an array; OverflowError for an integer beyond 64 bits.

    Part by part: numpy holds the interpreter's lock until it is done, and the event loop waits.
    """
    array = np.empty(len(numbers), dtype)
    for begin in range(0, len(numbers), limits.HTTP_NUMBERS_AT_A_TIME):
        end = begin + limits.HTTP_NUMBERS_AT_A_TIME
        array[begin:end] = numbers[begin:end]
    return array


def _note_wrong(flat: Sequence[object], shape: Sequence[int], where: str, reading: Reading) -> None:
    """Note the first element that is no number, or a bool among numbers."""
    wanted = bool if type(flat[0]) is bool else (int, float)
    is_right = [
        isinstance(each, wanted) and isinstance(each, bool) == (wanted is bool) for each in flat
    ]
    place = is_right.index(False)
    at = "".join(f"[{each}]" for each in np.unravel_index(place, shape)) if shape else ""
    kind = _KINDS.get(type(flat[place]), "something else")
    texts = ", ".join(f'"{each}"' for each in NONFINITE)
    expected = "true or false" if wanted is bool else f"a number or one of {texts}"
    reading.add(f"{where}{at}", f"is {kind}; expected {expected}")


_KINDS: Final[Mapping[type, str]] = {
    bool: "true or false",
    dict: "an object",
    float: "a number",
    int: "a number",
    list: "a list",
    str: "a text",
    type(None): "null",
}
"""What a value of JSON is called."""


def _cast(array: Array, name: str, where: str, reading: Reading) -> Array | None:
    """Return an array in a data type; None after noting a value that it cannot hold."""
    wire_type = BY_NAME[name]
    # Beyond the range of a floating type is infinity, as everywhere.
    with np.errstate(over="ignore", invalid="ignore"):
        cast = array.astype(wire_type.numpy, copy=False)
        if wire_type.is_float or array.dtype == cast.dtype:
            return cast
        place = _first_difference(cast.reshape(-1), array.reshape(-1))
    if place is None:
        return cast
    at = "".join(f"[{each}]" for each in np.unravel_index(place, array.shape))
    reading.add(f"{where}{at}", f"is no {name}")
    return None


def _first_difference(cast: Array, array: Array) -> int | None:
    """Return the place of the first element that a data type cannot hold; None for none."""
    for begin in range(0, array.size, limits.HTTP_NUMBERS_AT_A_TIME):
        part = slice(begin, begin + limits.HTTP_NUMBERS_AT_A_TIME)
        same = cast[part].astype(array.dtype) == array[part]
        if not same.all():
            return begin + int(same.argmin())
    return None


def to_lists(array: Array) -> orjson.Fragment:
    """Return an array as a number or as nested lists; NaN and infinities are texts."""
    if not BY_NAME[array.dtype.name].is_float:
        return orjson.Fragment(_written(array, lambda part: dump(part.tolist())))
    # Of half precision: exact, and numpy knows how to write it.
    wide = array.astype(np.float64)
    if np.isfinite(wide).all():
        return orjson.Fragment(_written(wide, lambda part: dump(part.tolist())))
    return orjson.Fragment(_written(wide, lambda part: dump(json_values(part.tolist()))))


def _written(array: Array, write: Callable[[Array], bytes]) -> bytes:
    """Return the JSON of an array, part by part: the event loop waits for each.

    `write` must not release the interpreter's lock: a thread that waits for it begins to wait again
    whenever it was free for a moment, and asks for it only when it was not for a while.
    """
    most = limits.HTTP_NUMBERS_WRITTEN
    if array.ndim == 0 or array.size <= most:
        return write(array)
    row = array.size // len(array)
    if row > most:
        parts = [_written(each, write) for each in array]
    else:
        step = most // row
        starts = range(0, len(array), step)
        parts = [write(array[start : start + step])[1:-1] for start in starts]
    parts[0] = b"[" + parts[0]
    parts[-1] += b"]"
    return b",".join(parts)


def to_base64(array: Array) -> dict[str, Any]:
    """Return an array as an object of data type, shape and base64."""
    return {
        "data_type": array.dtype.name,
        "shape": list(array.shape),
        "data": b64encode(bytes_of(array)).decode("ascii"),
    }


ENCODINGS: Final[Mapping[str, Callable[[Array], Any]]] = {"list": to_lists, "base64": to_base64}
"""How tensors are written in an answer, by the request's `encoding`."""
