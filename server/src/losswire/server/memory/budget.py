"""The memory budget: how many bytes all calls together may hold, and what each holds of it."""

import time
from contextlib import AbstractContextManager, nullcontext
from typing import Self

from losswire.server import thresholds
from losswire.server.errors import OverLimitError, OverloadedError
from losswire.server.memory.line import BUDGET_IN_USE, Held, Kind, Line

__all__ = ["Budget", "Kind", "Reservation"]


class Budget:
    """A limit in bytes and the bytes reserved of it. Belongs to the event loop."""

    def __init__(self, limit_bytes: int) -> None:
        """Begin with nothing reserved."""
        self.limit_bytes = limit_bytes
        self.reserved_bytes = 0
        self.by_kind = [0] * len(Kind)
        """The reserved bytes of each kind; their sum."""
        self.set_aside_bytes = 0
        """Bytes that only messages on their way take: others leave them free, unless they are
        alone."""
        self.line = Line(self._fits)
        self._calls = 0

    @property
    def free_bytes(self) -> int:
        """The bytes that are not reserved now."""
        return self.limit_bytes - self.set_aside_bytes - self.reserved_bytes

    @property
    def receive_limit_bytes(self) -> int:
        """The bytes that messages may take which come: what was received can be computed."""
        return self.limit_bytes // thresholds.RECEIVE_SHARE

    def check(self, size_bytes: int) -> None:
        """Raise OverLimitError for a size that can never fit."""
        if size_bytes > self.limit_bytes:
            message = (
                f"this takes about {size_bytes} bytes; "
                f"the server's memory budget is {self.limit_bytes} (--memory-budget-mib)"
            )
            raise OverLimitError(message)

    def hold(self, size_bytes: int, kind: Kind = Kind.COMPUTE) -> "Reservation":
        """Reserve some bytes until the reservation's context ends.

        Raises OverLimitError when they can never fit, and OverloadedError when they
        do not fit now.
        """
        reservation = Reservation(self)
        reservation.raise_to(size_bytes, kind)
        return reservation

    def reservation(self) -> "Reservation":
        """Return a reservation of no bytes, which can grow. One call has one of them."""
        return Reservation(self)

    def join(self, reservation: "Reservation | None") -> AbstractContextManager["Reservation"]:
        """Return a context with a call's own reservation, or with a new one that ends with it."""
        return Reservation(self) if reservation is None else nullcontext(reservation)

    def next_age(self) -> int:
        """Count a call; those with lower numbers are older."""
        self._calls += 1
        return self._calls

    def _fits(self, reservation: Held, size_bytes: int, kind: Kind) -> bool:
        """Return whether a reservation could have this size now."""
        held = reservation.held_bytes
        if size_bytes - held > self.free_bytes and not (
            self.reserved_bytes == held and size_bytes <= self.limit_bytes
        ):
            return False
        if kind is not Kind.RECEIVE:
            return True
        receiving = self.by_kind[Kind.RECEIVE]
        if reservation.kind is Kind.RECEIVE:
            receiving -= held
        return not receiving or receiving + size_bytes <= self.receive_limit_bytes


class Reservation:
    """The bytes that one call holds of a budget until its context ends.

    It moves through the kinds: each may need more bytes than the one before, or fewer.
    """

    __slots__ = ("_budget", "_is_closed", "age", "held_bytes", "kind")

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self.age = budget.next_age()
        """The number of its call, by which it waits: the oldest first."""
        self.held_bytes = 0
        self.kind = Kind.RECEIVE
        self._is_closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    @property
    def limit_bytes(self) -> int:
        """The most bytes that it can ever have."""
        return self._budget.limit_bytes

    def check(self, size_bytes: int) -> None:
        """Raise OverLimitError for a size that it can never have."""
        self._budget.check(size_bytes)

    def close(self) -> None:
        """Release all bytes, for good; may be called again."""
        self.change_to(0, self.kind)
        self._is_closed = True

    def raise_to(self, size_bytes: int, kind: Kind = Kind.COMPUTE) -> None:
        """Grow to at least this size now, or keep it, for this purpose.

        Raises OverLimitError when it can never fit and OverloadedError when it does
        not fit now; the bytes held before stay held.
        """
        if not self.try_to(size_bytes, kind):
            raise OverloadedError(BUDGET_IN_USE, thresholds.BUDGET_RETRY_MS)

    def try_to(self, size_bytes: int, kind: Kind = Kind.COMPUTE) -> bool:
        """Grow to at least this size, if it fits now and nobody is passed who waits for long.

        Raises OverLimitError when it can never fit.
        """
        size_bytes = max(size_bytes, self.held_bytes)
        if size_bytes > self.held_bytes:
            budget = self._budget
            budget.check(size_bytes)
            if not budget.line.admits(self, size_bytes, kind):
                return False
        self.change_to(size_bytes, kind)
        return True

    async def grow_to(self, size_bytes: int, deadline: float, kind: Kind = Kind.COMPUTE) -> None:
        """Wait in line until it has at least this size.

        `deadline` is the call's, on the monotonic clock. Raises OverLimitError when it can never
        fit, OverloadedError when it waited for too long, and ExpiredError at the deadline.
        """
        if not self.try_to(size_bytes, kind):
            await self._budget.line.wait(self, size_bytes, kind, deadline)

    def change_to(self, size_bytes: int, kind: Kind) -> None:
        """Have this size, for memory that is there already, or that is given back.

        Does nothing after the call has ended, which a part of it may not have heard of.
        """
        if self._is_closed:
            return
        budget, held = self._budget, self.held_bytes
        budget.by_kind[self.kind] -= held
        budget.by_kind[kind] += size_bytes
        budget.reserved_bytes += size_bytes - held
        is_freed = size_bytes < held or (kind is not self.kind)
        self.held_bytes, self.kind = size_bytes, kind
        if is_freed and len(budget.line):
            budget.line.wake(time.monotonic())
