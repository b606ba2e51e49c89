"""Stops a call that a thread makes, from another one."""

import threading
from collections.abc import Callable
from typing import Any


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
