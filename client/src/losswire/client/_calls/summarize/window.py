"""The batches of a call that no report covers yet: what another call would have to send again."""

import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from losswire.client._calls.summarize.encode import Message
from losswire.client._calls.summarize.ring import Placed
from losswire.client._messages import thresholds


@dataclass(slots=True)
class Sent:
    """One message that was sent."""

    message: Message
    rows: int
    nbytes: int
    """The bytes that are kept of it, here or in shared memory."""
    placed: Placed | None = None
    """Its batch, where that is in shared memory."""


@dataclass(slots=True)
class Window:
    """Messages in the order in which they were sent, bounded by their bytes and their number."""

    largest_gap: int = thresholds.SUMMARY_WINDOW_BYTES // 8 * 7
    """The most bytes between two messages that ask for a report."""
    nbytes: int = 0
    """The bytes of all of them."""
    _sent: deque[Sent] = field(default_factory=deque)
    _unreported_bytes: int = 0
    """The bytes behind the last message that asks for a report."""
    _unreported: int = 0
    _asked: float = field(default_factory=time.monotonic)
    _report_bytes: int = 0
    """The size of the last report."""

    def __iter__(self) -> Iterator[Sent]:
        return iter(self._sent)

    def __len__(self) -> int:
        return len(self._sent)

    @property
    def has_room(self) -> bool:
        """Whether another message may be sent before a report comes."""
        return (
            self.nbytes < thresholds.SUMMARY_WINDOW_BYTES
            and len(self._sent) < thresholds.SUMMARY_WINDOW_BATCHES
        )

    def wants_report(self, nbytes: int) -> bool:
        """Return whether a message of about some bytes should ask for a report.

        The larger the last report was, the fewer are asked for: one of thousands of slices takes
        as long as many batches.
        """
        every = max(thresholds.SUMMARY_REPORT_BYTES, 16 * self._report_bytes)
        seconds = thresholds.SUMMARY_REPORT_SECONDS * (1 + self._report_bytes / (1 << 20))
        return (
            self._unreported_bytes + nbytes >= min(every, self.largest_gap)
            or self._unreported + 1 >= thresholds.SUMMARY_WINDOW_BATCHES // 4
            or time.monotonic() - self._asked >= seconds
        )

    def add(self, sent: Sent, *, asks: bool) -> None:
        """Add a message; `asks`: whether it asks for a report."""
        self._sent.append(sent)
        self.nbytes += sent.nbytes
        self._unreported_bytes += sent.nbytes
        self._unreported += 1
        if asks:
            self._unreported_bytes = self._unreported = 0
            self._asked = time.monotonic()

    def cover(self, count: int, report_bytes: int, free: Callable[[], None]) -> int:
        """Drop the first messages, which a report of some bytes covers; returns their rows.

        `free` is called for each whose batch is in shared memory.
        """
        self._report_bytes = report_bytes
        rows = 0
        for _ in range(count):
            sent = self._sent.popleft()
            self.nbytes -= sent.nbytes
            rows += sent.rows
            if sent.placed is not None:
                free()
        return rows
