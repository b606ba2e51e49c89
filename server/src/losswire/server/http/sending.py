"""Sends answers; a caller who does not read is cut."""

import logging
import time
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Mapping,
    MutableMapping,
    Sequence,
)
from contextlib import AsyncExitStack, aclosing
from typing import Any, Final

from losswire.server.http import limits
from losswire.server.http.answer import Answer, Buffer
from losswire.server.http.body import CallerGoneError
from losswire.server.memory.budget import Reservation
from losswire.server.memory.patience import Interruptible, Patience

_log = logging.getLogger(__name__)

Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
"""Sends a message over a connection, as ASGI defines it."""

_ALWAYS: Final[Mapping[str, str]] = {
    "x-content-type-options": "nosniff",
    "cache-control": "no-store",
}
"""Header fields of every answer that does not set them itself."""

_WITHOUT_BODY: Final = (204, 304)


class CutError(Exception):
    """An answer that cannot be sent to its end: the connection has to be cut."""


class Reader(Interruptible):
    """The caller who reads an answer; one who reads too slowly is cut."""

    def __init__(self, patience: Patience, reservation: Reservation) -> None:
        """Begin to wait for nothing yet; the reservation holds the answer."""
        super().__init__()
        self._patience = patience
        self._waited = 0.0
        self.reservation = reservation
        self.since = 0.0
        self.moved_bytes = 0

    async def take(self, send: Send, message: MutableMapping[str, Any]) -> None:
        """Send a message and wait until it has left; CutError when that takes too long."""
        self.moved_bytes += len(message.get("body", b""))
        self.since = time.monotonic() - self._waited
        self._patience.begin(self)
        try:
            with self:
                await send(message)
                if message.get("more_body", False):
                    # Sends nothing, once what was sent has left.
                    await send({"type": _BODY, "body": b"", "more_body": True})
        finally:
            self._patience.stop(self)
            self._waited = time.monotonic() - self.since

    def end(self, *, pressed: bool) -> None:
        """Cut the connection."""
        del pressed
        self.interrupt(CutError())


async def _nothing() -> None:
    """Do nothing."""


async def send_answer(
    answer: Answer,
    send: Send,
    request_id: str,
    reader: Reader,
    *,
    keeps_alive: bool,
    before_end: Callable[[], Awaitable[None]] = _nothing,
) -> None:
    """Send an answer; CutError when the caller does not read it, or its parts fail to come.

    What makes the parts is closed in any case, also when none was sent. `before_end` is called when
    all but the end was sent.
    """
    try:
        async with AsyncExitStack() as closing:
            if isinstance(answer.body, AsyncGenerator):
                await closing.enter_async_context(aclosing(answer.body))
            await reader.take(send, _start(answer, request_id, keeps_alive=keeps_alive))
            async with aclosing(_slices(answer.body)) as slices:
                async for each in slices:
                    await reader.take(send, {"type": _BODY, "body": each, "more_body": True})
        await before_end()
        await reader.take(send, {"type": _BODY, "body": b"", "more_body": False})
    except CutError:
        raise
    except CallerGoneError:
        raise CutError from None
    except Exception as error:
        # The status was sent: only a connection that ends shows that this is not the whole.
        _log.exception("request %s failed", request_id)
        raise CutError from error


_BODY: Final = "http.response.body"


def _start(answer: Answer, request_id: str, *, keeps_alive: bool) -> MutableMapping[str, Any]:
    """Return the message that begins an answer."""
    headers = {**_ALWAYS, **answer.headers, "content-type": answer.media_type}
    headers["x-request-id"] = request_id
    if answer.size_bytes is not None and answer.status not in _WITHOUT_BODY:
        headers["content-length"] = str(answer.size_bytes)
    if not keeps_alive:
        headers["connection"] = "close"
    encoded = [(name.encode("latin-1"), text.encode("latin-1")) for name, text in headers.items()]
    return {"type": "http.response.start", "status": answer.status, "headers": encoded}


async def _slices(
    body: Sequence[Buffer] | AsyncIterator[Buffer],
) -> AsyncGenerator[memoryview]:
    """Yield a body in slices, each of which has to be read before the next is written."""
    if isinstance(body, AsyncIterator):
        async for part in body:
            yield memoryview(part)
        return
    size = limits.HTTP_SEND_BYTES
    for part in body:
        view = memoryview(part).cast("B")
        for start in range(0, len(view), size):
            yield view[start : start + size]


def unsent_bytes(size_bytes: int) -> int:
    """Return the memory that an answer takes until it has left, with what is on its way."""
    return size_bytes + min(size_bytes, 2 * limits.HTTP_SEND_BYTES)
