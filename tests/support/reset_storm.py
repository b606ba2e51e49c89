"""Storms of streams that are opened and reset at once, by frames made beforehand."""

import select
import socket
import struct
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from hpack import Encoder

from tests.support.http2 import EVALUATE

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_HEADERS, _RST_STREAM, _SETTINGS = 1, 3, 4
_END_HEADERS: Final = 4
_ACK: Final = 1
_CANCEL: Final = struct.pack(">I", 8)
_BATCH: Final = 50
"""Streams that are sent together."""


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """Return a frame of HTTP/2."""
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def _header() -> bytes:
    """Return a header block that says the same at every place of a connection."""
    fields = {
        ":method": "POST",
        ":scheme": "http",
        ":path": EVALUATE,
        ":authority": "localhost",
        "te": "trailers",
        "content-type": "application/grpc",
    }
    # What is marked as sensitive enters no table.
    block = Encoder().encode([(name, text, True) for name, text in fields.items()], huffman=False)
    return bytes(block)


_HEADER: Final = _header()


class _Peer:
    """One connection that opens and resets streams."""

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self._socket = socket.create_connection((host, int(port)), timeout=10)
        self._next = 1
        self._socket.sendall(PREFACE + frame(_SETTINGS, 0, 0) + frame(_SETTINGS, _ACK, 0))

    def send(self, count: int) -> None:
        """Open and reset so many streams; raises OSError when the server has enough."""
        numbers = range(self._next, self._next + 2 * count, 2)
        self._next += 2 * count
        self._socket.sendall(
            b"".join(
                frame(_HEADERS, _END_HEADERS, number, _HEADER)
                + frame(_RST_STREAM, 0, number, _CANCEL)
                for number in numbers
            )
        )
        while select.select([self._socket], [], [], 0)[0]:
            if not self._socket.recv(1 << 16):
                message = "the server has closed the connection"
                raise ConnectionError(message)

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()


@dataclass(frozen=True)
class Storm:
    """What a storm came to."""

    resets: int
    seconds: float
    closed: int
    """How often the server ended a connection, which was opened again."""


def reset_storm(address: str, connections: int, resets: int, seconds: float) -> Storm:
    """Open and reset streams over some connections, spread over a time; blocks meanwhile."""
    start, done, closed = time.monotonic(), 0, 0
    peers = [_Peer(address) for _ in range(connections)]
    try:
        while done < resets:
            place = done // _BATCH % connections
            try:
                peers[place].send(_BATCH)
            except OSError:
                closed += 1
                peers[place].close()
                with suppress(OSError):
                    peers[place] = _Peer(address)
            done += _BATCH
            ahead = start + seconds * done / resets - time.monotonic()
            time.sleep(max(ahead, 0))
    finally:
        for each in peers:
            each.close()
    return Storm(done, time.monotonic() - start, closed)
