"""A summary's data as an Arrow stream: each record batch is a batch.

The messages of the stream are cut out of the body as they come, so that only one record batch is
held. Needs pyarrow, which the extra `arrow` has.
"""

import importlib
import importlib.util
import struct
from collections.abc import AsyncGenerator, Collection, Iterable
from functools import partial
from typing import Any, Final

from losswire.server.catalogue.value_rules import Array
from losswire.server.errors import (
    InvalidEvaluationError,
    MalformedMessageError,
    OverLimitError,
    WrongMediaTypeError,
)
from losswire.server.http import limits
from losswire.server.http.answer import Buffer
from losswire.server.http.arrow_message import Kind, MessageHead, read_head
from losswire.server.http.call import Call
from losswire.server.http.columns import (
    Columns,
    Part,
    Wanted,
    batch_of,
    column_error,
    refuse_null,
)
from losswire.server.http.threads import in_thread
from losswire.server.memory import budget
from losswire.server.pipeline.field_path import path
from losswire.summaries import Column
from losswire.summaries.columns.arrow import column_of_arrow, tensor_of
from losswire.summaries.columns.integers import accepted
from losswire.summaries.columns.place import Place
from losswire.wire import BY_NAME, Violation

ARROW_STREAM: Final = "application/vnd.apache.arrow.stream"

_CONTINUATION: Final = b"\xff\xff\xff\xff"
_END: Final = _CONTINUATION + bytes(4)
_MAX_METADATA_BYTES: Final = 1 << 24


def check_arrow() -> None:
    """Raise WrongMediaTypeError where this installation does not read Arrow."""
    if importlib.util.find_spec("pyarrow") is None:
        # Short: of a media type that is refused, 64 characters are repeated.
        message = "an Arrow stream needs pyarrow, of losswire-server[arrow]"
        raise WrongMediaTypeError(message, ["multipart/form-data", "application/x-ndjson"])


async def arrow_batches(call: Call, columns: Columns) -> AsyncGenerator[Part]:
    """Yield the batch of each record batch of a body."""
    stream = _Stream(call)
    first_row = 0
    # What each record batch is read with: the schema, and the dictionaries so far.
    before: list[Buffer] = []
    while (found := await stream.message()) is not None:
        head, message = found
        if head.is_compressed:
            text = "its buffers are compressed; write the stream without compression"
            raise InvalidEvaluationError([Violation("body", text)])
        if head.kind is not Kind.RECORD_BATCH:
            before.append(message)
            stream.keep(len(message))
            continue
        stream.check_repeated()
        batch = await in_thread(partial(_record_batch, (*before, message, _END)))
        if batch.num_rows:
            source = _RecordBatch(batch, first_row, columns)
            async with call.hold_briefly(source.needed_bytes):
                part = await in_thread(partial(batch_of, columns, source))
            yield part
        first_row += batch.num_rows
        stream.forget()


def _record_batch(messages: Iterable[Buffer]) -> Any:  # noqa: ANN401 (of pyarrow)
    """Return the only record batch of a stream; MalformedMessageError for other bytes."""
    arrow: Any = importlib.import_module("pyarrow")
    data = b"".join(messages)
    try:
        batch = arrow.ipc.open_stream(arrow.py_buffer(data)).read_next_batch()
        # Offsets that point beyond a buffer are found here, not when they are followed.
        batch.validate(full=True)
    except (arrow.ArrowException, StopIteration, ValueError, OSError) as error:
        message = f"the body is not an Arrow stream: {error}"
        raise MalformedMessageError(message) from None
    return batch


