"""Leases that small evaluations on one machine go over by themselves.

A call over a lease takes a tenth of the time of one by gRPC. Who makes a few calls only gets none:
opening one takes as long as they do.
"""

import threading
import time
from typing import Final

from losswire.client._calls.lease import Lease
from losswire.client._calls.operations import Steps
from losswire.client._calls.session import Session
from losswire.client._errors import LosswireError
from losswire.client._memory.mapping import HAVE_REGIONS, SharedMemory
from losswire.client._memory.staging import obtain

_CALLS: Final = 8
"""After so many calls, more are expected."""

_MOST: Final = 4
"""The most leases of one client, and so of calls that go over them at once."""

_LEAST_TIMEOUT: Final = 5.0
"""A call that may take fewer seconds has none to spare for those after it."""

_PAUSE_SECONDS: Final = 10.0
"""How long none is asked for after a failure."""


class LocalLeases:
    """The leases of one client that have a region for their own sake. Any thread may use it."""

    def __init__(self, session: Session) -> None:
        """Begin with none."""
        self._session = session
        self._lock = threading.Lock()
        self._memories: tuple[SharedMemory, ...] = ()
        self._calls = 0
        self._not_before = 0.0
        self._possible = HAVE_REGIONS and session.same_host
        self._opening = False

    @property
    def leases(self) -> tuple[Lease, ...]:
        """What calls may go over; not all of them may be free."""
        return tuple([each.lease for each in self._memories])

    def is_due(self, timeout: float | None) -> bool:
        """Count a call that may take some seconds; tells whether it is time to open a lease."""
        if not self._possible:
            return False
        if self._calls < _CALLS:
            self._calls += 1
            return False
        ended = False
        for memory in self._memories:
            if memory.lease.is_free:
                return False
            ended = ended or memory.lease.has_ended
        if self._opening or not (ended or len(self._memories) < _MOST):
            return False
        hurries = (timeout or self._session.timeout) < _LEAST_TIMEOUT
        return not hurries and time.monotonic() >= self._not_before

    def open(self) -> Steps[None]:
        """Open one more, or in the place of one that has ended."""
        with self._lock:
            kept = tuple(each for each in self._memories if not each.lease.has_ended)
            if len(kept) < len(self._memories):
                # The server may have been started again, and listen elsewhere.
                self._session.server = None
            self._memories = kept
            if self._opening or len(kept) == _MOST:
                return
            self._opening = True
        memory = None
        try:
            memory = yield from obtain(self._session, 1)
        except LosswireError:
            pass  # there is the ordinary way
        finally:
            with self._lock:
                self._opening = False
                if memory is None:
                    self._not_before = time.monotonic() + _PAUSE_SECONDS
                elif self._session.closed:
                    memory.release()
                else:
                    self._memories = (*self._memories, memory)

    def close(self) -> None:
        """End all of them, and the calls over them."""
        with self._lock:
            for memory in self._memories:
                memory.release()
            self._memories = ()

    def leave_to_parent(self) -> None:
        """Drop, in a forked child, what belongs to its parent."""
        self._lock = threading.Lock()
        self._memories = ()
