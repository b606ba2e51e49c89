"""The body of a request: read at a minimum rate, within a limit and the budget."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any

from losswire.server.errors import ExpiredError, OverLimitError
from losswire.server.http import limits
from losswire.server.memory.budget import Reservation

Receive = Callable[[], Awaitable[Any]]
"""Returns the next message of a connection, as ASGI defines it."""


class CallerGoneError(Exception):
    """The caller closed the connection: nobody reads an answer."""


class Body:
    """The body of one request."""

    def __init__(self, receive: Receive, headers: Mapping[str, str]) -> None:
        """Read from `receive`; the header may declare the length."""
        self._receive = receive
        self.headers = headers
        """The header fields of the request, in lower case."""
        declared = headers.get("content-length", "")
        self.declared_bytes: int | None = int(declared) if declared.isdecimal() else None
        self.received_bytes = 0
        self._end = asyncio.Event()
        if not self.declared_bytes and "transfer-encoding" not in headers:
            self._end.set()

    @property
    def ended(self) -> bool:
        """Whether all of it was received, or there is none."""
        return self._end.is_set()

    async def parts(self) -> AsyncIterator[bytes]:
        """Yield the body part by part, as it comes.

        Raises ExpiredError when it comes more slowly than the minimum rate, and CallerGoneError.
        """
        clock = asyncio.get_running_loop().time
        waited = 0.0
        while not self.ended:
            began = clock()
            part, more = await self._next(waited)
            # Only the time in which this waits for the caller counts.
            waited += clock() - began
            self.received_bytes += len(part)
            if not more:
                self._end.set()
            if part:
                yield part

    async def _next(self, waited: float) -> tuple[bytes, bool]:
        """Return the next part, and whether more follow."""
        allowed = limits.HTTP_BODY_GRACE_SECONDS
        allowed += self.received_bytes / limits.HTTP_BODY_BYTES_PER_SECOND
        patience = min(allowed - waited, limits.HTTP_BODY_IDLE_SECONDS)
        try:
            async with asyncio.timeout(patience):
                message = await self._receive()
        except TimeoutError:
            rate = limits.HTTP_BODY_BYTES_PER_SECOND
            text = f"the body did not arrive in time; at least {rate} bytes a second are expected"
            raise ExpiredError(text) from None
        if message["type"] != "http.request":
            raise CallerGoneError
        return message.get("body", b""), message.get("more_body", False)

    async def read(self, limit: int, reservation: Reservation) -> bytearray:
        """Read all of it, which the reservation holds.

        Raises OverLimitError for more than `limit` bytes, before they are read if they are
        declared.
        """
        check_size(self.declared_bytes or 0, limit)
        data = bytearray()
        async for part in self.parts():
            check_size(len(data) + len(part), limit)
            # Not the declared size at once: to declare much costs a caller nothing.
            reservation.raise_to(grown_bytes(len(data) + len(part)))
            data += part
        return data

    async def discard(self) -> None:
        """Receive the rest of a body that nobody reads, if it comes soon.

        Who still sends when the connection is closed may not see the answer.
        """
        if self.ended or "expect" in self.headers:
            return
        with suppress(CallerGoneError, ExpiredError, TimeoutError):
            async with asyncio.timeout(limits.HTTP_DISCARD_SECONDS):
                async for _ in self.parts():
                    pass

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
