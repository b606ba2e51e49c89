"""Evaluations over the connection by which a region is leased.

With tensors in shared memory, most of a call is gRPC's own work. Here a request is its length,
its time limit and an EvaluateRequest; its answer is a length, a code, and an EvaluateResponse or a
google.rpc.Status. The handler of Evaluate answers it.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, cast

from google.protobuf.message import Message

from losswire.server.rpc.request_id import new_request_id
from losswire.server.rpc.status import call_status, forget_frames
from losswire.server.rpc.streaming import drive_started
from losswire.wire import LEASE_HEADER

Answer = Callable[[bytes, Callable[[], float]], Awaitable[bytes | Message]]
"""Answers an EvaluateRequest by a deadline on the monotonic clock; raises its error."""

Respond = Callable[[bytes, float], Coroutine[Any, Any, bytes]]
"""Answers a request by a deadline, with the bytes of its answer; raises nothing."""


class LeaseCalls(asyncio.Protocol):
    """Answers the requests of one connection, one after the other.

    A peer that sends more than one at once, or one that is too long, loses the connection,
    and with it the region.
    """

    def __init__(self, respond: Respond, max_request_bytes: int) -> None:
        """Answer requests of at most this size by calling `respond`."""
        self._respond = respond
        self._max_request_bytes = max_request_bytes
        self._received = bytearray()
        self._answering: asyncio.Task[None] | None = None
        self._finishing = False
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done when the connection has ended."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Store the transport."""
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancel the request that is being answered."""
        del exc
        if self._answering is not None:
            self._answering.cancel()
        if not self.ended.done():
            self.ended.set_result(None)

    def data_received(self, data: bytes) -> None:
        """Append a part of a request, and answer it when it is complete."""
        received = self._received
        received += data
        if self._answering is not None or self._transport.get_write_buffer_size():
            # The next request comes after the whole answer: a peer that does not read its answers
            # would fill the server's memory with them.
            self._transport.abort()
            return
        if len(received) < LEASE_HEADER.size:
            return
        size, milliseconds = LEASE_HEADER.unpack_from(received)
        total = LEASE_HEADER.size + size
        if size > self._max_request_bytes or len(received) > total:
            self._transport.abort()
        elif len(received) == total:
            request = bytes(received[LEASE_HEADER.size :])
            received.clear()
            seconds = milliseconds / 1000 if milliseconds else float("inf")
            self._begin(self._respond(request, time.monotonic() + seconds))

    def _begin(self, responding: Coroutine[Any, Any, bytes]) -> None:
        """Answer a request that waits for nothing without a task, which would cost more."""
        try:
            awaited = responding.send(None)
        except StopIteration as done:
            self._write(done.value)
        else:
            self._answering = asyncio.create_task(self._write_later(responding, awaited))

    async def _write_later(self, responding: Coroutine[Any, Any, bytes], awaited: object) -> None:
        try:
            answer = await drive_started(responding, awaited)
        except asyncio.CancelledError:
            # The connection is lost. Raised, the error would form a reference cycle of task, error,
            # frames and this object, which would keep the region's memory.
            return
        finally:
            self._answering = None
        self._write(answer)

    def _write(self, answer: bytes) -> None:
        self._transport.write(answer)
        if self._finishing:
            self._transport.close()

    def finish(self) -> None:
        """End the connection, after the answer to the current request."""
        self._finishing = True
        if self._answering is None:
            self._transport.close()

    def abort(self) -> None:
        """End the connection now."""
        self._transport.abort()


def responder(answer: Answer) -> Respond:
    """Return what answers requests by a handler, or by the status of its error."""

    async def respond(request: bytes, deadline: float) -> bytes:
        request_id = new_request_id()
        code = 0
        try:
            body = await answer(request, lambda: deadline)
        except Exception as error:  # noqa: BLE001 (the table decides)
            body = call_status(error, request_id)
            code = body.code
            forget_frames(error)
        data = body if isinstance(body, bytes) else body.SerializeToString()
        return LEASE_HEADER.pack(len(data), code) + data

    return respond
