"""Regions that a client makes by itself and keeps from call to call.

Two pools of one kind: regions that large evaluations are copied through, and regions of one page,
whose connections carry small calls. Making a region costs more than using it, so it is kept. A
caller that finds none free, or cannot get one, uses gRPC instead, without an error.
docs/decisions/0020-region-states.md describes who owns a region's contents.
"""

import os
import threading
import time
import weakref
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from losswire.client._calls.lease import Lease
from losswire.client._calls.operations import (
    LocalStep,
    Operation,
    Steps,
    create_region,
    get_server_info,
)
from losswire.client._calls.session import Session
from losswire.client._errors import LosswireError, is_over_limit
from losswire.client._memory import mapping
from losswire.client._memory.mapping import SharedMemory, size_with_mark
from losswire.client._messages import thresholds
from losswire.client._messages.catalogue import ServerInfo

ONE_PAGE: Final = size_with_mark(1)
"""The bytes of the smallest region."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolLimits:
    """How many regions a pool may hold."""

    max_regions: int
    """The largest number of regions, in use or not."""
    max_bytes: int
    """The largest size of all of them together, in bytes."""
    min_region_bytes: int
    """The size of the smallest region that it asks for, in bytes."""
    pause_seconds: float
    """The seconds without another request after one failed."""


class _Reservation:
    """The bytes of a region that is being made."""

    __slots__ = ("__weakref__", "nbytes")

    def __init__(self, nbytes: int) -> None:
        self.nbytes = nbytes


class RegionPool:
    """The regions of one client for one purpose. Any thread may use it; nothing waits in it.

    A region is either among the free ones or referred to by the one evaluation that uses it.
    However that evaluation ends, its reference is dropped, and the region no longer counts.
    """

    def __init__(self, session: Session, limits: PoolLimits) -> None:
        """Begin with no region."""
        self._session = session
        self._limits = limits
        self._lock = threading.RLock()
        self._free: tuple[SharedMemory, ...] = ()
        self._counted: weakref.WeakSet[SharedMemory | _Reservation] = weakref.WeakSet()
        """All that the limits count: free, in use and being made."""
        self._unused: weakref.WeakSet[SharedMemory] = weakref.WeakSet()
        """Those that no evaluation has used yet."""
        self._max_region_bytes = limits.max_bytes
        """The size of the largest region that is worth asking for."""
        self._not_before = 0.0
        """The monotonic time before which nothing is asked for."""
        self._closed = False
        self.is_enabled = mapping.HAVE_REGIONS and session.same_host
        """Whether the server may share memory with this process at all."""

    @property
    def leases(self) -> tuple[Lease, ...]:
        """The connections of the free regions."""
        return tuple([each.lease for each in self._free])

    def has_free_lease(self) -> bool:
        """Return whether a call can go over the connection of a free region now."""
        for memory in self._free:  # noqa: SIM110 - each call asks, and a generator takes longer
            if memory.lease.is_free:
                return True
        return False

    def can_add(self) -> bool:
        """Return whether `add` is worth a try: the limits allow it, and no region is being made."""
        if time.monotonic() < self._not_before:
            return False
        with self._lock:
            kept = [each for each in self._counted if not _has_ended(each)]
            return len(kept) < self._limits.max_regions and not self._is_making()

    def take(self, wanted: int) -> Steps[SharedMemory | None]:
        """Return a region of at least some bytes, for one evaluation until it is given back.

        None when there is none.
        """
        with self._lock:
            found = self._take_free(wanted)
            reservation = None if found is not None else self._reserve(wanted)
        if reservation is None:
            return found
        return (yield from self._make(reservation, get_server_info()))

    def add(self) -> Steps[None]:
        """Add one region of the smallest size to the free ones, in place of those that ended.

        Does nothing when there can be none, or while another one is being made.
        """
        with self._lock:
            if self._drop_ended():
                # The server may have been started again, and listen elsewhere.
                self._session.forget_server()
            reservation = None if self._is_making() else self._reserve(1)
        if reservation is None:
            return
        try:
            memory = yield from self._make(reservation, replace(get_server_info(), retry=False))
        except LosswireError:
            self.pause()
        else:
            if memory is not None:
                self.give_back(memory)

    def give_back(self, memory: SharedMemory) -> None:
        """Put a region among the free ones; the server must not use it any more."""
        with self._lock:
            self._unused.discard(memory)
            if self._closed:
                self._release(memory)
            else:
                self._free = (*self._free, memory)

    def drop(self, memory: SharedMemory) -> None:
        """Release a region that the server may still use."""
        with self._lock:
            self._unused.discard(memory)
            self._release(memory)

    def forget_all(self, missing: SharedMemory | None) -> None:
        """Release all free regions: a server that was started again has none of them.

        `missing` is the region that the server did not know; None: one of the caller's own.
        """
        with self._lock:
            self._max_region_bytes = self._limits.max_bytes
            # Behind one name may be several servers: one makes a region, and another is asked.
            if missing is not None and missing in self._unused:
                self._pause()
            self._release_free()
        self._session.forget_server()

    def pause(self) -> None:
        """Ask for nothing for a while."""
        with self._lock:
            self._pause()

    def close(self) -> None:
        """Release the free regions; the others follow when they are given back."""
        with self._lock:
            self._closed = True
            self._release_free()

    def drop_in_child(self) -> None:
        """Drop, in a forked child, the regions of its parent."""
        self._lock = threading.RLock()
        self._counted.clear()
        self._free = ()

    def _is_making(self) -> bool:
        return any(isinstance(each, _Reservation) for each in self._counted)

    def _drop_ended(self) -> bool:
        """Release free regions whose connection has ended; returns whether there were any."""
        ended = [each for each in self._free if each.lease.has_ended]
        for memory in ended:
            self._release(memory)
        self._free = tuple([each for each in self._free if each not in ended])
        return bool(ended)

    def _take_free(self, wanted: int) -> SharedMemory | None:
        fitting = [each for each in self._free if each.nbytes >= wanted]
        found = min(fitting, key=lambda each: each.nbytes, default=None)
        self._free = tuple([each for each in self._free if each is not found])
        return found

    def _reserve(self, wanted: int) -> _Reservation | None:
        """Count a region that will be made; free ones, which are too small, make room for it."""
        size = max(_rounded(size_with_mark(wanted)), self._limits.min_region_bytes)
        if self._closed or size > self._max_region_bytes or time.monotonic() < self._not_before:
            return None
        while not self._has_room(size):
            if not self._free or wanted <= self._free[-1].nbytes:
                return None
            *kept, last = self._free
            self._free = tuple(kept)
            self._release(last)
        reservation = _Reservation(size)
        self._counted.add(reservation)
        return reservation

    def _has_room(self, size: int) -> bool:
        held = sum(each.nbytes for each in self._counted)
        count = len(self._counted)
        return count < self._limits.max_regions and held + size <= self._limits.max_bytes

    def _make(
        self, reservation: _Reservation, ask: Operation[ServerInfo]
    ) -> Steps[SharedMemory | None]:
        """Make the region of a reservation; None when that fails, and then pause.

        `ask` is the call for the server's description; its error is raised.
        """
        memory = None
        server = self._session.server
        if server is None:
            server = self._session.server = yield ask
        try:
            memory = yield from self._request(server.transports.region_socket, reservation.nbytes)
        except LosswireError as error:
            if is_over_limit(error) and reservation.nbytes > ONE_PAGE:
                # A smaller one may fit. One page will fit when others have returned theirs.
                self._max_region_bytes = min(self._max_region_bytes, reservation.nbytes - 1)
                return None
        with self._lock:
            self._counted.discard(reservation)
            if memory is None:
                self._pause()
            else:
                self._counted.add(memory)
                self._unused.add(memory)
        return memory

    def _request(self, path: str, size: int) -> Steps[SharedMemory | None]:
        """Request a region; None on a server that shares none with this process.

        `path` is that of its socket, empty when it has none.
        """
        if not path or not os.access(path, os.R_OK | os.W_OK):
            return None
        # A region that does not fit now is no reason to wait: gRPC is the fallback.
        created = yield replace(create_region(size), retry=False)
        seconds = thresholds.STAGING_CONNECT_SECONDS
        fetch = partial(SharedMemory, created, self._session.interrupt, seconds)
        memory: SharedMemory = yield LocalStep(fetch)
        return memory

    def _pause(self) -> None:
        self._not_before = time.monotonic() + self._limits.pause_seconds

    def _release_free(self) -> None:
        for memory in self._free:
            self._release(memory)
        self._free = ()

    def _release(self, memory: SharedMemory) -> None:
        self._counted.discard(memory)
        memory.release()


def _has_ended(counted: SharedMemory | _Reservation) -> bool:
    return isinstance(counted, SharedMemory) and counted.lease.has_ended


def _rounded(size: int) -> int:
    """Round up to a quarter of a power of two, so that a slightly larger need fits, too."""
    if size <= ONE_PAGE:
        return size
    step = 1 << (size.bit_length() - 3)
    return -(-size // step) * step
