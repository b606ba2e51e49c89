"""A summary's data as JSON lines: the first line is the request, each further one a row."""

import re
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Final

from losswire.server.catalogue.value_rules import Array
from losswire.server.errors import InvalidEvaluationError, MalformedMessageError, OverLimitError
from losswire.server.http import limits
from losswire.server.http.body import grown_bytes
from losswire.server.http.call import Call, as_object
from losswire.server.http.columns import (
    Columns,
    Part,
    Wanted,
    batch_of,
    column_error,
    refuse_null,
    row_path,
)
from losswire.server.http.json_text import load, parsed_bytes, parser_bytes
from losswire.server.http.tensors import Reading, read_tensor
from losswire.server.http.threads import in_thread
from losswire.server.memory.budget import Kind
from losswire.server.pipeline.field_path import path
from losswire.summaries import Column
from losswire.summaries.columns.labels import column_of
from losswire.wire import Violation, decode_tensor

_ROW: Final = re.compile(r"^\[(\d+)\]")
"""The row in a path of a column's values."""


class Lines:
    """The lines of a body, which are read in blocks of whole lines."""

    def __init__(self, call: Call) -> None:
        """Read the body of a call."""
        self._parts = call.body.parts()
        self._longest = call.services.settings.max_message_bytes
        self._call = call
        self._before_bytes = 0
        """What the call holds beside the lines."""
        self._held_bytes = 0
        """What it holds of them until they are parsed."""
        self._pending = bytearray()
        self._ended = False
        self._last_end = -1
        """Where the last line of what is pending ends, if one does: nothing is searched twice."""

    async def first(self) -> bytes:
        """Return the first line that is not blank."""
        self._before_bytes = self._call.reservation.held_bytes
        while True:
            while self._last_end < 0 and not self._ended:
                await self._read()
            stop = self._pending.find(b"\n")
            line = self._taken(len(self._pending) if stop < 0 else stop)
            if line.strip() or (self._ended and not self._pending):
                return line

    async def blocks(self) -> AsyncGenerator[bytes]:
        """Yield the further lines, some together, held in the budget until the next are asked for.

        Raises as `Reservation.grow_to` does.
        """
        held, deadline = self._call.reservation, self._call.deadline
        # Of the request as well, which was parsed meanwhile.
        self._before_bytes = held.held_bytes - self._held_bytes
        while not self._ended or self._pending:
            is_enough = len(self._pending) >= limits.NDJSON_BLOCK_BYTES and self._last_end >= 0
            if not is_enough and not self._ended:
                await self._read()
                continue
            block = self._taken(len(self._pending) if self._ended else self._last_end)
            # As text, as the values that it becomes, and what parsing takes besides.
            needed = len(self._pending) + parsed_bytes(block) + parser_bytes(block)
            await held.grow_to(self._before_bytes + needed, deadline)
            yield block
            self._call.body.take_rows()
            self._held_bytes = grown_bytes(len(self._pending))
            held.change_to(self._before_bytes + self._held_bytes, Kind.RECEIVE)

    async def _read(self) -> None:
        part = await anext(self._parts, None)
        if part is None:
            self._ended = True
            return
        if (end := part.rfind(b"\n")) >= 0:
            self._last_end = len(self._pending) + end
        self._pending += part
        if len(self._pending) > self._longest + limits.NDJSON_BLOCK_BYTES:
            message = f"a line is longer than {self._longest} bytes"
            raise OverLimitError(message)
        self._held_bytes = max(self._held_bytes, grown_bytes(len(self._pending)))
        needed = self._before_bytes + self._held_bytes
        await self._call.reservation.grow_to(needed, self._call.deadline, Kind.RECEIVE)

    def _taken(self, stop: int) -> bytes:
        """Return the bytes up to a line's end, which are not pending any more."""
        taken = bytes(self._pending[:stop])
        del self._pending[: stop + 1]
        self._last_end = max(-1, self._last_end - stop - 1)
        return taken


