"""The connection by which a region is leased; evaluations can go over it as well.

Arrays in shared memory need not be sent, and then most of a call is gRPC's own work: over
this connection it takes a fraction of the time. docs/protocol.md describes the messages,
docs/decisions/0020-region-states.md the states of a lease.
"""

import asyncio
import os
import select
import socket
import threading
import time
import weakref
from collections.abc import Callable, Generator
from contextlib import suppress
from typing import Final

from losswire.client._calls.interrupt import Interrupt, resolve
from losswire.client._errors import DeadlineExceededError, error_from_details
from losswire.client._messages import thresholds
from losswire.wire import LEASE_HEADER

_MAX_MILLISECONDS: Final = 2**32 - 1
_MAX_POLL_MILLISECONDS: Final = 2**31 - 1

_READ: Final = select.POLLIN if hasattr(select, "POLLIN") else 1
_WRITE: Final = select.POLLOUT if hasattr(select, "POLLOUT") else 4


class _Turn:
    """The right to use a lease: it ends with its call, or when nothing refers to it any more.

    An exception from a signal handler may come at any point of a call, also within its
    `finally`. Then the frames of the call are dropped, and the turn with them.
    """

    __slots__ = ("__weakref__", "is_over")

    def __init__(self) -> None:
        self.is_over = False


