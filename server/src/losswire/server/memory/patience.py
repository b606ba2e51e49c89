"""Ends the patience with peers who hold memory while they send, or take, too slowly.

All wait under one rule: a grace, and time for the bytes that have come or have to go. While
others wait for memory, it is a shorter one, and the slowest are ended first.
"""

import asyncio
import time
from types import TracebackType
from typing import Protocol, Self

from losswire.server import thresholds
from losswire.server.errors import ExpiredError, OverloadedError
from losswire.server.memory.budget import Budget, Reservation


class Peer(Protocol):
    """Who holds memory while the server waits for it."""

    reservation: Reservation
    since: float
    """When the server began to wait, on the monotonic clock."""
    moved_bytes: int
    """The bytes that have come, or that have to go."""

    def end(self, *, pressed: bool) -> None:
        """End it; `pressed`: because others wait for memory."""


class Patience:
    """The peers of one server, looked at from time to time. Belongs to the event loop."""

    def __init__(self, budget: Budget) -> None:
        """Begin without any."""
        self._budget = budget
        self._peers: dict[Peer, None] = {}
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, peer: Peer) -> None:
        """Wait for a peer from now on."""
        self._peers[peer] = None
        if self._timer is None:
            self._arm()

    def stop(self, peer: Peer) -> None:
        """Wait for a peer no longer; it need not be known."""
        self._peers.pop(peer, None)

    def press(self, missing_bytes: int) -> None:
        """End the slowest peers, until they have held that many bytes."""
        now = time.monotonic()
        late = {each: _late_by(each, now, pressed=True) for each in self._peers}
        for each in sorted(late, key=late.__getitem__, reverse=True):
            if missing_bytes <= 0 or late[each] <= 0:
                break
            missing_bytes -= each.reservation.held_bytes
            self._end(each, pressed=True)

    def _arm(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(thresholds.PATIENCE_STEP_SECONDS, self._look)

    def _look(self) -> None:
        """End who is too slow."""
        self._timer = None
        now = time.monotonic()
        for each in [each for each in self._peers if _late_by(each, now, pressed=False) > 0]:
            self._end(each, pressed=False)
        if missing_bytes := self._budget.line.missing_bytes(now):
            self.press(missing_bytes)
        if self._peers:
            self._arm()

    def _end(self, peer: Peer, *, pressed: bool) -> None:
        self.stop(peer)
        peer.end(pressed=pressed)


def _late_by(peer: Peer, now: float, *, pressed: bool) -> float:
    """Return for how many seconds a peer has been too slow."""
    if pressed:
        allowed = (
            thresholds.PRESSED_GRACE_SECONDS
            + peer.moved_bytes / thresholds.PRESSED_BYTES_PER_SECOND
        )
    else:
        allowed = thresholds.GRACE_SECONDS + peer.moved_bytes / thresholds.BYTES_PER_SECOND
    return now - peer.since - allowed


class Interruptible:
    """A context whose waiting can be ended by an error, on the event loop."""

    __slots__ = ("_cancelling", "_error", "_task")

    def __init__(self) -> None:
        """Begin outside of the context."""
        self._error: Exception | None = None
        self._task: asyncio.Task[object] | None = None
        self._cancelling = 0

    def __enter__(self) -> Self:
        task = self._task = asyncio.current_task()
        if task is not None:
            self._cancelling = task.cancelling()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        task, self._task = self._task, None
        if self._error is None or task is None:
            return
        if task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise self._error from None

    def interrupt(self, error: Exception) -> None:
        """Raise an error in what waits in the context; does nothing outside of it."""
        if self._task is not None and self._error is None:
            self._error = error
            self._task.cancel()


class Sender(Interruptible):
    """The sender of a call whose message or parts come; one who is too slow is ended."""

    __slots__ = ("_patience", "_waited", "moved_bytes", "reservation", "since")

    def __init__(self, patience: Patience, reservation: Reservation) -> None:
        """Begin to wait for nothing yet."""
        super().__init__()
        self._patience = patience
        self._waited = 0.0
        self.reservation = reservation
        self.since = 0.0
        self.moved_bytes = 0

    def __enter__(self) -> Self:
        """Wait for the sender in this context; time outside of it does not count."""
        self.since = time.monotonic() - self._waited
        self._patience.begin(self)
        return super().__enter__()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._patience.stop(self)
        self._waited = time.monotonic() - self.since
        super().__exit__(kind, error, trace)

    def end(self, *, pressed: bool) -> None:
        """End the call: nothing comes, or too slowly."""
        self.interrupt(too_slow(pressed=pressed))


def too_slow(*, pressed: bool) -> Exception:
    """Return the error of a sender who is too slow; `pressed`: while others wait for memory."""
    if pressed:
        message = "the message came slowly while other calls waited for memory"
        return OverloadedError(message, thresholds.BUDGET_RETRY_MS)
    return ExpiredError("the message did not arrive in time, or too slowly")
