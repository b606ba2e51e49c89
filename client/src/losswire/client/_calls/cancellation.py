"""Stops a call that a thread makes, from another one."""

import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from losswire.client._calls.retry import Attempts
from losswire.client._messages import thresholds


class Cancellation:
    """Stops a transfer from another thread."""

    def __init__(self) -> None:
        self._stopped = threading.Event()
        self._call: Any = None
        self._callback: Callable[[], None] | None = None

    def stop(self) -> None:
        """End the call under way, and any wait for another try."""
        self._stopped.set()
        if self._call is not None:
            self._call.cancel()
        if self._callback is not None:
            self._callback()

    def watch(self, call: Any) -> None:
        """Set the call to cancel."""
        self._call = call
        if self._stopped.is_set():
            call.cancel()

    def call_when_stopped(self, callback: Callable[[], None]) -> None:
        """Set the one function to call when this is stopped, from the thread that stops it."""
        self._callback = callback
        if self._stopped.is_set():
            callback()

    def wait(self, seconds: float) -> bool:
        """Wait; true when stopped meanwhile."""
        return self._stopped.wait(seconds)


class Watch:
    """Ends a call that does not move, and whose server does not answer for its health either.

    For calls that take long: it needs a thread, unless nothing could be done about silence.
    """

    def __init__(self, call: Any, attempts: Attempts, moves: Callable[[], int]) -> None:
        """Store a call of the try that has begun; `moves` counts what it has sent and received."""
        self._call = call
        self._attempts = attempts
        self._moves = moves
        self._is_over = threading.Event()
        self.found_silence = False
        """Whether the call was ended."""

    def __enter__(self) -> Self:
        if self._attempts.patience is not None:
            threading.Thread(target=self._watch, name="losswire-watch", daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._is_over.set()

    def _watch(self) -> None:
        seen = self._moves()
        while (patience := self._attempts.patience) is not None:
            if self._is_over.wait(patience):
                return
            moves = self._moves()
            is_moving, seen = moves != seen, moves
            if is_moving:
                continue
            if self._attempts.is_alive(thresholds.HEALTH_SECONDS):
                self._attempts.note_answer()
            elif self._attempts.patience is not None and not self._is_over.is_set():
                self._attempts.note_silence()
                self.found_silence = True
                self._call.cancel()
                return
