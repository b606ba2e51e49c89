"""A lease survives whatever ends a call over it, at any byte and at any point, or is given up."""

import asyncio
import dis
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from types import CodeType, FrameType
from typing import Any

import pytest

from losswire.client import DeadlineExceededError
from losswire.client._calls import lease as lease_module
from losswire.client._calls.lease import Lease
from tests.client.calls.test_lease import HEADER, PATIENCE, Server, beside, ends

__all__ = ["ends"]

_BODY = b"0123456789"
_ANSWER = HEADER.pack(len(_BODY), 0) + _BODY
_LONG = bytes(300_000)


class _Interruption(BaseException):
    """What a signal's handler raises, as KeyboardInterrupt is."""


@contextmanager
def _handler() -> Iterator[None]:
    def handle(*_: object) -> None:
        raise _Interruption

    before = signal.signal(signal.SIGALRM, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGALRM, before)


def _signal(lease: Lease) -> None:
    """Call until a handler raises."""
    with _handler(), pytest.raises(_Interruption):  # noqa: PT012 - the timer may be early
        signal.setitimer(signal.ITIMER_REAL, 0.03)
        lease.call(b"x", PATIENCE)


def _timeout(lease: Lease) -> None:
    """Call until time is up."""
    with pytest.raises(DeadlineExceededError):
        lease.call(b"x", 0.03)


def _timeout_async(lease: Lease) -> None:
    with pytest.raises(DeadlineExceededError):
        asyncio.run(lease.call_async(b"x", 0.03))


def _cancel(lease: Lease) -> None:
    """Call until the task is cancelled."""

    async def run() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(lease.call_async(b"x", PATIENCE), 0.03)

    asyncio.run(run())


@pytest.mark.parametrize("end", [_signal, _timeout, _timeout_async, _cancel])
@pytest.mark.parametrize("received", range(len(_ANSWER)))
def test_a_call_that_ends_at_any_byte_of_its_answer(
    end: Callable[[Lease], None], received: int, ends: tuple[Lease, Server]
) -> None:
    """The rest is dropped when it comes, and the next answer is the next request's."""
    lease, server = ends

    def begin() -> None:
        server.read()
        server.connection.sendall(_ANSWER[:received])

    def go_on() -> None:
        server.connection.sendall(_ANSWER[received:])
        server.echo()

    serving = beside(begin)
    end(lease)
    serving.join()
    assert not lease.is_free
    assert not lease.has_ended
    assert lease.call(b"early", PATIENCE) is None
    beside(go_on)
    assert _called(lease, b"next") == b"next"
    assert lease.is_free


def _called(lease: Lease, request: bytes) -> bytes:
    stop = time.monotonic() + PATIENCE
    while (answer := lease.call(request, PATIENCE)) is None:
        assert time.monotonic() < stop
        time.sleep(0.002)
    return answer


def test_a_task_that_is_cancelled_when_the_answer_is_there(ends: tuple[Lease, Server]) -> None:
    """Bytes that came in the same turn of the loop are not lost."""
    lease, server = ends

    async def run() -> None:
        for _ in range(20):
            calling = asyncio.ensure_future(lease.call_async(b"x", PATIENCE))
            await asyncio.sleep(0)
            assert server.read()[0] == b"x"
            server.connection.sendall(HEADER.pack(len(_LONG), 0))
            writing = beside(lambda: server.connection.sendall(_LONG))
            await asyncio.sleep(0)
            calling.cancel()
            with suppress(asyncio.CancelledError):
                assert await calling == _LONG
            answering = beside(lambda: server.write(server.read()[0]))
            # The other end is no task that could be awaited.
            while (answer := await lease.call_async(b"y", PATIENCE)) is None:  # noqa: ASYNC110
                await asyncio.sleep(0.001)
            assert answer == b"y"
            for each in (writing, answering):
                each.join()

    asyncio.run(run())


_CALLS = frozenset({"CALL", "CALL_KW", "CALL_FUNCTION_EX", "JUMP_BACKWARD", "RESUME"})
"""The instructions after which the interpreter looks for signals."""


@cache
def _checked_after(code: CodeType) -> frozenset[int]:
    """Return the offsets of the instructions before which a handler may have run."""
    found = set()
    before = ""
    for each in dis.get_instructions(code):
        if before in _CALLS:
            found.add(each.offset)
        before = each.opname
    return frozenset(found)


class _Injection:
    """Raises at the n-th point of the module at which a signal's handler could."""

    def __init__(self, number: int) -> None:
        self.left = number
        self.where = ""

    def __call__(self, frame: FrameType, event: str, _: object) -> Any:  # noqa: ANN401
        """Trace, as `sys.settrace` wants it."""
        if frame.f_code.co_filename != lease_module.__file__:
            return None
        frame.f_trace_opcodes = True
        if event == "opcode" and frame.f_lasti in _checked_after(frame.f_code):
            if not self.left:
                self.where = f"{frame.f_code.co_qualname}:{frame.f_lineno}"
                sys.settrace(None)
                raise _Interruption
            self.left -= 1
        return self


# The interpreter prints what is raised in the callback of a weak reference.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("size", [3, 100_000])
def test_an_exception_at_any_point_of_a_call(size: int) -> None:
    """The lease is usable afterwards, with its own answers, or it has ended: never in between."""
    number, points = 0, []
    while True:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            lease, server = Lease(ours, len(_LONG)), Server(theirs)
            beside(server.echo)
            injection = _Injection(number)
            found = None
            try:
                sys.settrace(injection)
                found = lease.call(b"a" * size, PATIENCE)
            except _Interruption:
                pass
            finally:
                sys.settrace(None)
            if not injection.where:
                break
            points.append(injection.where)
            assert found in (None, b"a" * size)
            if not lease.has_ended:
                for letter in (b"b", b"c"):
                    assert _called(lease, letter * size) == letter * size, injection.where
            number += 1
    assert found == b"a" * size
    assert len(points) > 20


def test_a_lease_that_is_broken_is_not_free(ends: tuple[Lease, Server]) -> None:
    """What was sent in part is never completed, and nobody waits for the lease."""
    lease, server = ends
    with pytest.raises(DeadlineExceededError):
        lease.call(_LONG, 0.05)
    assert not lease.is_free
    assert lease.has_ended
    assert lease.call(b"x", PATIENCE) is None
    received = bytearray()
    server.connection.settimeout(0)
    with suppress(BlockingIOError):
        while True:
            received += server.connection.recv(1 << 20)
    assert len(received) < HEADER.size + len(_LONG)


def test_threads_and_interruptions_together(ends: tuple[Lease, Server]) -> None:
    """Each call gets its own answer, whatever became of the others."""
    lease, server = ends
    beside(server.echo)
    wrong: list[bytes] = []

    def call(name: bytes) -> None:
        for number in range(300):
            request = name * (1 + number % 5000)
            with suppress(DeadlineExceededError):
                answer = lease.call(request, 1e-5 if number % 3 else PATIENCE)
                if answer not in (None, request):
                    wrong.append(request)

    threads = [threading.Thread(target=call, args=(bytes([each]),)) for each in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert not wrong
    assert lease.has_ended or _called(lease, b"last") == b"last"
