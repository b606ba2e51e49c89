"""Ends the calls of open streams for the moment in which their process forks.

gRPC's API for asyncio has a thread of its own, and a child that is forked while a call is open may
end by a signal, though it never uses gRPC (grpcio 1.80 to 1.85). A stream sends evaluations without
an answer again, so that its call can end before a fork, and another one begin after it.
"""

import asyncio
import os
import threading
import time
import weakref
from contextlib import suppress
from typing import Any

from losswire.client._messages import thresholds


class ForkPause:
    """The pause of one stream. It belongs to the running loop; any thread may fork."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._call: Any = None
        self._is_forking = False
        self._is_over = asyncio.Event()
        self.was_cut = False
        """Whether the call that was set last was ended for a fork."""
        _pauses.add(self)

    async def wait(self) -> None:
        """Wait while the process forks."""
        while self._is_forking:
            self._is_over.clear()
            await self._is_over.wait()

    def watch(self, call: Any) -> None:
        """Set the call to end before a fork."""
        self._call, self.was_cut = call, False
        if self._is_forking:
            self._cut()

    def forget(self) -> None:
        """Forget the call, which has ended: gRPC may keep its connection as long as it is known."""
        self._call = None

    def begin(self) -> threading.Event:
        """Begin the pause; the event is set once the call has been told to end."""
        self._is_forking = True
        told = threading.Event()

        def cut() -> None:
            self._cut()
            told.set()

        if _is_running(self._loop):
            cut()
        else:
            try:
                self._loop.call_soon_threadsafe(cut)
            except RuntimeError:  # the loop is closed
                told.set()
        return told

    def end(self) -> None:
        """End the pause."""
        self._is_forking = False
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._is_over.set)

    def _cut(self) -> None:
        if self._call is not None:
            self.was_cut = self._call.cancel() or self.was_cut


def _is_running(loop: asyncio.AbstractEventLoop) -> bool:
    """Return whether a loop is this thread's, which cannot wait for it."""
    try:
        return asyncio.get_running_loop() is loop
    except RuntimeError:
        return False


_pauses: "weakref.WeakSet[ForkPause]" = weakref.WeakSet()


def _before_fork() -> None:
    """End the calls of all streams, and wait until gRPC has done so."""
    begun = [each.begin() for each in tuple(_pauses)]
    if not begun:
        return
    end = time.monotonic() + thresholds.FORK_SECONDS
    for each in begun:
        each.wait(max(0.0, end - time.monotonic()))
    time.sleep(thresholds.FORK_SETTLE_SECONDS)


def _after_fork() -> None:
    for each in tuple(_pauses):
        each.end()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork, after_in_parent=_after_fork, after_in_child=_pauses.clear
    )
