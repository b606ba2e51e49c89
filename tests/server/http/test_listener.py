"""Callers who have reset their connection are dropped unserved; others wait for none of them."""

import asyncio
import json
import socket
import struct
from collections.abc import Iterator
from contextlib import closing

import pytest

from losswire.server.address import Address, listening_socket
from losswire.server.http import limits
from losswire.server.http.listener import Listener, is_gone
from tests.support.inside import Gate, serving_app, until
from tests.support.raw_http import Dialer


@pytest.fixture
def listener() -> Iterator[Listener]:
    """Listen at a port of this machine, without waiting in `accept`."""
    with closing(Listener.of(listening_socket(Address.parse("127.0.0.1:0")))) as found:
        found.setblocking(False)  # noqa: FBT003 (as it is called)
        found.listen(1024)
        yield found


def _connect(address: tuple[str, int]) -> socket.socket:
    """Connect; whoever closes it resets the connection."""
    connected = socket.create_connection(address)
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    return connected


def _storm(address: tuple[str, int], data: bytes, count: int) -> None:
    """Connect, send and reset, some times."""
    for _ in range(count):
        with _connect(address) as one:
            one.sendall(data)


def _request(number: float) -> bytes:
    """Return an evaluation of the gate for a number."""
    body = json.dumps({"loss": "gate", "inputs": {"input": [number]}}).encode()
    head = b"POST /v1/evaluate HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    return head + b"content-length: %d\r\n\r\n" % len(body) + body


def test_only_who_is_there_is_accepted(listener: Listener) -> None:
    """The next who is there comes first, whether or not those before have sent anything."""
    address = listener.getsockname()
    _storm(address, b"", 3)
    _storm(address, b"GET / HTTP/1.1\r\n", 3)
    with _connect(address) as caller:
        accepted, peer = listener.accept()
        with accepted:
            assert peer == caller.getsockname()
            assert not is_gone(accepted)
    with pytest.raises(BlockingIOError):
        listener.accept()


def test_dropping_gives_way_to_others(listener: Listener) -> None:
    """However many are gone, one step drops no more than the limit."""
    address = listener.getsockname()
    _storm(address, b"a", limits.HTTP_DROPPED_IN_A_ROUND)
    with _connect(address) as caller:
        with pytest.raises(BlockingIOError):
            listener.accept()
        accepted, peer = listener.accept()
        accepted.close()
        assert peer == caller.getsockname()


def test_a_caller_who_ends_tidily_is_not_gone(listener: Listener) -> None:
    """Bytes before a caller's end are still there to be read."""
    with socket.create_connection(listener.getsockname()) as caller:
        caller.sendall(b"a request")
        caller.shutdown(socket.SHUT_WR)
        accepted, _ = listener.accept()
        with accepted:
            assert not is_gone(accepted)
            assert accepted.recv(64) == b"a request"


def test_requests_of_callers_who_are_gone_are_not_computed() -> None:
    """Neither one that was reset before it was accepted, nor one reset before it was read."""

    async def run() -> list[float]:
        gate = Gate()
        async with serving_app(gate, http="127.0.0.1:0", metrics="127.0.0.1:0") as (app, _):
            host, _, port = app.http_address.rpartition(":")
            address = (host, int(port))
            accepted = _connect(address)
            async with Dialer(app.http_address) as dial:
                # In line behind it, so that it is accepted now.
                assert (await dial.ask("GET", "/healthz"))[0] == 200
                # The server shares this event loop: it sees nothing before all have been reset.
                _storm(address, _request(1.0), limits.HTTP_DROPPED_IN_A_ROUND + 8)
                with accepted:
                    accepted.sendall(_request(2.0))
                late = await dial.open()
                assert (await dial.ask("GET", "/healthz"))[0] == 200
                await late.send(_request(3.0))
                assert (await late.answer())[0] == 200
            host, _, port = app.metrics_address.rpartition(":")
            _storm((host, int(port)), b"GET /metrics HTTP/1.1\r\nhost: localhost\r\n\r\n", 8)
            async with Dialer(app.metrics_address) as dial:
                assert (await dial.ask("GET", "/metrics"))[0] == 200
            await until(lambda: app.evaluator.budget.reserved_bytes == 0)
        return gate.computed

    assert asyncio.run(run()) == [3.0]
