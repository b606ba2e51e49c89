"""Counts the submessages of a serialized message at any depth, before protobuf allocates them.

`parse` counts the fields of the upper two levels, where requests are wide. A summary is wide below:
its slices, distributions and clusters.
"""

from typing import Any

from google.protobuf.message import Message

from losswire.server import thresholds
from losswire.server.errors import OverLimitError
from losswire.wire import LENGTH_DELIMITED, fields


def check_message_count(message_type: type[Message], data: bytes) -> None:
    """Raise OverLimitError for more submessages or fields than any sensible run has."""
    if len(data) <= thresholds.COUNT_FIELDS_FROM_BYTES:
        return
    messages = walked = 0
    waiting: list[tuple[int, int, Any]] = [(0, len(data), message_type.DESCRIPTOR)]
    while waiting:
        begin, end, descriptor = waiting.pop()
        inner: list[tuple[int, int, Any]] = []
        try:
            for number, kind, _, start, stop in fields(data, begin, end):
                walked += 1
                field = descriptor.fields_by_number.get(number)
                if kind == LENGTH_DELIMITED and field is not None and field.message_type:
                    messages += 1
                    if _holds_messages(field.message_type):
                        inner.append((start, stop, field.message_type))
                if messages > thresholds.MAX_RUN_MESSAGES or walked > thresholds.MAX_RUN_FIELDS:
                    text = f"a run has more than {thresholds.MAX_RUN_MESSAGES} parts"
                    raise OverLimitError(text)
        except ValueError:
            return  # these are no fields, which protobuf will say
        waiting += inner


def _holds_messages(descriptor: Any) -> bool:  # noqa: ANN401 (of either kind of protobuf)
    return any(field.message_type is not None for field in descriptor.fields)
