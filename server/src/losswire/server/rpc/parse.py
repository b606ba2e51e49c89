"""Parse: from bytes to messages, never many times larger than the bytes.

A submessage of two bytes takes about a hundred once it is parsed, so that a
message of nothing but empty submessages would grow far beyond its size. The
fields of large messages are counted before protobuf allocates them.
"""

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, Final

from google.protobuf.message import DecodeError, Message

from losswire.server.errors import MalformedMessageError, OverLimitError
from losswire.wire import LENGTH_DELIMITED, fields

_SMALL_BYTES: Final = 64 << 10
"""What can at most become a few megabytes, and is not worth counting."""

_MOST_FIELDS: Final = 64 << 10
"""How many fields a message may have, one level of submessages included. The largest
EvaluateMany has about half as many."""


def parse(
    message_type: type[Message],
    data: bytes,
    reader: Callable[[bytes], Any] | None = None,
) -> Any:  # noqa: ANN401 (the message, or what the reader makes of it)
    """Parse a message, or have a reader of that message read it.

    Raises MalformedMessageError when the bytes are something else, and
    OverLimitError when they are of more fields than any honest message has.
    """
    if len(data) > _SMALL_BYTES and _count_fields(data, message_type) > _MOST_FIELDS:
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
    for number, kind, _, begin, end in _whole_fields(data, 0, len(data)):
        count += 1
        field = by_number.get(number) if kind == LENGTH_DELIMITED else None
        if field is not None and field.message_type is not None:
            # In a group, what has the number of a submessage may be anything.
            inner = _whole_fields(data, begin, end)
            count += sum(1 for _ in islice(inner, _MOST_FIELDS + 1 - count))
        if count > _MOST_FIELDS:
            break
    return count


def _whole_fields(data: bytes, start: int, stop: int) -> Iterator[tuple[int, int, int, int, int]]:
    """Walk over fields, as `fields` does, up to bytes that are none."""
    try:
        yield from fields(data, start, stop)
    except ValueError:
        return
