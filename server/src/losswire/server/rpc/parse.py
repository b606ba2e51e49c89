"""Parse: from bytes to messages, without growing many times beyond the size of the bytes.

A submessage of two bytes takes about a hundred once it is parsed, so that a
message of empty submessages only would grow far beyond its size. The fields of
large messages are counted before protobuf allocates them.
"""

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

from google.protobuf.message import DecodeError, Message

from losswire.server import thresholds
from losswire.server.errors import MalformedMessageError, OverLimitError
from losswire.wire import LENGTH_DELIMITED, fields


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
        fields_found = _count_fields(data, message_type)
        if fields_found > thresholds.MAX_FIELDS:
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
    for number, kind, _, begin, end in _whole_fields(data, 0, len(data)):
        count += 1
        field = by_number.get(number) if kind == LENGTH_DELIMITED else None
        if field is not None and field.message_type is not None:
            # In a group, a field with the number of a submessage may be of any type.
            inner = _whole_fields(data, begin, end)
            count += sum(1 for _ in islice(inner, thresholds.MAX_FIELDS + 1 - count))
        if count > thresholds.MAX_FIELDS:
            break
    return count


def _whole_fields(data: bytes, start: int, stop: int) -> Iterator[tuple[int, int, int, int, int]]:
    """Walk over fields, as `fields` does, up to bytes that are none."""
    try:
        yield from fields(data, start, stop)
    except ValueError:
        return
