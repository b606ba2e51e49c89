"""Requests whose end or header another reader could see elsewhere are refused."""

import asyncio

import pytest

from tests.support.http_door import Door
from tests.support.raw_http import Dialer

_POST = b"POST /v1/evaluate HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
_CHUNKED = b"transfer-encoding: chunked\r\n"
_EMPTY = b"\r\n0\r\n\r\n"

REQUESTS = {
    "a length and chunks": _POST + b"content-length: 5\r\n" + _CHUNKED + _EMPTY,
    "chunks and a length": _POST + _CHUNKED + b"content-length: 5\r\n" + _EMPTY,
    "two lengths": _POST + b"content-length: 5\r\ncontent-length: 6\r\n\r\n123456",
    "a signed length": _POST + b"content-length: +5\r\n\r\n12345",
    "chunks of HTTP/1.0": _POST.replace(b"1.1", b"1.0") + _CHUNKED + _EMPTY,
    "another coding": _POST + b"transfer-encoding: gzip, chunked\r\n" + _EMPTY,
    "a blank before the colon": _POST + b"transfer-encoding : chunked\r\n" + _EMPTY,
    "a chunk of less than nothing": _POST + _CHUNKED + b"\r\n-1\r\nx\r\n",
    "two hosts": b"GET / HTTP/1.1\r\nhost: localhost\r\nhost: other\r\n\r\n",
    "no host": b"GET / HTTP/1.1\r\n\r\n",
    "a long address at once": b"GET /" + b"a" * 17_000 + b" HTTP/1.1\r\nhost: localhost\r\n\r\n",
    "many fields at once": b"GET / HTTP/1.1\r\nhost: localhost\r\n"
    + b"abc: d\r\n" * 5000
    + b"\r\n",
}


@pytest.mark.parametrize("request_", REQUESTS.values(), ids=REQUESTS)
def test_a_request_of_two_meanings_is_refused(door: Door, request_: bytes) -> None:
    """It is one problem, and the end of the connection: nothing behind it is a request."""

    async def run() -> None:
        async with Dialer(door.address) as dial:
            wire = await dial.open()
            await wire.send(request_ + b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n")
            assert await wire.problem() == (400, "MALFORMED_MESSAGE")
            assert await wire.ended()

    asyncio.run(run())
