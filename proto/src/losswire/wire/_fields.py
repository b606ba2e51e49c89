"""Protobuf's encoding, field by field: the one walker over the fields of a serialized message."""

from collections.abc import Iterator
from typing import Any, Final

from losswire.wire._varint import SIZE_BYTES, read_varint, varint

VARINT: Final = 0
LENGTH_DELIMITED: Final = 2
_EIGHT_BYTES, _GROUP_START, _GROUP_END, _FOUR_BYTES = 1, 3, 4, 5

_FIXED_SIZES: Final = {_EIGHT_BYTES: 8, _FOUR_BYTES: 4, _GROUP_START: 0, _GROUP_END: 0}
"""The size of a value by its wire type. The marks around a group have none."""


def fields(message: bytes, start: int, stop: int) -> Iterator[tuple[int, int, int, int, int]]:
    """Walk over the fields in a slice of a message that is a message itself.

    Yields the number of each, its wire type, the offsets of its tag and of its value, and the
    offset where both end. The marks around a group come as fields without a value; the fields
    inside of it come like all others. Raises ValueError at bytes that are not a field.
    """
    while start < stop:
        head = start
        tag, begin = read_varint(message, start, SIZE_BYTES)
        kind = tag & 7
        if kind == LENGTH_DELIMITED:
            length, begin = read_varint(message, begin, SIZE_BYTES)
            end = begin + length
        elif kind == VARINT:
            _, end = read_varint(message, begin)
        elif kind in _FIXED_SIZES:
            end = begin + _FIXED_SIZES[kind]
        else:
            raise ValueError("there is no such wire type")
        yield tag >> 3, kind, head, begin, end
        start = end
    if start != stop:
        raise ValueError("a field ends behind its message")


def submessages(
    message: bytes, start: int, stop: int, allowed: Iterator[object] | None = None
) -> Iterator[tuple[int, int, int, int]]:
    """Walk over the length-delimited fields, and skip the others.

    Yields the number of each, the offsets of its tag and of its value, and the offset where both
    end. Takes one of `allowed` for each field of any type. Raises ValueError as `fields` does, for
    groups, and when no more fields are allowed.
    """
    for number, kind, head, begin, end in fields(message, start, stop):
        if allowed is not None and next(allowed, None) is None:
            raise ValueError("too many fields")
        if kind == LENGTH_DELIMITED:
            yield number, head, begin, end
        elif kind in {_GROUP_START, _GROUP_END}:
            raise ValueError("a group")


def read_delimited(message: bytes, start: int, tag: bytes) -> tuple[int, int] | None:
    """Find the value of one length-delimited field, whose tag must begin at `start`.

    Returns the offsets where the value begins and ends, which may be beyond the message; None
    when another field begins there.
    """
    if not message.startswith(tag, start):
        return None
    try:
        length, begin = read_varint(message, start + len(tag), SIZE_BYTES)
    except ValueError:
        return None
    return begin, begin + length


def is_repeated(field: Any) -> bool:  # noqa: ANN401 (a descriptor, whose type depends on the build)
    """Return whether a field, given by its descriptor, is repeated; a map is."""
    known = getattr(field, "is_repeated", None)
    # Before protobuf 6.31 there is only the label, of which later ones warn.
    return bool(field.label == field.LABEL_REPEATED if known is None else known)


def delimited_tag(number: int) -> bytes:
    """Return the tag of a length-delimited field."""
    return varint(number << 3 | LENGTH_DELIMITED)
