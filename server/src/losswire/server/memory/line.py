"""The line in which calls wait for memory: by age, without polling, and not for long."""

import asyncio
import time
from bisect import insort
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

from losswire.server import thresholds
from losswire.server.errors import ExpiredError, OverloadedError

BUDGET_IN_USE = (
    "the server's memory budget is in use by other calls, and by memory that is shared with "
    "callers (--region-quota-mib): come back later, or serve with a larger --memory-budget-mib"
)
"""The text for who finds no memory in time."""


class Kind(IntEnum):
    """What a call holds memory for; a later kind goes first, because it ends sooner."""

    RECEIVE = 0
    """A message that comes, or has come and was not priced yet."""
    COMPUTE = 1
    """An evaluation, with its message."""
    ANSWER = 2
    """An answer, until its caller has taken it."""


class Held(Protocol):
    """A reservation, as far as the line knows it."""

    age: int
    held_bytes: int
    kind: Kind

    def change_to(self, size_bytes: int, kind: Kind) -> None:
        """Have this size, for this purpose."""


Fits = Callable[[Held, int, Kind], bool]
"""Returns whether a reservation could have a size, for a purpose, now."""


@dataclass(slots=True, eq=False)
class _Waiter:
    """One reservation that waits to grow."""

    reservation: Held
    size_bytes: int
    kind: Kind
    since: float
    """When it began to wait, on the monotonic clock."""
    last: float
    """When it is shed at the latest."""
    granted: asyncio.Future[None]

    @property
    def order(self) -> tuple[int, int]:
        """Its place: later kinds first, and of one kind the oldest call."""
        return -self.kind, self.reservation.age

    @property
    def missing_bytes(self) -> int:
        """The bytes that it waits for."""
        return self.size_bytes - self.reservation.held_bytes


class Line:
    """The reservations that wait to grow, the next one first."""

    def __init__(self, fits: Fits) -> None:
        """Begin empty; `fits` says what can be granted now."""
        self._fits = fits
        self._waiting: list[_Waiter] = []
        self._is_waking = False

    def __len__(self) -> int:
        """Return how many wait."""
        return len(self._waiting)

    def missing_bytes(self, now: float) -> int:
        """Return the bytes that those wait for who have waited for long, all together."""
        return sum(
            each.missing_bytes
            for each in self._waiting
            if now - each.since > thresholds.PASS_SECONDS
        )

    def admits(self, reservation: Held, size_bytes: int, kind: Kind) -> bool:
        """Return whether one that does not wait may have this size now.

        A small one may pass those who wait, for a moment only; a tiny one always.
        """
        if not self._fits(reservation, size_bytes, kind):
            return False
        if not self._waiting:
            return True
        first = self._waiting[0]
        return (
            (-kind, reservation.age) < first.order
            or size_bytes - reservation.held_bytes <= thresholds.TINY_BYTES
            or time.monotonic() - first.since <= thresholds.PASS_SECONDS
        )

    async def wait(self, reservation: Held, size_bytes: int, kind: Kind, deadline: float) -> None:
        """Wait until a reservation has this size; raises as `Reservation.grow_to` does."""
        now = time.monotonic()
        if now >= deadline:
            message = "the deadline passed before there was memory for the call"
            raise ExpiredError(message)
        loop = asyncio.get_running_loop()
        seconds = min(thresholds.ADMISSION_WAIT_SECONDS, (deadline - now) / 2)
        waiter = _Waiter(
            reservation, size_bytes, kind, now, now + 2 * seconds, loop.create_future()
        )
        insort(self._waiting, waiter, key=lambda each: each.order)
        if len(self._waiting) > thresholds.MAX_WAITING:
            self._shed(max(self._waiting, key=_age))
        timer = loop.call_later(seconds, self._expire, waiter)
        try:
            await waiter.granted
        finally:
            timer.cancel()
            if waiter in self._waiting:
                self._waiting.remove(waiter)
                self.wake(time.monotonic())

    def wake(self, now: float) -> None:
        """Grant what fits, in order; smaller ones pass one that has not waited for long."""
        if self._is_waking:  # by what is granted: those who wait to receive are last
            return
        self._is_waking = True
        for each in tuple(self._waiting):
            if self._fits(each.reservation, each.size_bytes, each.kind):
                self._waiting.remove(each)
                each.reservation.change_to(each.size_bytes, each.kind)
                if not each.granted.done():
                    each.granted.set_result(None)
            elif now - each.since > thresholds.PASS_SECONDS:
                break
        self._is_waking = False

    def _expire(self, waiter: _Waiter) -> None:
        """Shed one that has waited for too long, or a younger one that holds what it waits for."""
        now = time.monotonic()
        holders = [
            each
            for each in self._waiting
            if each.reservation.age > waiter.reservation.age
            and each.reservation.held_bytes * thresholds.SHED_SHARE >= waiter.missing_bytes
        ]
        if not holders or now >= waiter.last:
            self._shed(waiter)
            return
        self._shed(max(holders, key=_age))
        loop = waiter.granted.get_loop()
        loop.call_later(thresholds.PASS_SECONDS, self._expire_again, waiter)

    def _expire_again(self, waiter: _Waiter) -> None:
        if waiter in self._waiting:
            self._expire(waiter)

    def _shed(self, waiter: _Waiter) -> None:
        if waiter in self._waiting:
            self._waiting.remove(waiter)
        if not waiter.granted.done():
            error = OverloadedError(BUDGET_IN_USE, thresholds.BUDGET_RETRY_MS)
            waiter.granted.set_exception(error)


def _age(waiter: _Waiter) -> int:
    return waiter.reservation.age