class Lease:
    """One connection. Any thread may use it; no call waits for another one's.

    Bytes sent and received are kept in lists that are appended to by the same C call that
    moves the bytes, so that no exception can come between. They show at any time whether the
    lease is free, has to drop the answer of a call that ended, or is broken by a request that was
    sent in part.
    """

    def __init__(
        self, connection: socket.socket, max_request_bytes: int, interrupt: Interrupt | None = None
    ) -> None:
        """Store the connection, the longest request it carries (0: none), and the interrupt."""
        self._connection = connection
        connection.settimeout(0)
        self._max_request_bytes = max_request_bytes
        self._interrupt = interrupt or Interrupt()
        # Reentrant, because the garbage collector may close a lease at any point.
        self._lock = threading.RLock()
        self._holder: Callable[[], _Turn | None] = _no_holder
        """The turn of the call under way."""
        self._has_ended = not max_request_bytes
        """Whether the server, or an error of the system, ended the connection."""
        self._is_closing = False
        self._asked = 0
        """The length of the request whose answer is not complete yet; 0: there is none."""
        self._sent: list[int] = []
        """How many bytes of it went out with each call of `send`."""
        self._received: list[bytes] = []
        """The bytes of the answer so far."""
        self._poll: select.poll | None = None
        self._interrupt_descriptor = -1
        """The descriptor of the interrupt, once the poll has it."""
        _leases.add(self)

    def call(self, request: bytes, seconds: float) -> bytes | None:
        """Make one call of Evaluate and return its answer.

        None when the call has to go by gRPC instead. Raises the
        LosswireError that the server answers with, and DeadlineExceededError.
        """
        turn = self._begin(request)
        if turn is None:
            return None
        end = time.monotonic() + seconds
        try:
            for events in self._exchange(_with_header(request, seconds)):
                if not self._wait(events, end - time.monotonic()):
                    return None
            answer = self._answer()
        except TimeoutError:
            raise _deadline_error(seconds) from None
        except OSError:
            self._has_ended = True
            return None
        finally:
            turn.is_over = True
            if self._is_closing:
                self.close()
        return _read_body(answer)

    async def call_async(self, request: bytes, seconds: float) -> bytes | None:
        """Make one call, as `call` does, on the running event loop."""
        turn = self._begin(request)
        if turn is None:
            return None
        try:
            async with asyncio.timeout(seconds):
                for events in self._exchange(_with_header(request, seconds)):
                    if not await self._wait_async(events):
                        return None
            answer = self._answer()
        except TimeoutError:
            raise _deadline_error(seconds) from None
        except OSError:
            self._has_ended = True
            return None
        finally:
            turn.is_over = True
            if self._is_closing:
                self.close()
        return _read_body(answer)

    @property
    def is_free(self) -> bool:
        """Whether a call can be made over it now, as far as can be seen without trying.

        A call that was interrupted before it sent anything counts as under way: the next
        call finds out.
        """
        return not (self._asked or self._has_ended or self._is_closing or self._is_busy)

    @property
    def has_ended(self) -> bool:
        """Whether no call will be made over it any more."""
        return self._is_unusable and not self._is_busy

    @property
    def _is_busy(self) -> bool:
        turn = self._holder()
        return turn is not None and not turn.is_over

    @property
    def _is_owed(self) -> bool:
        """Whether a request was sent whole and its answer is still to come, or to be dropped."""
        return not self._has_ended and self._asked > 0 and self._asked == sum(self._sent)

    @property
    def _is_unusable(self) -> bool:
        """Whether the connection has ended or, while no call is under way, is broken.

        The server waits for the rest of a request that was sent in part. It must not get it:
        nobody expects that evaluation's gradients any more.
        """
        if self._has_ended or self._is_closing:
            return True
        return self._asked > 0 and 0 < sum(self._sent) < self._asked and not self._is_busy

    def _begin(self, request: bytes) -> _Turn | None:
        """Begin a call, unless the request is too long or the lease is not free."""
        if len(request) > self._max_request_bytes or self._interrupt.is_set:
            return None
        turn = self._take_turn()
        if turn is not None and self._is_owed and not self._drop_answer():
            return None
        return turn

    def _take_turn(self) -> _Turn | None:
        turn = _Turn()
        with self._lock:
            if self._is_busy or self._is_unusable:
                return None
            self._holder = weakref.ref(turn)
        return turn

    def wait_for_owed(self, seconds: float) -> None:
        """Wait for the answer that no call waits for any more, if one is owed, and drop it.

        Raises DeadlineExceededError.
        """
        turn = self._take_turn()
        if turn is None:
            return
        end = time.monotonic() + seconds
        try:
            while self._is_owed and not self._drop_answer():
                if not self._has_ended and not self._wait(_READ, end - time.monotonic()):
                    return
        except TimeoutError:
            raise _deadline_error(seconds) from None
        finally:
            turn.is_over = True
            if self._is_closing:
                self.close()

    def _exchange(self, framed: bytes) -> Generator[int]:
        """Send a request and receive its answer; each item is an event of poll to wait for."""
        self._sent.clear()
        self._received.clear()
        self._asked = len(framed)
        view = memoryview(framed)
        while (sent := sum(self._sent)) < len(framed):
            try:
                # `extend` with `map` sends and records in one step: see the class.
                self._sent.extend(map(self._connection.send, (view[sent:],)))
            except BlockingIOError:
                yield _WRITE
        while missing := self._missing():
            yield _READ
            self._receive(missing)

    def _receive(self, missing: int) -> None:
        """Receive the bytes that have come; ConnectionError when the connection has ended."""
        with suppress(BlockingIOError):
            self._received.extend(
                map(self._connection.recv, (min(missing, thresholds.LEASE_MAX_RECEIVE_BYTES),))
            )
            if not self._received[-1]:
                raise ConnectionError

    def _missing(self) -> int:
        """Count the bytes to ask for; 0 when the answer is whole."""
        received = self._received
        if not received:
            return thresholds.LEASE_RECEIVE_BYTES
        size = sum(map(len, received))
        head = received[0]
        if len(head) < LEASE_HEADER.size:
            head = b"".join(received)
            if size < LEASE_HEADER.size:
                return thresholds.LEASE_RECEIVE_BYTES
        length: int = LEASE_HEADER.unpack_from(head)[0]
        return LEASE_HEADER.size + length - size

    def _answer(self) -> bytes:
        """Return the whole answer, after which the lease is free."""
        answer = b"".join(self._received)
        self._asked = 0
        self._received.clear()
        return answer

    def _drop_answer(self) -> bool:
        """Drop the answer of a call that ended, if all of it has come by now."""
        try:
            while missing := self._missing():
                before = len(self._received)
                self._receive(missing)
                if len(self._received) == before:
                    return False
        except OSError:
            self._has_ended = True
            return False
        self._answer()
        return True

    def _wait(self, events: int, seconds: float) -> bool:
        """Wait for the connection; false when interrupted, TimeoutError when time is up."""
        if events == _READ:
            poll = self._poll = self._poll or self._poll_for(events)
        else:
            poll = self._poll_for(events)
        # Rounded up, so that no call ends before its time is up.
        milliseconds = int(min(max(seconds, 0.0) * 1000 + 1, _MAX_POLL_MILLISECONDS))
        ready = poll.poll(milliseconds)
        if not ready:
            raise TimeoutError
        return len(ready) > 1 or ready[0][0] != self._interrupt_descriptor

    def _poll_for(self, events: int) -> select.poll:
        poll = select.poll()
        poll.register(self._connection, events)
        self._interrupt_descriptor = self._interrupt.descriptor
        poll.register(self._interrupt_descriptor, _READ)
        return poll

    async def _wait_async(self, events: int) -> bool:
        """Wait for the connection; false when interrupted."""
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[None] = loop.create_future()
        # Not `sock_recv`: a task that is cancelled when the bytes are there would lose them.
        add = loop.add_reader if events == _READ else loop.add_writer
        remove = loop.remove_reader if events == _READ else loop.remove_writer
        self._interrupt.add(waiter)
        add(self._connection, resolve, waiter)
        try:
            await waiter
        finally:
            remove(self._connection)
            self._interrupt.discard(waiter)
        return not self._interrupt.is_set

    def close(self) -> None:
        """End the lease, once no call is under way over it."""
        with self._lock:
            # Before that, another connection could get the number of its descriptor.
            self._is_closing = True
            if not self._is_busy:
                self._connection.close()

    def __del__(self) -> None:
        # A call that lost its turn to an exception could not close it.
        self._connection.close()

    def abandon(self) -> None:
        """Close this process's copy of another process's lease."""
        self._lock = threading.RLock()
        self._has_ended = True
        self._connection.close()


_leases: "weakref.WeakSet[Lease]" = weakref.WeakSet()


def _abandon_leases() -> None:
    """Close, in a child, its copies of the leases of its parent, which they would prolong."""
    for lease in tuple(_leases):
        lease.abandon()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_abandon_leases)


def _no_holder() -> None:
    return None


def _with_header(request: bytes, seconds: float) -> bytes:
    milliseconds = int(min(max(seconds * 1000, 1), _MAX_MILLISECONDS))
    return LEASE_HEADER.pack(len(request), milliseconds) + request


def _deadline_error(seconds: float) -> DeadlineExceededError:
    return DeadlineExceededError(f"no answer within {round(seconds, 3):g} s")


def _read_body(answer: bytes) -> bytes:
    """Return the bytes behind the header; an error is raised."""
    code: int = LEASE_HEADER.unpack_from(answer)[1]
    body = answer[LEASE_HEADER.size :]
    if code:
        raise error_from_details(code, body)
    return body
