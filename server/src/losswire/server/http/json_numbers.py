"""Long arrays of numbers in JSON, which native code reads without the interpreter's lock.

orjson holds the lock until all of a text is parsed, and so do numpy with lists of numbers: the
event loop waits for tens of milliseconds. So arrays of numbers are cut out of the text, and a mark
takes the place of each. What is unusual stays in the text, as everything does where the library is
missing: then orjson reads it, or says what is wrong. `json_numbers.cc` decides what is usual.
"""

import ctypes
import secrets
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final

import numpy as np
import orjson

from losswire.server.catalogue.value_rules import Array
from losswire.server.compute.native import binding
from losswire.server.http import limits
from losswire.server.http.json_text import load, parsed_bytes, parser_bytes


@dataclass(frozen=True, slots=True, eq=False)
class Numbers:
    """A long array of numbers in JSON, which is nested lists there."""

    array: Array
    """Of int64, float64 or bool."""


class ElementKind(IntEnum):
    """The elements of an array; `json_numbers.cc` has the same numbers."""

    INTEGER = 1
    REAL = 2
    BOOL = 8


_DTYPES: Final[Mapping[int, type[np.generic]]] = {
    ElementKind.INTEGER: np.int64,
    ElementKind.REAL: np.float64,
    ElementKind.BOOL: np.bool_,
}

_LONGEST_ITEM: Final = 8
"""Bytes of the widest data type of a tensor."""


class JsonText:
    """A JSON text, whose long arrays of numbers are cut out if `numbers`. Used on any thread."""

    def __init__(self, text: bytes | bytearray, *, numbers: bool) -> None:
        """Find the arrays."""
        self._text = text
        most = _most_arrays(text) if numbers else 0
        self._arrays = _find(text, most) if most else []
        # Nobody else can write what was drawn now.
        drawn = secrets.token_hex(16) if self._arrays else ""
        self._marks = [f"{drawn}{number}" for number in range(len(self._arrays))]
        self._rest = self._without_arrays() if self._arrays else text
        self.values_bytes = parsed_bytes(self._rest) + sum(map(_array_bytes, self._arrays))
        """The most memory that the values take once they are read, and become tensors."""
        self.parser_bytes = parser_bytes(self._rest) + most * ctypes.sizeof(binding.JsonArray)
        """The memory that reading takes besides."""

    def load(self) -> Any:  # noqa: ANN401 (whatever JSON can hold)
        """Parse; raises as `json_text.load` does.

        Arrays that were cut out are `Numbers`. They are the whole, or lie in objects alone.
        """
        content = load(self._rest, self._description if self._arrays else str)
        arrays = dict(zip(self._marks, self._arrays, strict=True))
        return _placed(content, arrays, self._read) if arrays else content

    def _without_arrays(self) -> bytes:
        view, parts, end = memoryview(self._text), list[bytes | memoryview](), 0
        for mark, each in zip(self._marks, self._arrays, strict=True):
            parts += view[end : each.start], b'"%b"' % mark.encode()
            end = each.stop
        return b"".join([*parts, view[end:]])

    def _read(self, array: binding.JsonArray) -> Numbers:
        elements = np.empty(array.shape[: array.axes], _DTYPES[array.kind])
        read = _library(array.stop - array.start).losswire_json_elements
        if not read(_address(self._text), array, elements.ctypes.data):
            raise MemoryError("there is no memory for a locale")
        return Numbers(elements)

    def _description(self, error: orjson.JSONDecodeError) -> str:
        """Return what orjson says of the rest as it says it of the whole."""
        line, column, place = 1, 1, 0
        for length, lines, last in self._before(error.pos):
            place += length
            line += lines
            column = last if lines else column + length
        return f"{error.msg}: line {line} column {column} (char {place})"

    def _before(self, place: int) -> Iterator[tuple[int, int, int]]:
        """Yield what is before a place of the rest, part by part, arrays included.

        Of each the characters, the lines that end in it, and the characters from the last end on.
        """
        end = 0
        for mark, each in zip(self._marks, self._arrays, strict=True):
            kept = self._text[end : each.start].decode(errors="replace")
            yield _counts(kept[:place])
            if place <= len(kept):
                return
            place -= len(kept) + len(f'"{mark}"')
            lines = self._text.count(b"\n", each.start, each.stop)
            last = self._text.rfind(b"\n", each.start, each.stop)
            yield each.stop - each.start, lines, each.stop - last
            end = each.stop
        yield _counts(self._text[end:].decode(errors="replace")[:place])


def _counts(text: str) -> tuple[int, int, int]:
    return len(text), text.count("\n"), len(text) - text.rfind("\n")


def _array_bytes(array: binding.JsonArray) -> int:
    """Return the memory of an array and of its tensor, whatever data type that has."""
    count: int = array.count
    return count * (np.dtype(_DTYPES[array.kind]).itemsize + _LONGEST_ITEM)


def _most_arrays(text: bytes | bytearray) -> int:
    """Return how many arrays may be cut out of a text; a number takes two bytes at least."""
    if not binding.AVAILABLE:
        return 0
    return min(len(text) // (2 * limits.JSON_NUMBERS_APART), limits.MAX_JSON_ARRAYS)


def _find(text: bytes | bytearray, most: int) -> list[binding.JsonArray]:
    """Return the arrays that are cut out of a text, in order."""
    arrays, least = (binding.JsonArray * most)(), limits.JSON_NUMBERS_APART
    find = _library(len(text)).losswire_json_arrays
    count = find(_address(text), len(text), least, limits.MAX_JSON_DEPTH, arrays, most)
    return arrays[:count]


def _library(size_bytes: int) -> ctypes.CDLL:
    """Return the library that releases the lock for long texts; RuntimeError without one."""
    library = binding.HOLDING if size_bytes < limits.HTTP_OFF_LOOP_BYTES else binding.RELEASING
    if library is None:
        raise RuntimeError("this installation has no native rows")
    return library


def _address(text: bytes | bytearray) -> int:
    """Return where a text that is kept meanwhile begins."""
    address: int = np.frombuffer(text, np.uint8).ctypes.data
    return address


def _placed(
    content: Any,  # noqa: ANN401 (whatever JSON can hold)
    arrays: Mapping[str, binding.JsonArray],
    read: Callable[[binding.JsonArray], Numbers],
) -> Any:  # noqa: ANN401 (likewise)
    """Return a value in which arrays took the place of their marks."""
    if isinstance(content, str):
        return read(arrays[content]) if content in arrays else content
    if isinstance(content, dict):
        for name, value in content.items():
            if isinstance(value, str | dict):
                content[name] = _placed(value, arrays, read)
    return content
