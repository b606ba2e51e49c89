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

from losswire.server.memory.budget import Kind, Reservation
from losswire.server.rpc.calls import Gate
from losswire.server.rpc.request_id import new_request_id
from losswire.server.rpc.status import call_status, forget_frames
from losswire.server.rpc.streaming import drive_started
from losswire.wire import LEASE_HEADER

Answer = Callable[[bytes, Callable[[], float], Reservation], Awaitable[bytes | Message]]
"""Answers an EvaluateRequest by a deadline on the monotonic clock; raises its error."""

Respond = Callable[[bytes, float, Reservation], Coroutine[Any, Any, bytes]]
"""Answers a request by a deadline, with the bytes of its answer; raises nothing."""


class LeaseCalls(asyncio.Protocol):
    """Answers the requests of one connection, one after the other.

    A peer that sends more than one at once, or one that is too long, loses the connection,
    and with it the region. So does one that sends or takes too slowly: while a part of a request,
    or an answer, is kept for it, that counts in the memory budget.
    """

    def __init__(self, respond: Respond, max_request_bytes: int, gate: Gate) -> None:
        """Answer requests of at most this size by calling `respond`."""
        self._respond = respond
        self._max_request_bytes = max_request_bytes
        self._budget, self._patience = gate.budget, gate.patience
        self._received = bytearray()
        self._answering: asyncio.Task[None] | None = None
        self._is_sending = False
        self._finishing = False
        self.reservation = Reservation(gate.budget)
        """The memory of the request under way, and then of its answer."""
        self.since = 0.0
        self.moved_bytes = 0
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done when the connection has ended."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Store the transport, which tells when it has to keep a part of an answer."""
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=0)

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancel the request that is being answered."""
        del exc
        self._patience.stop(self)
        if self._answering is not None:
            self._answering.cancel()
        else:
            self.reservation.close()
        if not self.ended.done():
            self.ended.set_result(None)

    def data_received(self, data: bytes) -> None:
        """Append a part of a request, and answer it when it is complete."""
        received = self._received
        received += data
        if self._answering is not None or self._is_sending:
            # The next request comes after the whole answer: a peer that does not read its answers
            # would fill the server's memory with them.
            self._transport.abort()
            return
        if len(received) < LEASE_HEADER.size:
            self._wait(LEASE_HEADER.size, Kind.RECEIVE)
            return
        size, milliseconds = LEASE_HEADER.unpack_from(received)
        total = LEASE_HEADER.size + size
        if size > self._max_request_bytes or len(received) > total:
            self._transport.abort()
        elif len(received) < total:
            self._wait(total, Kind.RECEIVE)
        else:
            if self.moved_bytes:
                self._patience.stop(self)
                self.reservation.close()
            request = bytes(received[LEASE_HEADER.size :])
            received.clear()
            seconds = milliseconds / 1000 if milliseconds else float("inf")
            # A new one: who waits in line for memory is as old as the request.
            held = self.reservation = Reservation(self._budget)
            self._begin(self._respond(request, time.monotonic() + seconds, held))

    def _wait(self, size_bytes: int, kind: Kind) -> None:
        """Wait for the peer, who sends the rest of a request or takes that of an answer."""
        if size_bytes != self.moved_bytes or kind is not self.reservation.kind:
            self.since, self.moved_bytes = time.monotonic(), size_bytes
            self.reservation.change_to(size_bytes, kind)
            self._patience.begin(self)

    def pause_writing(self) -> None:
        """Count the part of an answer that the peer has not taken yet."""
        self._is_sending = True
        self._wait(self._transport.get_write_buffer_size(), Kind.ANSWER)

    def resume_writing(self) -> None:
        """Stop counting an answer that the peer has taken."""
        self._is_sending = False
        self._patience.stop(self)
        self.reservation.close()

    def end(self, *, pressed: bool) -> None:
        """End the connection, because the peer is too slow."""
        del pressed
        self._transport.abort()

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
            self.reservation.close()
            return
        finally:
            self._answering = None
        self._write(answer)

    def _write(self, answer: bytes) -> None:
        self.moved_bytes = 0
        self._transport.write(answer)
        if not self._is_sending and self.reservation.held_bytes:
            self.reservation.close()
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

    async def respond(request: bytes, deadline: float, reservation: Reservation) -> bytes:
        request_id = new_request_id()
        code = 0
        try:
            body = await answer(request, lambda: deadline, reservation)
        except Exception as error:  # noqa: BLE001 (the table decides)
            body = call_status(error, request_id)
            code = body.code
            forget_frames(error)
        data = body if isinstance(body, bytes) else body.SerializeToString()
        return LEASE_HEADER.pack(len(data), code) + data

    return respond
