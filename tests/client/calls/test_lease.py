"""Calls over the connection of a lease: when it is used, and when gRPC has to be."""

import asyncio
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest
from google.protobuf import any_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2

from losswire.client import DeadlineExceededError, ResourceExhaustedError
from losswire.client._calls.interrupt import Interrupt
from losswire.client._calls.lease import Lease
from tests.support.regions import receive

HEADER = struct.Struct("<II")
LONGEST = 1 << 20
PATIENCE = 60.0

Call = Callable[[Lease, bytes, float], bytes | None]


def _blocking(lease: Lease, request: bytes, seconds: float = PATIENCE) -> bytes | None:
    return lease.call(request, seconds)


def _asynchronous(lease: Lease, request: bytes, seconds: float = PATIENCE) -> bytes | None:
    return asyncio.run(lease.call_async(request, seconds))


both = pytest.mark.parametrize("call", [_blocking, _asynchronous])


class Server:
    """The other end, which answers what the test says."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        connection.settimeout(PATIENCE)

    def read(self) -> tuple[bytes, int]:
        """Read a request; gives it, and the milliseconds that it may take."""
        size, milliseconds = HEADER.unpack(receive(self.connection, HEADER.size))
        return receive(self.connection, size), milliseconds

    def write(self, body: bytes, code: int = 0) -> None:
        """Answer."""
        self.connection.sendall(HEADER.pack(len(body), code) + body)

    def echo(self) -> None:
        """Answer each request with itself until the connection ends."""
        with suppress(ConnectionError, OSError):
            while True:
                self.write(self.read()[0])


@pytest.fixture
def ends() -> Iterator[tuple[Lease, Server]]:
    """A lease and what is at its other end."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield Lease(ours, LONGEST), Server(theirs)


def beside(work: Callable[[], object]) -> threading.Thread:
    """Do something on another thread."""
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


@both
@pytest.mark.parametrize("size", [0, 1, 70_000, LONGEST])
def test_answers_of_any_length(call: Call, ends: tuple[Lease, Server], size: int) -> None:
    """One after the other, however many pieces an answer comes in."""
    lease, server = ends
    beside(server.echo)
    for start in range(3):
        request = bytes([start]) * size
        assert call(lease, request, PATIENCE) == request


@both
def test_the_time_is_told(call: Call, ends: tuple[Lease, Server]) -> None:
    """In milliseconds, and never as 0, which would be any time."""
    lease, server = ends
    told: list[int] = []

    def serve() -> None:
        for _ in range(3):
            told.append(server.read()[1])
            server.write(b"")

    beside(serve)
    for seconds in (2.5, 1e9, 9.0):
        call(lease, b"", seconds)
    assert told == [2500, 2**32 - 1, 9000]


@both
def test_nothing_longer_is_sent(call: Call, ends: tuple[Lease, Server]) -> None:
    """What is too long goes by gRPC, and the connection stays as good as it was."""
    lease, server = ends
    assert call(lease, bytes(LONGEST + 1), PATIENCE) is None
    beside(server.echo)
    assert call(lease, b"x", PATIENCE) == b"x"


