"""Parse: from bytes to messages, without growing many times beyond the size of the bytes.

A submessage of two bytes takes about a hundred once it is parsed, so that a message of empty
submessages would grow far beyond its size, and hold the interpreter meanwhile. So the size is
estimated first, and large messages are parsed in pieces, between which other threads run.
"""

import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final, TypeVar

from google.protobuf.message import DecodeError, Message

from losswire.server import thresholds
from losswire.server.errors import MalformedMessageError, OverLimitError
from losswire.server.rpc.parsed_size import parsed_size
from losswire.wire import (
    LENGTH_DELIMITED,
    delimited_tag,
    detach,
    fields,
    is_repeated,
    varint,
)

MessageT = TypeVar("MessageT", bound=Message)

_LAST_BYTE = 128
"""The bytes of a varint below which it ends."""

_VARINT_BYTES = 16
"""The parsed size of a number in a list."""


def parse(
    message_type: type[Message],
    data: bytes,
    reader: Callable[[bytes], Any] | None = None,
    max_parsed_bytes: int = thresholds.MAX_PARSED_BYTES,
) -> Any:  # noqa: ANN401 (the message, or the reader's result)
    """Parse a message, or let a reader of that message read it.

    Raises MalformedMessageError when the bytes are not this message, and OverLimitError when it
    would grow more than any sensible message does.
    """
    if len(data) > thresholds.MEASURED_FROM_BYTES:
        nbytes, _ = parsed_size(message_type.DESCRIPTOR, data, max_parsed_bytes)
        if nbytes > max_parsed_bytes:
            message = f"the fields of the message take more than {max_parsed_bytes} bytes of memory"
            raise OverLimitError(message)
    try:
        return from_bytes(message_type, data) if reader is None else reader(data)
    except DecodeError:
        message = f"the bytes are not a {message_type.DESCRIPTOR.full_name}"
        raise MalformedMessageError(message) from None


_KEY: Final = (1, LENGTH_DELIMITED)
_VALUE: Final = (2, LENGTH_DELIMITED)
"""The number and wire type of the fields of an entry of a map from text to messages."""


def grows_beyond(message_type: type[Message], data: bytes, limit: int) -> bool:
    """Return whether the fields of a message take more memory than this once it is parsed."""
    return (
        len(data) > thresholds.MEASURED_FROM_BYTES
        and parsed_size(message_type.DESCRIPTOR, data, limit).nbytes > limit
    )


def without_tensors(
    message_type: type[MessageT],
) -> Callable[[bytes], tuple[MessageT, Mapping[str, memoryview]]]:
    """Return the reader that cuts the elements of tensors out of messages."""
    most = thresholds.MAX_DETACHED_FIELDS
    return partial(detach, message_type=message_type, parse=from_bytes, max_fields=most)


def from_bytes(message_type: type[MessageT], data: bytes) -> MessageT:
    """Parse a message, in pieces if it is large; DecodeError when the bytes are something else.

    Large ones must not be parsed on the event loop, which has its turns between the pieces.
    """
    if not grows_beyond(message_type, data, thresholds.PARSED_AT_ONCE_BYTES):
        return message_type.FromString(data)
    message = message_type()
    _merge(message, data, 0, len(data))
    return message


def _merge(message: Message, data: bytes, start: int, stop: int) -> None:
    """Merge the fields from `start` to `stop`: protobuf allows that in pieces."""
    while start < stop:
        limit = thresholds.PARSED_AT_ONCE_BYTES
        _, end = parsed_size(message.DESCRIPTOR, data, limit, start, stop)
        if end > start:
            message.MergeFromString(data[start:end])
            time.sleep(0)  # gives up the interpreter's lock
        else:
            end = _merge_field(message, data, start, stop)
        start = end


def _merge_field(message: Message, data: bytes, start: int, stop: int) -> int:
    """Merge one field that is large by itself; returns where it ends."""
    number, wire_type, _, begin, end = next(fields(data, start, stop))
    field = message.DESCRIPTOR.fields_by_number.get(number)
    if wire_type != LENGTH_DELIMITED or field is None:
        text = "a group, which no message has, is large"
        raise DecodeError(text)
    described: Any = field.message_type
    if described is None:
        _merge_varints(message, number, data[begin:end])
    elif described.GetOptions().map_entry:
        _merge_entry(message, field, data, begin, end)
    else:
        name = field.name
        inner = getattr(message, name).add() if is_repeated(field) else getattr(message, name)
        inner.SetInParent()
        _merge(inner, data, begin, end)
    return end


def _merge_varints(message: Message, number: int, packed: bytes) -> None:
    """Merge the numbers of a list."""
    count = thresholds.PARSED_AT_ONCE_BYTES // _VARINT_BYTES
    start = 0
    while start < len(packed):
        stop = min(start + count, len(packed))
        while stop < len(packed) and packed[stop - 1] >= _LAST_BYTE:
            stop += 1
        message.MergeFromString(delimited_tag(number) + varint(stop - start) + packed[start:stop])
        time.sleep(0)
        start = stop


def _merge_entry(
    message: Message,
    field: Any,  # noqa: ANN401 (a descriptor, whose type depends on how protobuf was built)
    data: bytes,
    start: int,
    stop: int,
) -> None:
    """Merge an entry of a map, whose value is large."""
    try:
        # By wire type, too: protobuf keeps an entry with other fields as an unknown field.
        entry = {
            (number, wire_type): (begin, end)
            for number, wire_type, _, begin, end in fields(data, start, stop)
        }
        (key_at, key_end), (begin, end) = entry.pop(_KEY), entry.pop(_VALUE)
        value = getattr(message, field.name)[data[key_at:key_end].decode()]
        value.Clear()  # of two entries of one key, the last counts
    except (ValueError, KeyError, AttributeError):
        entry = {(0, 0): (start, stop)}
    if entry:
        text = "an entry of a map is large, and more than a key and a value"
        raise DecodeError(text)
    _merge(value, data, begin, end)
