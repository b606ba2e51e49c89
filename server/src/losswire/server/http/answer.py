"""Answers of the HTTP door, and how they are sent."""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from losswire.server.http.json_text import dump

Buffer = bytes | bytearray | memoryview


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A status, a header and a body."""

    status: int = 200
    media_type: str
    body: Sequence[Buffer] | AsyncIterator[Buffer] = ()
    """The parts of the body, or an iterator of parts that are sent as they come."""
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_streamed(self) -> bool:
        """Whether the parts of the body are made while it is sent."""
        return isinstance(self.body, AsyncIterator)

    @property
    def size_bytes(self) -> int | None:
        """The length of the body; None when it is not known before it was sent."""
        if isinstance(self.body, AsyncIterator):
            return None
        return sum(memoryview(each).nbytes for each in self.body)


def json_answer(
    content: Any,  # noqa: ANN401 (whatever JSON can hold)
    *,
    status: int = 200,
    media_type: str = "application/json",
    headers: Mapping[str, str] | None = None,
) -> Answer:
    """Return an answer of JSON."""
    return Answer(
        status=status, media_type=media_type, body=(dump(content),), headers=headers or {}
    )