class _Stream:
    """Cuts the messages out of a body."""

    def __init__(self, call: Call) -> None:
        self._body = call.body
        self._parts = call.body.parts()
        self._limit = call.max_body_bytes
        self._call = call
        self._before_bytes = call.reservation.held_bytes
        self._kept = 0
        self._repeated = 0
        self._pending = bytearray()

    def keep(self, size_bytes: int) -> None:
        """Account for a message that is kept until the end."""
        self._kept += size_bytes

    def forget(self) -> None:
        """Release the memory of a record batch, for which the sender has had its time."""
        needed = self._before_bytes + 3 * (len(self._pending) + self._kept)
        self._call.reservation.change_to(needed, budget.Kind.RECEIVE)
        self._body.take_rows()

    def check_repeated(self) -> None:
        """Count that all that is kept is read again; OverLimitError when it is too often."""
        self._repeated += self._kept
        most = self._body.received_bytes * limits.ARROW_REPEATED_COPIES
        if self._repeated > most + limits.ARROW_REPEATED_BYTES:
            message = "the record batches are too small for these dictionaries; write larger ones"
            raise OverLimitError(message)

    async def message(self) -> tuple[MessageHead, Buffer] | None:
        """Return the next message; None at the end."""
        if not await self._has(8):
            if self._pending:
                raise _cut()
            return None
        if self._pending[:4] != _CONTINUATION:
            raise MalformedMessageError("the body is not an Arrow stream")
        (length,) = struct.unpack_from("<i", self._pending, 4)
        if length == 0:
            return None
        if not 0 < length <= _MAX_METADATA_BYTES:
            raise MalformedMessageError("the body is not an Arrow stream")
        if not await self._has(8 + length):
            raise _cut()
        try:
            head = read_head(bytes(self._pending[8 : 8 + length]))
        except (struct.error, IndexError, ValueError):
            raise MalformedMessageError("a message of the Arrow stream has no header") from None
        size = 8 + length + head.body_bytes
        if not await self._has(size):
            raise _cut()
        # Only what follows is copied, which is little.
        message, self._pending = self._pending, self._pending[size:]
        del message[size:]
        return head, message

    async def _has(self, size: int) -> bool:
        """Read until `size` bytes are pending; returns False when the body ends before."""
        if size > self._limit:
            message = f"a record batch is larger than {self._limit} bytes; write smaller ones"
            raise OverLimitError(message)
        while len(self._pending) < size:
            part = await anext(self._parts, None)
            if part is None:
                return False
            self._pending += part
            # Once as it came, once joined with the schema and the dictionaries.
            needed = self._before_bytes + 3 * (len(self._pending) + self._kept)
            await self._call.reservation.grow_to(needed, self._call.deadline, budget.Kind.RECEIVE)
        return True


def _cut() -> MalformedMessageError:
    return MalformedMessageError("the Arrow stream ends in the middle of a message")


class _RecordBatch:
    """A record batch as columns."""

    is_table = True

    def __init__(self, batch: Any, first_row: int, columns: Columns) -> None:  # noqa: ANN401 (of pyarrow)
        """Check the columns that are read; InvalidEvaluationError for those that are refused."""
        # Only here, because pyarrow is an extra.
        from losswire.server.http import arrow_types  # noqa: PLC0415

        self._batch = batch
        self._first_row = first_row
        wanted, there = columns.names, batch.schema.names
        for name in there:
            if name in wanted and there.count(name) > 1:
                raise InvalidEvaluationError([Violation(path("columns", name), "is there twice")])
            if name in wanted:
                arrow_types.check_column(batch.column(name), name)
        self.names: Collection[str] = wanted.intersection(there)
        self.needed_bytes = arrow_types.needed_bytes(batch, wanted)
        """The memory that the columns take once they are arrays, at most."""

    def array(self, wanted: Wanted) -> Array:
        """Return a column of numbers, or of lists of them, in a type that the loss takes."""
        name = wanted.column
        where = path("columns", name)
        place = Place("columns", self._first_row, is_dict=True)
        column = place.column(name)
        try:
            array, nulls = tensor_of(self._batch.column(name), place, name)
            refuse_null(nulls, self._first_row, name)
            floating = BY_NAME[wanted.types[1]].numpy
            return accepted(array, wanted.accepted, column, floating)
        except (TypeError, ValueError) as error:
            text = str(error).removeprefix(f"{column}: ")
            raise InvalidEvaluationError([Violation(where, text)]) from None

    def column(self, name: str) -> Column:
        """Return a column of integers, bools, texts or dates."""
        where = path("columns", name)
        try:
            column, nulls = column_of_arrow(self._batch.column(name), where)
        except (TypeError, ValueError) as error:
            raise column_error(error, where) from None
        refuse_null(nulls, self._first_row, name)
        return column
