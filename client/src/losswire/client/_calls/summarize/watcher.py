"""Tells the caller of a summary how far it is."""

import sys
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Final, Self, TypeAlias

from losswire.client._summaries.progress import SummaryProgress
from losswire.v1 import summary_pb2

ProgressInput: TypeAlias = bool | Callable[[SummaryProgress], object] | None
"""True: one line on the terminal; a callable gets each progress; None or False: nothing."""

_LINE_SECONDS: Final = 0.2
"""The least time between two updates of the line."""


class Watcher:
    """Calls the caller's callbacks, or writes one line on stderr that is kept up to date."""

    def __init__(
        self,
        progress: ProgressInput,
        on_report: Callable[[summary_pb2.LossSummary], object] | None,
        rows_before: int,
        *,
        has_clusters: bool = False,
    ) -> None:
        """Start the clock; `rows_before` are the rows of the summary that is continued."""
        self.total_rows: int | None = None
        """How many rows there are, where this is known."""
        self._line = _Line() if progress is True and sys.stderr.isatty() else None
        self._progress = progress if callable(progress) else self._line
        self._on_report = on_report
        self._rows_before = rows_before
        self._has_clusters = has_clusters
        self._started = time.monotonic()

    def progress(self, rows: int, means: Sequence[float], errors: Sequence[float]) -> None:
        """Report the number of rows that are counted."""
        if self._progress is None:
            return
        seconds = time.monotonic() - self._started
        self._progress(
            SummaryProgress(
                rows=rows,
                total_rows=self.total_rows,
                seconds=seconds,
                rows_per_second=(rows - self._rows_before) / seconds if seconds else 0.0,
                means=tuple(means),
                standard_errors=tuple(errors),
                has_clusters=self._has_clusters,
            )
        )

    def report(self, make: Callable[[], summary_pb2.LossSummary]) -> None:
        """Pass on a report, which is made only if the caller wants it."""
        if self._on_report is not None:
            self._on_report(make())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._line is not None:
            self._line.end()


class _Line:
    """One line on a terminal that is written over, and kept at the end."""

    def __init__(self) -> None:
        self._last: SummaryProgress | None = None
        self._written = 0.0
        self._width = 0

    def __call__(self, progress: SummaryProgress) -> None:
        self._last = progress
        now = time.monotonic()
        if now - self._written >= _LINE_SECONDS:
            self._written = now
            self._write(str(progress))

    def end(self) -> None:
        """Write the last state, and begin a new line."""
        if self._last is not None:
            self._write(str(self._last))
            sys.stderr.write("\n")

    def _write(self, text: str) -> None:
        sys.stderr.write(f"\r{text.ljust(self._width)}")
        sys.stderr.flush()
        self._width = len(text)
