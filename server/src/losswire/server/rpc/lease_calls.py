"""Evaluations that come over the connection by which a region is leased.

Where tensors lie in shared memory, most of a call is gRPC's own work. Here a request is its
length, the time it may take and an EvaluateRequest; its answer is a length, a code, and an
EvaluateResponse or a google.rpc.Status. What is between them is what answers Evaluate.
"""

import asyncio
import struct
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final, cast

from google.protobuf.message import Message

from losswire.server.errors import call_status, forget_frames
from losswire.server.rpc.request_id import new_request_id
from losswire.server.rpc.streaming import drive_started

HEADER: Final = struct.Struct("<II")
"""Of a request: how many bytes follow, and how many milliseconds it may take (0: any). Of an
answer: how many bytes follow, and the canonical code (0: an EvaluateResponse follows)."""

LONGEST_REQUEST: Final = 256 * 1024
"""The most bytes of a request; one with more is better sent by gRPC. Each connection may have as
many waiting, which no budget counts."""

Answer = Callable[[bytes, Callable[[], float]], Awaitable[bytes | Message]]
"""Answers an EvaluateRequest by a deadline on the monotonic clock; raises what is wrong."""


class LeaseCalls(asyncio.Protocol):
    """Answers what comes over one connection, one request after the other.

    Whoever sends more than one at once, or a longer one than is allowed, loses the connection,
    and with it the region.
    """

    def __init__(self, answer: Answer, longest: int) -> None:
        """Take what answers requests, and how long one may be."""
        self._answer = answer
        self._longest = longest
        self._received = bytearray()
        self._answering: asyncio.Task[None] | None = None
        self._finishing = False
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done when the connection is."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """End: nobody waits for what has not begun."""
        del exc
        if self._answering is not None:
            self._answering.cancel()
        if not self.ended.done():
            self.ended.set_result(None)

    def data_received(self, data: bytes) -> None:
        """Take a part of a request, and answer it when it is whole."""
        received = self._received
        received += data
        if self._answering is not None:
            self._transport.abort()
            return
        if len(received) < HEADER.size:
            return
        size, milliseconds = HEADER.unpack_from(received)
        whole = HEADER.size + size
        if size > self._longest or len(received) > whole:
            self._transport.abort()
        elif len(received) == whole:
            request = bytes(received[HEADER.size :])
            received.clear()
            seconds = milliseconds / 1000 if milliseconds else float("inf")
            self._begin(self._respond(request, time.monotonic() + seconds))

    def _begin(self, responding: Coroutine[Any, Any, bytes]) -> None:
        """Answer at once what need not wait for anything: a task of its own would cost more."""
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
            # The connection is lost. The task would keep the error, the error the frames and
            # what they hold of the region, and the frames this object, which has the task.
            return
        finally:
            self._answering = None
        self._write(answer)

    def _write(self, answer: bytes) -> None:
        self._transport.write(answer)
        if self._finishing:
            self._transport.close()

    async def _respond(self, request: bytes, deadline: float) -> bytes:
        request_id = new_request_id()
        code = 0
        try:
            answer = await self._answer(request, lambda: deadline)
        except Exception as error:  # noqa: BLE001 (the table decides)
            answer = call_status(error, request_id)
            code = answer.code
            forget_frames(error)
        body = answer if isinstance(answer, bytes) else answer.SerializeToString()
        return HEADER.pack(len(body), code) + body

    def finish(self) -> None:
        """End the connection, after the answer that is due."""
        self._finishing = True
        if self._answering is None:
            self._transport.close()

    def abort(self) -> None:
        """End the connection now."""
        self._transport.abort()
