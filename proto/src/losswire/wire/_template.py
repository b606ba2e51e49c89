"""Messages that differ in the values of a few fields only: their constant bytes, kept once.

Protobuf's encoding is determined by its prefixes: a tag and a length determine the type and the
size of the value that follows. So two messages of one size that are equal everywhere except inside
of the same spans parse alike, and the facts about one of them hold for the other.
"""

from collections.abc import Sequence
from typing import Any, Final, TypeAlias

import numpy.typing as npt

from losswire.wire._varint import varint

Value: TypeAlias = bytes | npt.NDArray[Any]
"""The contents of a variable span: bytes, or an array in the byte order of the wire."""

_TAG: Final = 0
_FIRST_SPAN: Final = 3
"""The indices of two parts: the tag before the message, and the first value."""


class Template:
    """The constant bytes of a message, between its variable spans."""

    __slots__ = ("_parts", "_slots", "pieces", "size")

    def __init__(self, message: bytes, spans: Sequence[tuple[int, int]]) -> None:
        """Begin with one such message, and the offsets where each variable span begins and ends."""
        self.size = len(message)
        """The bytes of the whole message."""
        ordered = sorted(spans)
        starts = [0, *(stop for _, stop in ordered)]
        stops = [*(start for start, _ in ordered), self.size]
        constants = [(message[a:b], a) for a, b in zip(starts, stops, strict=True)]
        self.pieces = tuple([each for each in constants if each[0]])
        """The constant bytes, each piece with its offset."""
        # A part for the tag, one for the length, then constants and spans in turn.
        self._parts: list[Value] = [b"", varint(self.size), constants[0][0]]
        for constant, _ in constants[1:]:
            self._parts += b"", constant
        slots = {span: _FIRST_SPAN + 2 * place for place, span in enumerate(ordered)}
        self._slots = tuple([slots[span] for span in spans])

    @property
    def constant_bytes(self) -> int:
        """The size of the message without its variable spans."""
        return sum(len(piece) for piece, _ in self.pieces)

    def matches(self, message: bytes, begin: int) -> bool:
        """Check whether the constant bytes are in a message of `size` bytes that begins there."""
        # A loop, because a generator costs more than the comparisons.
        for piece, start in self.pieces:  # noqa: SIM110
            if not message.startswith(piece, begin + start):
                return False
        return True

    def fill(self, tag: bytes, values: Sequence[Value]) -> bytes:
        """Write a message with other values, in the order of the spans, as a field.

        The tag of the field and the message's length come first.
        """
        parts: list[Any] = self._parts.copy()
        parts[_TAG] = tag
        for slot, value in zip(self._slots, values, strict=True):
            parts[slot] = value
        try:
            return b"".join(parts)
        except TypeError:  # an array that is not contiguous
            return b"".join([each if isinstance(each, bytes) else each.tobytes() for each in parts])
