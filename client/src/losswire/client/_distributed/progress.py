"""How far an evaluation in many parts is, for people and for programs."""

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeAlias

_LINE_SECONDS: Final = 0.2
"""The least time between two updates of the line."""
_BAR: Final = 24
"""The characters of the bar."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DistributedProgress:
    """How far an evaluation in many parts is: what the callable `progress` gets.

    Example:
        >>> str(DistributedProgress(partitions=3, total_partitions=4, rows=750, seconds=2.0))
        '[##################......] 3 of 4 partitions · 750 rows · 375 rows/s'
    """

    partitions: int
    """How many partitions are done, with those of states that are continued."""
    total_partitions: int
    """How many there are."""
    rows: int
    """How many rows those that were done by this call have."""
    seconds: float
    """The seconds since the beginning of the call."""

    def __str__(self) -> str:
        """Return it as a line for people, with a bar."""
        done = _BAR * self.partitions // max(1, self.total_partitions)
        speed = self.rows / self.seconds if self.seconds else 0.0
        return (
            f"[{'#' * done}{'.' * (_BAR - done)}] {self.partitions} of {self.total_partitions} "
            f"partitions · {self.rows:,} rows · {speed:,.0f} rows/s"
        )


ProgressInput: TypeAlias = bool | Callable[[DistributedProgress], object] | None
"""True: a bar on stderr where that is a terminal; a callable gets each progress; None or
False: nothing."""


class ProgressReport:
    """Counts what is done, and tells it."""

    def __init__(self, progress: ProgressInput, total: int, done: int) -> None:
        """Start the clock; `done` partitions of `total` are there already."""
        if not (progress is None or isinstance(progress, bool) or callable(progress)):
            raise TypeError(f"progress: expected a bool, None or a callable, got {progress!r}")
        self._line = progress is True and sys.stderr.isatty()
        self._call = progress if callable(progress) else None
        self._total = total
        self._done = done
        self._rows = 0
        self._started = time.monotonic()
        self._written = 0.0

    def add(self, rows: int) -> None:
        """Count a partition with some rows."""
        self._done += 1
        self._rows += rows
        now = time.monotonic()
        state = DistributedProgress(
            partitions=self._done,
            total_partitions=self._total,
            rows=self._rows,
            seconds=now - self._started,
        )
        if self._call is not None:
            self._call(state)
        if self._line and (now - self._written >= _LINE_SECONDS or self._done == self._total):
            self._written = now
            sys.stderr.write(f"\r{state}")
            sys.stderr.flush()

    def end(self) -> None:
        """Begin a new line after the bar."""
        if self._line and self._written:
            sys.stderr.write("\n")
