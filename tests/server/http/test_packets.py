"""Short answers leave as one packet, header and body, however many share a connection."""

import json
import socket

import pytest

from tests.support.http_door import SECONDS, Door

_HEAD = b" HTTP/1.1\r\nhost: localhost\r\n"
_BODY = json.dumps({"loss": "mse_loss", "inputs": {"input": [1.0], "target": [3.0]}}).encode()

REQUESTS = {
    "health": (b"GET /healthz" + _HEAD + b"\r\n", 200),
    "an evaluation": (
        b"POST /v1/evaluate"
        + _HEAD
        + b"content-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(_BODY)
        + _BODY,
        200,
    ),
    "a problem": (b"GET /nowhere" + _HEAD + b"\r\n", 404),
}


def _one_packet(connection: socket.socket, request: bytes) -> tuple[int, int, bytes]:
    """Return the status, the declared length and the body of what is received at once."""
    connection.sendall(request)
    head, _, body = connection.recv(1 << 16).partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    fields = dict(each.split(": ", 1) for each in lines)
    return int(first.split()[1]), int(fields["content-length"]), body


@pytest.mark.parametrize(("request_", "status"), REQUESTS.values(), ids=REQUESTS)
def test_a_short_answer_is_one_packet(door: Door, request_: bytes, status: int) -> None:
    """The header comes with the whole body, the first time and the next."""
    host, _, port = door.address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=SECONDS) as connection:
        for _ in range(2):
            found, length, body = _one_packet(connection, request_)
            assert (found, len(body)) == (status, length)
            assert body


def test_a_header_without_a_body_does_not_wait_for_one(door: Door) -> None:
    """The answer to HEAD is the header alone, and the connection goes on."""
    host, _, port = door.address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=SECONDS) as connection:
        for _ in range(2):
            status, length, body = _one_packet(connection, b"HEAD /healthz" + _HEAD + b"\r\n")
            assert (status, body) == (200, b"")
            assert length
