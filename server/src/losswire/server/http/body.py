"""The body of a request: read at a minimum rate, within a limit and the budget."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any, Protocol

from losswire.server.errors import LosswireServerError, OverLimitError
from losswire.server.http import limits
from losswire.server.memory.budget import Kind, Reservation
from losswire.server.memory.patience import Patience, Sender

Receive = Callable[[], Awaitable[Any]]
"""Returns the next message of a connection, as ASGI defines it."""


class Source(Protocol):
    """The connection that a body comes through."""

    def read_on(self) -> None:
        """Read more than the first bytes of the body, for which there is memory now."""

    async def linger(self) -> None:
        """Drop what still comes, for a moment."""


class CallerGoneError(Exception):
    """The caller closed the connection: nobody reads an answer."""


class Body:
    """The body of one request."""

    def __init__(
        self,
        receive: Receive,
        headers: Mapping[str, str],
        source: Source,
        patience: Patience,
        reservation: Reservation,
    ) -> None:
        """Read from `receive`; the header may declare the length."""
        self._receive = receive
        self._source = source
        self._patience = patience
        self._sender = Sender(patience, reservation)
        self.reservation = reservation
        """The call's, which holds what has come of the body."""
        self.headers = headers
        """The header fields of the request, in lower case."""
        declared = headers.get("content-length", "")
        self.declared_bytes: int | None = int(declared) if declared.isdecimal() else None
        self.received_bytes = 0
        self._taken_bytes = 0
        self._has_rows = False
        self._end = asyncio.Event()
        if not self.declared_bytes and "transfer-encoding" not in headers:
            self._end.set()

    @property
    def ended(self) -> bool:
        """Whether all of it was received, or there is none."""
        return self._end.is_set()

    @property
    def _counted_bytes(self) -> int:
        """The bytes for which the sender has time."""
        if not self._has_rows:
            return self.received_bytes
        rows = min(self.received_bytes - self._taken_bytes, limits.NDJSON_BLOCK_BYTES)
        return rows * limits.HTTP_ROWS_WEIGHT

    def take_rows(self) -> None:
        """Note that all rows that came are used: the next ones have a time of their own.

        A sender of rows is one who computes them, and so may be slower than another.
        """
        self._sender = Sender(self._patience, self.reservation)
        self._taken_bytes = self.received_bytes
        self._has_rows = True

    async def parts(self) -> AsyncIterator[bytes]:
        """Yield the body part by part, as it comes.

        Only the first bytes come at once: when more is asked for, there has to be memory for them.
        Raises CallerGoneError, ExpiredError when it comes more slowly than the minimum rate, and
        OverloadedError when others wait for the memory that it keeps meanwhile.
        """
        while not self.ended:
            if self.received_bytes >= limits.HTTP_FIRST_BYTES:
                self._source.read_on()
            with self._sender as sender:
                message = await self._receive()
            if message["type"] != "http.request":
                raise CallerGoneError
            part: bytes = message.get("body", b"")
            self.received_bytes += len(part)
            sender.moved_bytes = self._counted_bytes
            if not message.get("more_body", False):
                self._end.set()
            if part:
                yield part

    async def read(self, limit: int, deadline: float, copies: int = 1) -> bytearray:
        """Read all of it, once the reservation holds memory for `copies` of it.

        Raises OverLimitError for more than `limit` bytes, before they are read if they are
        declared, and as `Reservation.grow_to` and `parts` do.
        """
        check_size(self.declared_bytes or 0, limit)
        data = bytearray()
        before, room = self.reservation.held_bytes, limits.HTTP_FIRST_BYTES
        async for part in self.parts():
            size = len(data) + len(part)
            check_size(size, limit)
            # To declare much costs a caller nothing, and so it gets nothing for it.
            has_begun = size >= limits.HTTP_FIRST_BYTES
            if has_begun and max(size, self.declared_bytes or 0) > room:
                # Of an unknown size: a step at a time.
                room = self.declared_bytes or min(size + limits.HTTP_BODY_STEP_BYTES, limit)
                needed = before + grown_bytes(room) + (copies - 1) * room
                await self.reservation.grow_to(needed, deadline, Kind.RECEIVE)
            data += part
        return data

    async def discard(self) -> None:
        """Receive the rest of a short body that nobody reads: another request may follow."""
        rest = (self.declared_bytes or 0) - self.received_bytes
        if self.ended or "expect" in self.headers or rest > limits.HTTP_FIRST_BYTES:
            return
        with suppress(CallerGoneError, LosswireServerError, TimeoutError):
            async with asyncio.timeout(limits.HTTP_DISCARD_SECONDS):
                before = self.received_bytes
                async for _ in self.parts():
                    if self.received_bytes - before > limits.HTTP_FIRST_BYTES:
                        return

    async def linger(self) -> None:
        """Discard what still comes: who sends when the connection is closed may see no answer."""
        if not self.ended and "expect" not in self.headers:
            await self._source.linger()

    async def wait_gone(self) -> None:
        """Return when the caller is gone, which is seen only after the body was read."""
        await self._end.wait()
        while (await self._receive())["type"] != "http.disconnect":
            pass


def grown_bytes(size_bytes: int) -> int:
    """Return the memory that a body takes of which `size_bytes` have arrived.

    Growing leaves gaps in the heap, and buffers of the connection hold up to twice a read of it.
    """
    gaps = size_bytes // limits.HTTP_GROWTH_PART
    on_the_way = min(size_bytes, 2 * limits.HTTP_RECEIVE_BYTES)
    return size_bytes + gaps + on_the_way


def headers_of(raw: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """Return header fields by name, in lower case; of one that came twice, the last."""
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in raw}


def check_size(size_bytes: int, limit: int) -> None:
    """Raise OverLimitError for a body of more bytes than the limit."""
    if size_bytes > limit:
        message = f"the body is larger than {limit} bytes"
        raise OverLimitError(message)
