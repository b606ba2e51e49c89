"""Regions that large evaluations on one machine pass through by themselves.

They are kept from call to call, because making one costs more than using it. Whoever finds
none that is free, or cannot get one, takes the ordinary way and is not told.
"""

import os
import threading
import time
import weakref
from dataclasses import replace
from functools import partial
from typing import Final

from losswire.client._calls.operations import LocalStep, Steps, create_region, get_server_info
from losswire.client._calls.session import Session
from losswire.client._errors import LosswireError
from losswire.client._memory.mapping import HAVE_REGIONS, SharedMemory, size_with_mark

_MOST: Final = 4
"""The most regions of one client, and so of evaluations that pass through them at once."""

_MOST_BYTES: Final = 2 << 30
"""The most bytes of all of them."""

_LEAST_BYTES: Final = 4 << 20
_PATIENCE_SECONDS: Final = 1.0
_PAUSE_SECONDS: Final = 60.0
"""How long nothing more is asked for after a failure."""


class _Room:
    """The bytes of a region that is about to be made."""

    __slots__ = ("__weakref__", "nbytes")

    def __init__(self, nbytes: int) -> None:
        self.nbytes = nbytes


class Staging:
    """The kept regions of one client. Any thread may use it; nobody ever waits in it.

    A region is either among the free ones or referred to by the one evaluation that uses it,
    which drops it by ending, however it ends.
    """

    def __init__(self, session: Session) -> None:
        """Begin with none."""
        self._session = session
        self._lock = threading.Lock()
        self._free: list[SharedMemory] = []
        self._all: weakref.WeakSet[SharedMemory | _Room] = weakref.WeakSet()
        """All that count: free, in use and about to be made."""
        self._fresh: weakref.WeakSet[SharedMemory] = weakref.WeakSet()
        """Those that were never used."""
        self._limit = _MOST_BYTES
        """The largest region that is worth asking for."""
        self._not_before = 0.0
        self._closed = False
        self.possible = HAVE_REGIONS and session.same_host
        """Whether it is worth looking at evaluations at all."""

    @property
    def count(self) -> int:
        """How many regions there are, in use or not."""
        return len(self._all)

    def take(self, wanted: int) -> Steps[SharedMemory | None]:
        """Return a region of at least so many bytes, which is nobody else's until given back.

        None when there is none.
        """
        size = _rounded(size_with_mark(wanted))
        with self._lock:
            found = self._find(wanted)
            room = None if found is not None else self._make_room(size)
        if room is None:
            return found
        memory = yield from self._create(size)
        with self._lock:
            del room
            if memory is not None:
                self._all.add(memory)
                self._fresh.add(memory)
        return memory

    def _find(self, wanted: int) -> SharedMemory | None:
        fitting = [each for each in self._free if each.nbytes >= wanted]
        found = min(fitting, key=lambda each: each.nbytes, default=None)
        if found is not None:
            self._free.remove(found)
        return found

    def _make_room(self, size: int) -> _Room | None:
        """Count in a region that is about to be made; those too small for anybody make room."""
        if self._closed or size > self._limit or time.monotonic() < self._not_before:
            return None
        while self._free and not self._has_room(size):
            self._leave(self._free.pop())
        if not self._has_room(size):
            return None
        room = _Room(size)
        self._all.add(room)
        return room

    def _has_room(self, size: int) -> bool:
        held = sum(each.nbytes for each in self._all)
        return len(self._all) < _MOST and held + size <= _MOST_BYTES

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
            self._fresh.discard(memory)
            if self._closed:
                self._leave(memory)
            else:
                self._free.append(memory)

    def drop(self, memory: SharedMemory) -> None:
        """Let a region go that the server may still be looking at."""
        with self._lock:
            self._fresh.discard(memory)
            self._leave(memory)

    def lose(self, memory: SharedMemory | None) -> None:
        """Take it that the server was started again, and has no region that it had before.

        `memory` is the one that it turned out not to have; None: one of the caller's own.
        """
        with self._lock:
            self._limit = _MOST_BYTES
            # Behind one name may be several servers: one makes it, another one is asked.
            if memory is not None and memory in self._fresh:
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
            while self._free:
                self._leave(self._free.pop())

    def leave_to_parent(self) -> None:
        """Drop, in a forked child, what belongs to its parent."""
        self._lock = threading.Lock()
        self._all.clear()
        self._free.clear()

    def _leave(self, memory: SharedMemory) -> None:
        self._all.discard(memory)
        memory.release()


def obtain(session: Session, size: int) -> Steps[SharedMemory | None]:
    """Make a region; None on a server that shares none with this process. Raises LosswireError."""
    if session.server is None:
        session.server = yield replace(get_server_info(), retry=False)
    path = session.server.transports.region_socket
    if not path or not os.access(path, os.R_OK | os.W_OK):
        return None
    # What does not fit now is no reason to wait: there is another way.
    created = yield replace(create_region(size), retry=False)
    fetch = partial(SharedMemory, created, session.interrupt, _PATIENCE_SECONDS)
    memory: SharedMemory = yield LocalStep(fetch)
    return memory


def _rounded(size: int) -> int:
    """Round up to a quarter of a power of two, so that what grows a little fits again."""
    step = 1 << max(size.bit_length() - 3, 20)
    return max(-(-size // step) * step, _LEAST_BYTES)
