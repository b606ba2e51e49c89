"""Estimates how large a message becomes once it is parsed, before any of it is.

A submessage of two bytes takes about a hundred when it is parsed, a number of one byte in a list
sixteen. The time that parsing takes is in proportion, about a nanosecond for each byte. `fields.cc`
has the same numbers, and does the same in native code where an installation has it.
"""

import ctypes
from collections.abc import Callable, Mapping
from enum import IntEnum
from functools import cache
from typing import Any, Final, NamedTuple

import numpy as np
from google.protobuf.descriptor import FieldDescriptor

from losswire.server import thresholds
from losswire.server.compute.native import binding
from losswire.wire import LENGTH_DELIMITED, fields, is_repeated

Descriptor = Any
"""The descriptor of a message, whose type depends on how protobuf was built."""


class ParsedSize(NamedTuple):
    """The size of a message once it is parsed."""

    nbytes: int
    """The memory that its fields take beside its bytes. Beyond the limit it is a part of that."""
    whole: int
    """The offset where the last field ends with which the size is within the limit. The end of the
    message, too, when it has bytes that are no field, which protobuf will refuse."""


class _Kind(IntEnum):
    NUMBER = 1
    VARINTS = 2
    FIXED = 3
    TEXT = 4
    MESSAGE = 5
    MAP_ENTRY = 6


_SIZES: Final[Mapping[_Kind, int]] = {
    _Kind.NUMBER: 8,
    _Kind.VARINTS: 16,
    _Kind.FIXED: 0,
    _Kind.TEXT: 32,
    _Kind.MESSAGE: 128,
    _Kind.MAP_ENTRY: 192,
}
"""The memory that a field takes beside its bytes; a packed one for each of its numbers. A field
that is unknown is kept as it came, and takes as much as a number."""

_KIND_BITS: Final = 3
_BLOCK: Final = 4096
_GROUP_START, _GROUP_END = 3, 4

_TEXTS: Final = (FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES)
_FIXED_TYPES: Final = (
    FieldDescriptor.TYPE_DOUBLE,
    FieldDescriptor.TYPE_FLOAT,
    FieldDescriptor.TYPE_FIXED32,
    FieldDescriptor.TYPE_FIXED64,
    FieldDescriptor.TYPE_SFIXED32,
    FieldDescriptor.TYPE_SFIXED64,
)


def parsed_size(
    described: Descriptor, data: bytes, limit: int, start: int = 0, stop: int | None = None
) -> ParsedSize:
    """Estimate the size of a slice of a message, until it is beyond the limit."""
    return _measure(described, data, limit, start, len(data) if stop is None else stop)


def parsed_size_in_python(
    described: Descriptor, data: bytes, limit: int, start: int, stop: int
) -> ParsedSize:
    """Estimate as `parsed_size` does, without the native library."""
    size, groups, whole = 0, 0, start
    by_number = described.fields_by_number
    walker = fields(data, start, stop)
    while True:
        try:
            number, wire_type, _, begin, end = next(walker)
        except StopIteration:
            return ParsedSize(size, stop)
        except ValueError:
            return ParsedSize(size, stop)
        if end > stop:
            return ParsedSize(size, stop)
        groups += (wire_type == _GROUP_START) - (wire_type == _GROUP_END)
        if groups < 0:
            return ParsedSize(size, stop)
        field = by_number.get(number) if wire_type == LENGTH_DELIMITED and not groups else None
        kind = _Kind.NUMBER if field is None else _kind_of(field)
        if kind is _Kind.VARINTS:
            size += _varints_size(data, begin, end, limit - size)
        else:
            size += _SIZES[kind]
        if field is not None and field.message_type is not None:
            inner = parsed_size_in_python(field.message_type, data, limit - size, begin, end)
            size += inner.nbytes
        if size > limit:
            return ParsedSize(size, whole)
        if not groups:
            whole = end


def _varints_size(data: bytes, start: int, stop: int, limit: int) -> int:
    """Return the size of packed numbers, each of which ends with a byte below 128."""
    size = 0
    while start < stop and size <= limit:
        block = np.frombuffer(data, np.uint8, min(_BLOCK, stop - start), start)
        size += int(np.count_nonzero(block < 128)) * _SIZES[_Kind.VARINTS]  # noqa: PLR2004
        start += block.size
    return size


def _kind_of(field: Any) -> _Kind:  # noqa: ANN401 (a descriptor)
    """Return what a field takes when its bytes have a length in front."""
    if field.message_type is not None:
        is_entry = field.message_type.GetOptions().map_entry
        return _Kind.MAP_ENTRY if is_entry else _Kind.MESSAGE
    if field.type in _TEXTS:
        return _Kind.TEXT
    if not is_repeated(field):
        return _Kind.NUMBER
    return _Kind.FIXED if field.type in _FIXED_TYPES else _Kind.VARINTS


@cache
def _schema(described: Descriptor) -> Any:  # noqa: ANN401 (an array of ctypes)
    """Return what the library needs to know of a message and its submessages, at all depths."""
    types = [described]
    tables: list[list[int]] = []
    for each in types:  # which grows meanwhile
        table = [0] * (1 + max(each.fields_by_number, default=0))
        table[0] = len(table) - 1
        for number, field in each.fields_by_number.items():
            inner = 0
            if field.message_type is not None:
                if field.message_type not in types:
                    types.append(field.message_type)
                inner = types.index(field.message_type)
            table[number] = _kind_of(field) | inner << _KIND_BITS
        tables.append(table)
    starts, first = [], len(types)
    for table in tables:
        starts.append(first)
        first += len(table)
    numbers = [*starts, *(number for table in tables for number in table)]
    return (ctypes.c_int32 * len(numbers))(*numbers)


def _native_measure() -> Callable[[Descriptor, bytes, int, int, int], ParsedSize]:
    if binding.HOLDING is None or binding.RELEASING is None:
        return parsed_size_in_python
    brief, long = binding.HOLDING.losswire_parsed_size, binding.RELEASING.losswire_parsed_size

    def measure(
        described: Descriptor, data: bytes, limit: int, start: int, stop: int
    ) -> ParsedSize:
        whole = ctypes.c_int64()
        function = brief if limit <= thresholds.PARSED_AT_ONCE_BYTES else long
        nbytes = function(data, start, stop, _schema(described), limit, ctypes.byref(whole))
        return ParsedSize(nbytes, whole.value)

    return measure


_measure: Final = _native_measure()
