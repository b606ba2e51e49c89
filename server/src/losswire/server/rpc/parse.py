"""Parse: from bytes to messages, without growing many times beyond the size of the bytes.

A submessage of two bytes takes about a hundred once it is parsed, so that a
message of empty submessages only would grow far beyond its size. The fields of
large messages are counted before protobuf allocates them.
"""

from collections.abc import Callable
from typing import Any, Final

from google.protobuf.message import DecodeError, Message

from losswire.server import thresholds
from losswire.server.errors import MalformedMessageError, OverLimitError
from losswire.wire import read_varint

_FIXED_SIZES: Final = {1: 8, 5: 4, 3: 0, 4: 0}
"""The size of a field's value, by wire type; 0 for the begin and end of a group, whose fields
count like all others."""

_VARINT: Final = 0
_LENGTH_DELIMITED: Final = 2


def parse(
    message_type: type[Message],
    data: bytes,
    reader: Callable[[bytes], Any] | None = None,
) -> Any:  # noqa: ANN401 (the message, or the reader's result)
    """Parse a message, or let a reader of that message read it.

    Raises MalformedMessageError when the bytes are not this message, and
    OverLimitError when they have more fields than any sensible message.
    """
    if len(data) > thresholds.COUNT_FIELDS_FROM_BYTES:
        fields = _count_fields(data, message_type)
        if fields > thresholds.MAX_FIELDS:
            message = f"the message has more than {thresholds.MAX_FIELDS} fields"
            raise OverLimitError(message)
    try:
        return message_type.FromString(data) if reader is None else reader(data)
    except DecodeError:
        message = f"the bytes are not a {message_type.DESCRIPTOR.full_name}"
        raise MalformedMessageError(message) from None


def _count_fields(data: bytes, message_type: type[Message]) -> int:
    """Count the fields of a message and of its submessages, up to the limit.

    Stops at bytes that are no field, which protobuf will refuse.
    """
    by_number = message_type.DESCRIPTOR.fields_by_number
    count = 0
    ends = [len(data)]
    inner = False
    position = 0
    while ends and count <= thresholds.MAX_FIELDS:
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
            # In a group, a field with the number of a submessage may hold any bytes.
            position = ends[-1]
    return count
