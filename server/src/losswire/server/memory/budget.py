"""The memory budget: how many bytes all calls together may hold."""

from typing import Self

from losswire.server import thresholds
from losswire.server.errors import OverLimitError, OverloadedError


class Budget:
    """A limit in bytes and the bytes reserved of it. Belongs to the event loop."""

    def __init__(self, limit_bytes: int) -> None:
        """Begin with nothing reserved."""
        self.limit_bytes = limit_bytes
        self.reserved_bytes = 0

    @property
    def free_bytes(self) -> int:
        """The bytes that are not reserved now."""
        return self.limit_bytes - self.reserved_bytes

    def check(self, size_bytes: int) -> None:
        """Raise OverLimitError for a size that can never fit."""
        if size_bytes > self.limit_bytes:
            message = (
                f"this takes about {size_bytes} bytes; "
                f"the server's memory budget is {self.limit_bytes}"
            )
            raise OverLimitError(message)

    def hold(self, size_bytes: int) -> "Reservation":
        """Reserve some bytes until the reservation's context ends.

        Raises OverLimitError when they can never fit, and OverloadedError when they
        do not fit now.
        """
        reservation = Reservation(self)
        reservation.raise_to(size_bytes)
        return reservation

    def reservation(self) -> "Reservation":
        """Return a reservation of no bytes, which can grow."""
        return Reservation(self)


class Reservation:
    """The bytes that one call holds of a budget until its context ends; it may grow."""

    __slots__ = ("_budget", "held_bytes")

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self.held_bytes = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._budget.reserved_bytes -= self.held_bytes
        self.held_bytes = 0

    def raise_to(self, size_bytes: int) -> None:
        """Grow to at least this size.

        Raises OverLimitError when it can never fit and OverloadedError when it does
        not fit now; the bytes held before stay held.
        """
        budget, more = self._budget, size_bytes - self.held_bytes
        if more <= 0:
            return
        budget.check(size_bytes)
        if more > budget.free_bytes:
            message = "the server's memory budget is in use by other evaluations"
            raise OverloadedError(message, thresholds.BUDGET_RETRY_MS)
        budget.reserved_bytes += more
        self.held_bytes = size_bytes