async def line_batches(lines: AsyncIterator[bytes], columns: Columns) -> AsyncGenerator[Part]:
    """Yield the batch of each block of lines; raises the error of the first wrong row."""
    first_row = 0
    async for block in lines:
        rows, part = await in_thread(partial(_batch, block, first_row, columns))
        first_row += rows
        if part is not None:
            yield part


def _batch(block: bytes, first_row: int, columns: Columns) -> tuple[int, Part | None]:
    lines = [each for each in block.split(b"\n") if each.strip()]
    if not lines:
        return 0, None
    rows = _rows(lines, first_row)
    return len(rows), batch_of(columns, _Rows(rows, first_row, columns))


def _rows(lines: Sequence[bytes], first_row: int) -> list[dict[str, Any]]:
    """Parse lines, all at once where they are right."""
    try:
        found: list[Any] | None = load(b"[%b]" % b",".join(lines))
    except MalformedMessageError:
        found = None
    if found is None or len(found) != len(lines):
        found = [_line(each, first_row + row) for row, each in enumerate(lines)]
    return [as_object(each, row_path(first_row + row)) for row, each in enumerate(found)]


def _line(line: bytes, row: int) -> Any:  # noqa: ANN401 (whatever JSON can hold)
    try:
        return load(line)
    except MalformedMessageError:
        raise InvalidEvaluationError([Violation(row_path(row), "is not JSON")]) from None


class _Rows:
    """Rows that are objects, as columns."""

    is_table = True

    def __init__(self, rows: Sequence[Mapping[str, Any]], first_row: int, columns: Columns) -> None:
        self._rows = rows
        self._first_row = first_row
        wanted = columns.names
        # A column that some rows have is missing in the others.
        self.names = wanted.intersection({name for each in rows for name in each})

    def array(self, wanted: Wanted) -> Array:
        """Return a column of numbers, or of nested lists of them."""
        name = wanted.column
        reading = Reading(lambda _: None)
        tensor = read_tensor(self._values(name), "", wanted.types, reading)
        if tensor is None:
            wrong = [self._named(each, name) for each in reading.violations]
            raise InvalidEvaluationError(list(self._uneven(name)) or wrong)
        return decode_tensor(tensor, name, detached=reading.detached[""])

    def _uneven(self, name: str) -> Iterator[Violation]:
        """Yield the first row whose list is not as long as that of the first row."""
        values = self._values(name)
        expected = _count(values[0])
        for row, each in enumerate(values):
            if (found := _count(each)) != expected:
                where = f"{row_path(self._first_row + row)}.{name}"
                yield Violation(where, f"has {found}; the first row of its batch has {expected}")
                return

    def column(self, name: str) -> Column:
        """Return a column of integers, bools or texts."""
        values = self._values(name)
        where = path("columns", name)
        try:
            column, nulls = column_of(values, where)
        except (TypeError, ValueError) as error:
            raise column_error(error, where) from None
        refuse_null(nulls, self._first_row, name)
        return column

    def _values(self, name: str) -> list[Any]:
        values = [each.get(name) for each in self._rows]
        for row, value in enumerate(values):
            if value is None:
                text = "is null" if name in self._rows[row] else "is missing"
                where = f"{row_path(self._first_row + row)}.{name}"
                raise InvalidEvaluationError([Violation(where, text)])
        return values

    def _named(self, violation: Violation, name: str) -> Violation:
        """Return a violation of a column's values with the path of its row."""
        match = _ROW.match(violation.field)
        if match is None:
            return Violation(path("columns", name), violation.description)
        row = row_path(self._first_row + int(match[1]))
        return Violation(f"{row}.{name}{violation.field[match.end() :]}", violation.description)


def _count(value: object) -> str:
    """Return how many values a row has, in words."""
    return f"{len(value)} values" if isinstance(value, list) else "no list"
