"""The interrupt that ends the waiting of calls when their client closes."""

import asyncio
import os
import threading
import weakref
from contextlib import suppress


class Interrupt:
    """Ends the waiting of one client's calls when the client closes. Any thread may use it.

    It wakes the waiting calls and touches no connection: the server must not take the end of a
    call for the end of a lease.
    """

    def __init__(self) -> None:
        self.is_set = False
        # Reentrant, because a signal's handler or the garbage collector may close the client.
        self._lock = threading.RLock()
        self._descriptor = -1
        self._waiters: set[asyncio.Future[None]] = set()

    @property
    def descriptor(self) -> int:
        """A descriptor that is ready to be read once the interrupt is set."""
        with self._lock:
            if self._descriptor < 0:
                self._descriptor = os.eventfd(int(self.is_set), os.EFD_CLOEXEC | os.EFD_NONBLOCK)
                weakref.finalize(self, os.close, self._descriptor).atexit = False
            return self._descriptor

    def set(self) -> None:
        """Wake all calls that wait now or later."""
        with self._lock:
            self.is_set = True
            if self._descriptor >= 0:
                os.eventfd_write(self._descriptor, 1)
            # A copy: calls that end remove theirs at any moment.
            for waiter in tuple(self._waiters):
                with suppress(RuntimeError):  # a loop that was closed with its calls pending
                    waiter.get_loop().call_soon_threadsafe(resolve, waiter)

    def add(self, waiter: asyncio.Future[None]) -> None:
        """Resolve a future when the interrupt is set."""
        with self._lock:
            self._waiters.add(waiter)
            if self.is_set:
                resolve(waiter)

    def discard(self, waiter: asyncio.Future[None]) -> None:
        """Forget a future."""
        with self._lock:
            self._waiters.discard(waiter)


def resolve(waiter: asyncio.Future[None]) -> None:
    """Resolve a future, unless that has happened."""
    if not waiter.done():
        waiter.set_result(None)
