"""Regions that large evaluations on one machine pass through by themselves.

They are kept from call to call, because making one costs more than using it. Whoever finds
none that is free, or cannot get one, takes the ordinary way and is not told.
"""

import os
import threading
import time
from dataclasses import replace
from functools import partial
from typing import Final

from losswire.client._channel import Session
from losswire.client._errors import LosswireError
from losswire.client._operations import Aside, Steps, create_region, get_server_info
from losswire.client._shared import HAVE_REGIONS, SharedMemory

_MOST: Final = 4
"""The most regions of one client, and so of evaluations that pass through them at once."""

_MOST_BYTES: Final = 2 << 30
"""The most bytes of all of them."""

_LEAST_BYTES: Final = 4 << 20
_PATIENCE_SECONDS: Final = 1.0
_PAUSE_SECONDS: Final = 60.0
"""How long nothing more is asked for after a failure."""


class Staging:
    """The kept regions of one client. Any thread may use it; nobody ever waits in it."""

    def __init__(self, session: Session) -> None:
        """Begin with none."""
        self._session = session
        self._lock = threading.Lock()
        self._free: list[SharedMemory] = []
        self._used: set[SharedMemory] = set()
        """Those that evaluations pass through now."""
        self._fresh: set[int] = set()
        """The numbers of those that were never used."""
        self._count = 0
        self._bytes = 0
        self._limit = _MOST_BYTES
        """The largest region that is worth asking for."""
        self._not_before = 0.0
        self._closed = False
        self.possible = HAVE_REGIONS and session.same_host
        """Whether it is worth looking at evaluations at all."""

    def take(self, wanted: int) -> Steps[SharedMemory | None]:
        """Give a region of at least so many bytes, which is nobody else's until it is given back.

        None when there is none.
        """
        size = _rounded(wanted)
        with self._lock:
            found = self._find(wanted)
            if found is not None:
                self._used.add(found)
            if found is not None or not self._make_room(size):
                return found
        memory = None
        try:
            memory = yield from self._create(size)
        finally:
            with self._lock:
                if memory is None:
                    self._count_out(size)
                else:
                    self._used.add(memory)
                    self._bytes += memory.nbytes - size
                    self._fresh.add(memory.region_id)
        return memory

    def _find(self, wanted: int) -> SharedMemory | None:
        fitting = [each for each in self._free if each.nbytes >= wanted]
        found = min(fitting, key=lambda each: each.nbytes, default=None)
        if found is not None:
            self._free.remove(found)
        return found

    def _make_room(self, size: int) -> bool:
        """Count in a region that is about to be made; those too small for anybody make room."""
        if self._closed or size > self._limit or time.monotonic() < self._not_before:
            return False
        while self._free and (self._count == _MOST or self._bytes + size > _MOST_BYTES):
            self._leave(self._free.pop())
        if self._count == _MOST or self._bytes + size > _MOST_BYTES:
            return False
        self._count += 1
        self._bytes += size
        return True

    def _create(self, size: int) -> Steps[SharedMemory | None]:
        """Make a region; None, and none for a while, when that fails."""
        if self._session.server is None:
            self._session.server = yield get_server_info()
        memory = None
        try:
            memory = yield from obtain(self._session, size)
        except LosswireError as error:
            if error.reason == "OVER_LIMIT":
                self._limit = min(self._limit, size - 1)
                return None
        if memory is None:
            self.pause()
        return memory

    def give_back(self, memory: SharedMemory) -> None:
        """Take a region back that nobody looks at any more, the server included."""
        with self._lock:
            self._used.discard(memory)
            self._fresh.discard(memory.region_id)
            if self._closed:
                self._leave(memory)
            else:
                self._free.append(memory)

    def drop(self, memory: SharedMemory) -> None:
        """Let a region go that the server may still be looking at."""
        with self._lock:
            self._used.discard(memory)
            self._fresh.discard(memory.region_id)
            self._leave(memory)

    def lose(self, memory: SharedMemory | None) -> None:
        """Take it that the server was started again, and has no region that it had before.

        `memory` is the one that it turned out not to have; None: one of the caller's own.
        """
        with self._lock:
            self._limit = _MOST_BYTES
            # Behind one name may be several servers: one makes it, another one is asked.
            if memory is not None and memory.region_id in self._fresh:
                self._pause()
            while self._free:
                self._leave(self._free.pop())
        self._session.server = None

    def pause(self) -> None:
        """Ask for nothing for a while."""
        with self._lock:
            self._pause()

    def _pause(self) -> None:
        self._not_before = time.monotonic() + _PAUSE_SECONDS

    def close(self) -> None:
        """Let go of all that is not in use; the rest goes when it is given back, which is soon."""
        with self._lock:
            self._closed = True
            for each in self._used:
                each.lease.interrupt()
            while self._free:
                self._leave(self._free.pop())

    def _leave(self, memory: SharedMemory) -> None:
        self._count_out(memory.nbytes)
        memory.release()

    def _count_out(self, size: int) -> None:
        self._count -= 1
        self._bytes -= size


def obtain(session: Session, size: int) -> Steps[SharedMemory | None]:
    """Make a region; None on a server that shares none with this process. Raises LosswireError."""
    if session.server is None:
        session.server = yield replace(get_server_info(), retry=False)
    path = session.server.transports.region_socket
    if not path or not os.access(path, os.R_OK | os.W_OK):
        return None
    # What does not fit now is no reason to wait: there is another way.
    created = yield replace(create_region(size), retry=False)
    memory: SharedMemory = yield Aside(partial(SharedMemory, created, _PATIENCE_SECONDS))
    return memory


def _rounded(size: int) -> int:
    """Round up to a quarter of a power of two, so that what grows a little fits again."""
    step = 1 << max(size.bit_length() - 3, 20)
    return max(-(-size // step) * step, _LEAST_BYTES)
