"""The head of a message of an Arrow stream: its kind, the size of its body, whether it is packed.

A table of flatbuffers begins with the distance to its list of fields; that list has the place of
each field in the table, 0 for one that is not set.
"""

import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Final


class Kind(IntEnum):
    """The kinds of messages that a stream has."""

    SCHEMA = 1
    DICTIONARY = 2
    RECORD_BATCH = 3


_HEADER_TYPE, _HEADER, _BODY_LENGTH = 1, 2, 3
"""The fields of a Message."""
_DICTIONARY_DATA: Final = 1
"""The field of a DictionaryBatch that is a RecordBatch."""
_COMPRESSION: Final = 3
"""The field of a RecordBatch that says how its buffers are compressed."""


@dataclass(frozen=True, slots=True)
class MessageHead:
    """What is known of a message before its body is read."""

    kind: Kind
    body_bytes: int
    is_compressed: bool
    """Whether buffers are compressed, so that nobody knows how large they become."""


def read_head(metadata: bytes) -> MessageHead:
    """Return the head of a message; struct.error, IndexError or ValueError for other bytes."""
    message = _Table(metadata, struct.unpack_from("<I", metadata, 0)[0])
    kind = Kind(message.number(_HEADER_TYPE, "<B"))
    body_bytes = message.number(_BODY_LENGTH, "<q")
    if body_bytes < 0:
        message_text = "a body of less than no bytes"
        raise ValueError(message_text)
    batch = None if kind is Kind.SCHEMA else message.table(_HEADER)
    if kind is Kind.DICTIONARY and batch is not None:
        batch = batch.table(_DICTIONARY_DATA)
    return MessageHead(kind, body_bytes, batch is not None and bool(batch.place(_COMPRESSION)))


class _Table:
    """A table of a flatbuffer."""

    def __init__(self, data: bytes, start: int) -> None:
        self._data = data
        self._start = start
        self._fields = start - struct.unpack_from("<i", data, start)[0]
        if self._fields < 0:
            message = "a list of fields before the first byte"
            raise ValueError(message)
        self._size = struct.unpack_from("<H", data, self._fields)[0]

    def place(self, field: int) -> int:
        """Return where a field is; 0 when it is not set."""
        entry = 4 + 2 * field
        if entry >= self._size:
            return 0
        offset: int = struct.unpack_from("<H", self._data, self._fields + entry)[0]
        return self._start + offset if offset else 0

    def number(self, field: int, form: str) -> int:
        """Return a number; 0 when it is not set."""
        place = self.place(field)
        return int(struct.unpack_from(form, self._data, place)[0]) if place else 0

    def table(self, field: int) -> "_Table | None":
        """Return a table; None when it is not set."""
        place = self.place(field)
        if not place:
            return None
        return _Table(self._data, place + struct.unpack_from("<I", self._data, place)[0])
