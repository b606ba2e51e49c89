"""Receives the messages of calls within the memory budget.

The size of a message is known only once it is there. A small one comes with the header of its
call, so that each call reads in one of a few slots, whose memory is set aside. What is not there
soon leaves its slot and reserves the memory of the largest message; if there is none, it ends.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from losswire.server import thresholds
from losswire.server.errors import OverloadedError
from losswire.server.event_loop import step_behind
from losswire.server.memory.budget import Budget, Kind, Reservation
from losswire.server.memory.patience import Interruptible, Patience, Sender, too_slow
from losswire.wire import LARGE_MESSAGE

_SHARE: Final = 8
"""The slots have one part in so many of the budget."""


class Slots:
    """The slots in which messages are read, and the calls that wait for one."""

    def __init__(self, budget: Budget, patience: Patience, message_bytes: int) -> None:
        """Set aside the memory of the slots; the largest message has `message_bytes`."""
        message_bytes = int(message_bytes * thresholds.COMING_COPIES)
        self._budget = budget
        self._patience = patience
        # A budget of less is for tests: its calls are refused by their price.
        self.message_bytes = min(message_bytes, budget.receive_limit_bytes)
        share = budget.limit_bytes // _SHARE
        fitting = share // max(1, message_bytes)
        self._free = min(max(fitting, thresholds.MIN_SLOTS), thresholds.MAX_SLOTS)
        budget.set_aside_bytes = min(self._free * message_bytes, share)
        self._reading: dict[_Reading, None] = {}
        """Those in slots, the oldest first."""
        self._turns: deque[tuple[float, asyncio.Future[None]]] = deque()
        """Who waits for a slot since when, the oldest first."""
        self._timer: asyncio.TimerHandle | None = None

    async def read(
        self,
        context: Any,  # noqa: ANN401 (gRPC's)
        reservation: Reservation,
        deadline: Callable[[], float],
    ) -> bytes | None:
        """Return the first message of a call; None when the caller ends without a whole one.

        Raises OverloadedError when there is no memory for it, and ExpiredError when it comes too
        slowly.
        """
        if self._free and not self._turns:
            self._free -= 1
        elif _is_large(context):
            # Who says so holds up nobody, and waits for memory before anything comes.
            step_behind()
            wanted = max(self.message_bytes, reservation.held_bytes)
            await reservation.grow_to(wanted, deadline(), Kind.RECEIVE)
            return await self._read_alone(context, reservation)
        else:
            await self._turn()
        reading = _Reading(reservation)
        self._reading[reading] = None
        if self._timer is None:
            self._arm()
        try:
            with reading:
                message: bytes | object = await context.read()
        finally:
            self._patience.stop(reading)
            self._leave(reading)
        return message if isinstance(message, bytes) else None

    async def _read_alone(
        self,
        context: Any,  # noqa: ANN401 (gRPC's)
        reservation: Reservation,
    ) -> bytes | None:
        """Read a message that memory is reserved for."""
        with Sender(self._patience, reservation):
            message: bytes | object = await context.read()
        return message if isinstance(message, bytes) else None

    async def _turn(self) -> None:
        """Wait for a slot; raises OverloadedError when that takes too long."""
        if self._timer is None:
            self._arm()
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._turns.append((time.monotonic(), turn))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                self._free_slot()
            raise

    def _leave(self, reading: "_Reading") -> None:
        """Leave the slot, if that did not happen before."""
        if reading in self._reading:
            del self._reading[reading]
            self._free_slot()

    def _free_slot(self) -> None:
        """Assign a slot to the next call."""
        while self._turns:
            _, turn = self._turns.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1

    def _arm(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(thresholds.SLOT_PRESSED_SECONDS, self._look)

    def _look(self) -> None:
        """Move on what has been in a slot for long, and shed who has waited for long."""
        self._timer = None
        now = time.monotonic()
        while self._turns and now - self._turns[0][0] > thresholds.ADMISSION_WAIT_SECONDS:
            _, turn = self._turns.popleft()
            if not turn.done():
                turn.set_exception(_no_memory())
        for reading in tuple(self._reading):
            is_pressed = bool(self._turns)
            seconds = now - reading.since
            if seconds >= (
                thresholds.SLOT_PRESSED_SECONDS if is_pressed else thresholds.SLOT_SECONDS
            ):
                self._move_on(reading, seconds, is_pressed=is_pressed)
        if self._reading or self._turns:
            self._arm()

    def _move_on(self, reading: "_Reading", seconds: float, *, is_pressed: bool) -> None:
        """Move a message that comes slowly out of its slot, with memory of its own."""
        reservation = reading.reservation
        self._patience.begin(reading)
        if reservation.try_to(self.message_bytes, Kind.RECEIVE):
            self._leave(reading)
        elif is_pressed:
            self._patience.press(self.message_bytes)
            if seconds > thresholds.SLOT_FULL_SECONDS:
                reading.interrupt(_no_memory())


class _Reading(Interruptible):
    """One message that comes."""

    __slots__ = ("moved_bytes", "reservation", "since")

    def __init__(self, reservation: Reservation) -> None:
        super().__init__()
        self.reservation = reservation
        self.since = time.monotonic()
        self.moved_bytes = 0

    def end(self, *, pressed: bool) -> None:
        """End the call: its message came too slowly."""
        self.interrupt(too_slow(pressed=pressed))


def _is_large(context: Any) -> bool:  # noqa: ANN401 (gRPC's)
    """Return whether the caller says that its message is large; it is not relied on."""
    return LARGE_MESSAGE in map(tuple, context.invocation_metadata())


def _no_memory() -> OverloadedError:
    message = "the server's memory for messages is in use by other calls"
    return OverloadedError(message, thresholds.BUDGET_RETRY_MS)
