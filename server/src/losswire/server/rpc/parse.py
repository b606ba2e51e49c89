"""Parse: from bytes to messages, never many times larger than the bytes.

A submessage of two bytes takes about a hundred once it is parsed, so that a
message of nothing but empty submessages would grow far beyond its size. The
fields of large messages are counted before protobuf allocates them.
"""

from collections.abc import Callable
from typing import Any, Final

from google.protobuf.message import DecodeError, Message

from losswire.server.errors import MalformedMessageError, OverLimitError
from losswire.wire import read_varint

_SMALL_BYTES: Final = 64 << 10
"""What can at most become a few megabytes, and is not worth counting."""

_MOST_FIELDS: Final = 64 << 10
"""How many fields a message may have, one level of submessages included. The largest
EvaluateMany has about half as many."""

_FIXED_SIZES: Final = {1: 8, 5: 4, 3: 0, 4: 0}
"""The size of a field's value, by wire type; none of a group's begin and end, between which
its fields count as all others."""

_VARINT: Final = 0
_LENGTH_DELIMITED: Final = 2


def parse(
    message_type: type[Message],
    data: bytes,
    reader: Callable[[bytes], Any] | None = None,
) -> Any:  # noqa: ANN401 (the message, or what the reader makes of it)
    """Parse a message, or have a reader of that message read it.

    Raises MalformedMessageError when the bytes are something else, and
    OverLimitError when they are of more fields than any honest message has.
    """
    if len(data) > _SMALL_BYTES:
        fields = _count_fields(data, message_type)
        if fields > _MOST_FIELDS:
            message = f"the message has more than {_MOST_FIELDS} fields"
            raise OverLimitError(message)
    try:
        return message_type.FromString(data) if reader is None else reader(data)
    except DecodeError:
        message = f"the bytes are not a {message_type.DESCRIPTOR.full_name}"
        raise MalformedMessageError(message) from None


def _count_fields(data: bytes, message_type: type[Message]) -> int:
    """Count the fields of a message and those of its submessages, up to the limit.

    Stops at bytes that are no field: protobuf will refuse them.
    """
    by_number = message_type.DESCRIPTOR.fields_by_number
    count = 0
    ends = [len(data)]
    inner = False
    position = 0
    while ends and count <= _MOST_FIELDS:
        if position >= ends[-1]:
            position = ends.pop()
            inner = False
            continue
        count += 1
        try:
            tag, position = read_varint(data, position)
            number, wire_type = tag >> 3, tag & 7
            if wire_type == _VARINT:
                _, position = read_varint(data, position)
            elif wire_type == _LENGTH_DELIMITED:
                length, position = read_varint(data, position)
                field = None if inner else by_number.get(number)
                if field is not None and field.message_type is not None:
                    inner = True
                    ends.append(position + length)
                else:
                    position += length
            else:
                position += _FIXED_SIZES[wire_type]
        except (ValueError, KeyError):
            if not inner:
                break
            # In a group, what has the number of a submessage may be anything.
            position = ends[-1]
    return count
