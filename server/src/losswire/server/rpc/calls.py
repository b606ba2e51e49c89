"""The calls of gRPC, each with one reservation of memory from its header until it is answered."""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from typing import Any

import grpc

from losswire.server import thresholds
from losswire.server.errors import IdleStreamError, MalformedMessageError, OverloadedError
from losswire.server.event_loop import step_behind
from losswire.server.identity.gatekeeper import Gatekeeper
from losswire.server.identity.principal import Principal
from losswire.server.memory.budget import Budget, Kind, Reservation
from losswire.server.memory.patience import Interruptible, Patience
from losswire.server.rpc.connections import end_connection
from losswire.server.rpc.receive import Slots

Context = grpc.aio.ServicerContext[Any, Any]


def admit(keeper: Gatekeeper, context: Context) -> Principal:
    """Return who calls; UnauthenticatedError."""
    authorization = ""
    for key, value in context.invocation_metadata() or ():
        if key == "authorization":
            authorization = str(value)

    def common_name() -> str:
        names: Any = context.auth_context().get("x509_common_name")
        return names[0].decode(errors="replace") if names else ""

    return keeper.admit(authorization, common_name)


class Gate:
    """What the calls of one server share: the budget, its slots, and the patience with callers."""

    def __init__(
        self,
        budget: Budget,
        patience: Patience,
        message_bytes: int,
        keeper: Gatekeeper | None = None,
    ) -> None:
        """Begin; `message_bytes` is the largest message, the `keeper` asks who calls."""
        self.keeper = keeper
        self.budget = budget
        self.patience = patience
        self.slots = Slots(budget, patience, message_bytes)
        self.message_bytes = message_bytes
        share = budget.limit_bytes // thresholds.STREAM_SHARE
        self.stream_bytes = min(message_bytes, share // thresholds.MIN_STREAMS)
        """What is held for a message that a stream may send: in a small budget, less than it."""
        self._free_streams = share // max(1, self.stream_bytes)

    @asynccontextmanager
    async def stream(self, reservation: Reservation, deadline: float) -> AsyncIterator[None]:
        """Open a stream, which may send a message at any time.

        Raises OverloadedError when too many are open, or when there is no memory for it.
        """
        if not self._free_streams:
            text = "too many streams are open; close some, or use Evaluate or EvaluateMany"
            raise OverloadedError(text, thresholds.STREAM_RETRY_MS)
        self._free_streams -= 1
        try:
            wanted = thresholds.CALL_BYTES + self.stream_bytes
            await reservation.grow_to(wanted, deadline, Kind.RECEIVE)
            yield
        finally:
            self._free_streams += 1


class Call:
    """One call: what its handler knows of it."""

    __slots__ = (
        "_gate",
        "context",
        "ended",
        "moved_bytes",
        "principal",
        "received_bytes",
        "reservation",
        "since",
    )

    def __init__(self, context: Context, gate: Gate) -> None:
        """Begin; the reservation is given back once gRPC has nothing more to do for the call."""
        self.context = context
        self._gate = gate
        self.principal: Principal | None = None
        """Who calls; None: nobody asks."""
        self.reservation = Reservation(gate.budget)
        self.received_bytes = 0
        """Of the messages that came."""
        self.ended = float("-inf")
        """When the messages ended, on the monotonic clock."""
        self.since = 0.0
        self.moved_bytes = 0
        done: Any = context.add_done_callback
        done(self._close)

    @property
    def largest_bytes(self) -> int:
        """The bytes of the largest message."""
        return self._gate.message_bytes

    def enter(self) -> None:
        """Ask who calls, and reserve the memory of any call.

        Raises UnauthenticatedError, OverloadedError.
        """
        if self._gate.keeper is not None:
            self.principal = admit(self._gate.keeper, self.context)
        self.reservation.raise_to(thresholds.CALL_BYTES, Kind.RECEIVE)

    def deadline(self) -> float:
        """Return when it has to be answered, on the monotonic clock."""
        left: float | None = self.context.time_remaining()
        return time.monotonic() + (thresholds.MAX_CALL_SECONDS if left is None else left)

    def stream_deadline(self) -> float:
        """Return when it ends at the latest, on the monotonic clock; infinite without a limit."""
        left: float | None = self.context.time_remaining()
        return float("inf") if left is None else time.monotonic() + left

    async def message(self) -> bytes:
        """Return the only message; MalformedMessageError without one, else as `Slots.read`."""
        message = await self.first()
        if message is None:
            # A call that was cancelled looks like one that ended; the cancellation follows.
            await asyncio.sleep(thresholds.CANCELLATION_SECONDS)
            text = "the call ended without a whole message"
            raise MalformedMessageError(text)
        return message

    async def first(self) -> bytes | None:
        """Return the first message, None when there is none; raises as `Slots.read` does."""
        message = await self._gate.slots.read(self.context, self.reservation, self.deadline)
        if message is None:
            return None
        size = len(message)
        self._count(size)
        extra = 0 if size <= thresholds.SMALL_MESSAGE_BYTES else size
        if extra or self.reservation.held_bytes > thresholds.CALL_BYTES:
            self.reservation.change_to(thresholds.CALL_BYTES + extra, Kind.RECEIVE)
        return message

    async def messages(self, reader: Callable[[bytes], Any]) -> AsyncGenerator[Any]:
        """Yield what a reader makes of each message.

        The first is read as `Slots.read` does; the reservation has room for the others.
        """
        first = await self.first()
        if first is not None:
            yield reader(first)
            del first
        read: Any = self.context.read
        while (message := await read()) is not grpc.aio.EOF:
            self._count(len(message))
            yield reader(message)
        self.ended = time.monotonic()

    def _count(self, size_bytes: int) -> None:
        """Count a message that came; a call with a large one is a bulk transfer."""
        self.received_bytes += size_bytes
        if size_bytes >= thresholds.BULK_BYTES:
            step_behind()

    async def items(
        self, reader: Callable[[bytes], Any]
    ) -> AsyncGenerator[tuple[Any, Reservation]]:
        """Yield what a reader makes of each message of a stream, which may stay open for long.

        Each comes with a reservation of its own; no further message is read before there is memory
        for it. Raises as `Gate.stream` does, and IdleStreamError after a long silence.
        """
        read: Any = self.context.read
        deadline = self.stream_deadline()
        self.since = time.monotonic()
        silence = Interruptible()
        with closing(_SilenceLimit(self, silence)):
            async with self._gate.stream(self.reservation, deadline):
                while True:
                    with silence:
                        message = await read()
                    if message is grpc.aio.EOF:
                        break
                    self.since = time.monotonic()
                    self.received_bytes += len(message)
                    item = Reservation(self._gate.budget)
                    try:
                        if len(message) > thresholds.SMALL_MESSAGE_BYTES:
                            size = min(len(message), self._gate.stream_bytes)
                            await _patiently(item, size, deadline)
                        yield reader(message), item
                    except BaseException:
                        item.close()
                        raise
        self.ended = time.monotonic()

    def sends(self, size_bytes: int) -> None:
        """Begin to wait until the caller has taken the only answer."""
        extra = size_bytes * thresholds.SENDING_COPIES
        if size_bytes <= thresholds.SMALL_MESSAGE_BYTES:
            extra = 0
        if extra or self.reservation.held_bytes > thresholds.CALL_BYTES:
            self.reservation.change_to(thresholds.CALL_BYTES + extra, Kind.ANSWER)
        self.waits(size_bytes)

    def waits(self, size_bytes: int) -> None:
        """Begin to wait until the caller has taken an answer."""
        self.since = time.monotonic()
        self.moved_bytes = size_bytes
        self._gate.patience.begin(self)

    def taken(self) -> None:
        """Note that the caller has taken an answer of many."""
        self._gate.patience.stop(self)

    def end(self, *, pressed: bool) -> None:
        """End the connection, because the caller does not take an answer."""
        del pressed
        end_connection(self.context.peer())

    def _close(self, context: object) -> None:
        del context
        self._gate.patience.stop(self)
        self.reservation.close()


Begin = Callable[[Any], Call]
"""Begins the call of a context."""


class _SilenceLimit:
    """Ends what reads a stream once its call was silent for long: for `since` at least.

    No function within a function, which would keep itself and the call until garbage collection.
    """

    def __init__(self, call: Call, reading: Interruptible) -> None:
        self._call = call
        self._reading = reading
        self._look()

    def _look(self) -> None:
        left = self._call.since + thresholds.MAX_SILENCE_SECONDS - time.monotonic()
        if left <= 0:
            self._reading.interrupt(IdleStreamError())
        self._timer = asyncio.get_running_loop().call_later(max(left, 1.0), self._look)

    def close(self) -> None:
        """Look no more."""
        self._timer.cancel()


async def _patiently(reservation: Reservation, size_bytes: int, deadline: float) -> None:
    """Wait for memory as long as the call may take: meanwhile nothing more is read of it."""
    while True:
        try:
            return await reservation.grow_to(size_bytes, deadline, Kind.RECEIVE)
        except OverloadedError:
            continue
