"""Parse: from bytes to messages, without growing many times beyond the size of the bytes.

A submessage of two bytes takes about a hundred once it is parsed, so that a
message of empty submessages only would grow far beyond its size. The fields of
large messages are counted before protobuf allocates them.
"""

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

from google.protobuf.message import DecodeError, Message

from losswire.server import thresholds
from losswire.server.errors import MalformedMessageError, OverLimitError
from losswire.wire import LENGTH_DELIMITED, fields, is_repeated


def parse(
    message_type: type[Message],
    data: bytes,
    reader: Callable[[bytes], Any] | None = None,
    max_fields: int = thresholds.MAX_FIELDS,
) -> Any:  # noqa: ANN401 (the message, or the reader's result)
    """Parse a message, or let a reader of that message read it.

    Raises MalformedMessageError when the bytes are not this message, and
    OverLimitError when they have more fields than any sensible message.
    """
    if len(data) > thresholds.COUNT_FIELDS_FROM_BYTES:
        described = message_type.DESCRIPTOR
        if _count_fields(data, 0, len(data), described, max_fields, depth=0) > max_fields:
            message = f"the message has more than {max_fields} fields"
            raise OverLimitError(message)
    try:
        return message_type.FromString(data) if reader is None else reader(data)
    except DecodeError:
        message = f"the bytes are not a {message_type.DESCRIPTOR.full_name}"
        raise MalformedMessageError(message) from None


def _count_fields(
    data: bytes,
    start: int,
    stop: int,
    described: Any,  # noqa: ANN401 (a descriptor, whose type depends on how protobuf was built)
    limit: int,
    *,
    depth: int,
) -> int:
    """Count the fields of a message and of its submessages, until there are more than the limit.

    Below those, only submessages are counted, and only where they can be repeated. Stops at bytes
    that are no field, which protobuf will refuse.
    """
    by_number = described.fields_by_number
    count = 0
    for number, kind, _, begin, end in _whole_fields(data, start, stop):
        field = by_number.get(number) if kind == LENGTH_DELIMITED else None
        inner = None if field is None else field.message_type
        count += depth <= 1 or inner is not None
        if inner is not None and (depth == 0 or _repeats(inner)):
            # In a group, a field with the number of a submessage may be of any type.
            count += _count_fields(data, begin, end, inner, limit - count, depth=depth + 1)
        if count > limit:
            break
    return count


@cache
def _repeats(described: Any) -> bool:  # noqa: ANN401 (likewise)
    """Return whether a message has repeated submessages, at any depth; no message nests itself."""
    inner = [each for each in described.fields if each.message_type is not None]
    return any(is_repeated(each) or _repeats(each.message_type) for each in inner)


def _whole_fields(data: bytes, start: int, stop: int) -> Iterator[tuple[int, int, int, int, int]]:
    """Walk over fields, as `fields` does, up to bytes that are none."""
    try:
        yield from fields(data, start, stop)
    except ValueError:
        return