@both
def test_a_server_that_takes_none(call: Call) -> None:
    """Such as an older one, to which a single byte would be the end of the lease."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        lease = Lease(ours, 0)
        assert call(lease, b"", PATIENCE) is None
        theirs.settimeout(0)
        with pytest.raises(BlockingIOError):
            theirs.recv(1)


@both
def test_failures_have_what_they_had(call: Call, ends: tuple[Lease, Server]) -> None:
    """Code, text, reason, violations and when to come back; then the next call is made."""
    lease, server = ends
    status = status_pb2.Status(code=code_pb2.RESOURCE_EXHAUSTED, message="not now")
    retry = error_details_pb2.RetryInfo()
    retry.retry_delay.FromMilliseconds(250)
    violation = error_details_pb2.BadRequest.FieldViolation(field="inputs", description="many")
    for detail in (
        error_details_pb2.ErrorInfo(reason="OVERLOADED", domain="losswire"),
        error_details_pb2.RequestInfo(request_id="abc"),
        error_details_pb2.BadRequest(field_violations=[violation]),
        retry,
    ):
        packed = any_pb2.Any()
        packed.Pack(detail)
        status.details.append(packed)

    def serve() -> None:
        server.read()
        server.write(status.SerializeToString(), status.code)
        server.echo()

    beside(serve)
    with pytest.raises(ResourceExhaustedError) as caught:
        call(lease, b"x", PATIENCE)
    error = caught.value
    assert (error.message, error.reason, error.request_id) == ("not now", "OVERLOADED", "abc")
    assert (error.retryable, error.retry_after) == (True, 0.25)
    assert [(each.field, each.description) for each in error.violations] == [("inputs", "many")]
    assert call(lease, b"y", PATIENCE) == b"y"


@both
@pytest.mark.parametrize("sent", [0, 5, 12])
def test_an_answer_that_comes_late_is_nobodys(
    call: Call, ends: tuple[Lease, Server], sent: int
) -> None:
    """After a timeout calls go by gRPC until that answer has come, and are then made again."""
    lease, server = ends
    late = HEADER.pack(70_000, 0) + bytes(70_000)

    def begin() -> None:
        server.read()
        server.connection.sendall(late[:sent])

    def go_on() -> None:
        server.connection.sendall(late[sent:])
        server.echo()

    reader = beside(begin)
    with pytest.raises(DeadlineExceededError, match=r"no answer within 0\.2 s"):
        call(lease, b"x", 0.2)
    reader.join()
    assert call(lease, b"y", PATIENCE) is None
    beside(go_on)
    end = time.monotonic() + PATIENCE
    while (answer := call(lease, b"z", PATIENCE)) is None:
        assert time.monotonic() < end
        time.sleep(0.01)
    assert answer == b"z"


def test_a_task_that_is_cancelled_leaves_an_answer_behind(ends: tuple[Lease, Server]) -> None:
    """It is passed over as one that comes late."""
    lease, server = ends

    async def run() -> None:
        waiting = asyncio.ensure_future(lease.call_async(b"x", PATIENCE))
        assert (await asyncio.to_thread(server.read))[0] == b"x"
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert await lease.call_async(b"y", PATIENCE) is None
        server.write(b"x")
        beside(server.echo)
        assert await lease.call_async(b"z", PATIENCE) == b"z"

    asyncio.run(run())


@both
@pytest.mark.parametrize("when", ["before", "instead of an answer", "within an answer"])
def test_what_the_end_means_is_for_grpc_to_tell(
    call: Call, ends: tuple[Lease, Server], when: str
) -> None:
    """A connection that has ended gives no answers, and no errors."""
    lease, server = ends

    def serve() -> None:
        if when != "before":
            server.read()
        if when == "within an answer":
            server.connection.sendall(HEADER.pack(10, 0) + b"half")
        server.connection.close()

    beside(serve).join(PATIENCE if when == "before" else 0)
    for _ in range(3):
        assert call(lease, b"x", PATIENCE) is None


def test_a_request_that_is_sent_by_half_is_the_last(ends: tuple[Lease, Server]) -> None:
    """The server would take what comes next for the rest of it."""
    lease, server = ends
    with pytest.raises(DeadlineExceededError):
        lease.call(bytes(LONGEST), 0.1)
    drained = beside(server.echo)
    assert lease.call(b"x", PATIENCE) is None
    server.connection.shutdown(socket.SHUT_RDWR)
    drained.join()


def test_nobody_waits_for_another_ones_call(ends: tuple[Lease, Server]) -> None:
    """While one is under way, others go by gRPC."""
    lease, server = ends
    found: list[bytes | None] = []
    first = beside(lambda: found.append(lease.call(b"first", PATIENCE)))
    assert server.read()[0] == b"first"
    assert lease.call(b"second", PATIENCE) is None
    server.write(b"done")
    first.join()
    assert found == [b"done"]


@both
def test_closing_interrupts_a_call(call: Call) -> None:
    """A call on another thread ends at once, and the server notices nothing."""
    ours, theirs = socket.socketpair()
    interrupt = Interrupt()
    with ours, theirs:
        lease, server = Lease(ours, LONGEST, interrupt), Server(theirs)
        found: list[bytes | None] = []
        calling = beside(lambda: found.append(call(lease, b"x", PATIENCE)))
        server.read()
        interrupt.set()
        calling.join(PATIENCE)
        assert found == [None]
        assert call(lease, b"x", PATIENCE) is None
        server.write(b"late")
        theirs.settimeout(0)
        with pytest.raises(BlockingIOError):
            theirs.recv(1)


def test_a_lease_is_closed_when_its_call_is_over(ends: tuple[Lease, Server]) -> None:
    """Before that, its descriptor's number could become another connection's."""
    lease, server = ends
    found: list[bytes | None] = []
    calling = beside(lambda: found.append(lease.call(b"x", PATIENCE)))
    server.read()
    lease.close()
    server.write(b"answer")
    calling.join(PATIENCE)
    assert found == [b"answer"]
    assert lease.has_ended
    with pytest.raises(ConnectionError):
        receive(server.connection, 1)
