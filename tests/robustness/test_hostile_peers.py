"""Peers that speak nonsense, flood or say nothing, at every address that a server has."""

import random
import socket
import ssl
import struct
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from losswire.client import Client
from tests.support.doors import Doors, open_doors
from tests.support.reset_storm import PREFACE, frame
from tests.support.soak import record, tier
from tests.support.vitals import PeakMemory, vitals, wait_until
from tests.support.witness import witness

_MIB: Final = 1 << 20
_SECONDS: Final = 5.0
"""How long a peer waits for the server to take its bytes, or to say something."""
_DATA, _HEADERS, _PRIORITY, _SETTINGS, _PUSH, _PING, _GOAWAY, _WINDOW, _CONTINUATION = (
    *(0, 1, 2, 4, 5),
    *(6, 7, 8, 9),
)


def _client_hello() -> bytes:
    """Return what a client of TLS says first."""
    out = ssl.MemoryBIO()
    context = ssl.create_default_context()
    with suppress(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), out, server_hostname="localhost").do_handshake()
    return out.read()


def _noise(size: int) -> bytes:
    return random.Random(size).randbytes(size)  # noqa: S311 (the same in each run)


_HELLO: Final = PREFACE + frame(_SETTINGS, 0, 0)

_NONSENSE: Final[Mapping[str, bytes]] = {
    "noise": _noise(4096),
    "zeros": bytes(4096),
    "TLS": _client_hello(),
    "HTTP/1.1": b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n",
    "a line without end": b"a" * _MIB,
    "half a preface": PREFACE[:11],
    "noise as a frame": _HELLO + frame(_HEADERS, 4, 1, _noise(512)),
    "a frame of a length that is forbidden": _HELLO + struct.pack(">I", 0xFFFFFF00) + bytes(64),
    "headers for stream 0": _HELLO + frame(_HEADERS, 4, 0, b"\x82"),
    "data for a stream that is not open": _HELLO + frame(_DATA, 1, 7, bytes(1024)) * 8,
    "a pushed stream": _HELLO + frame(_PUSH, 4, 1, bytes(8)),
    "a window beyond its limit": _HELLO + frame(_WINDOW, 0, 0, struct.pack(">I", 0x7FFFFFFF)) * 2,
    "pings": _HELLO + frame(_PING, 0, 0, bytes(8)) * 20_000,
    "settings": _HELLO + frame(_SETTINGS, 0, 0, struct.pack(">HI", 4, 65_535)) * 20_000,
    "priorities": _HELLO + frame(_PRIORITY, 0, 1, struct.pack(">IB", 0, 1)) * 20_000,
    "headers that never end": _HELLO
    + frame(_HEADERS, 0, 1, b"\x82")
    + frame(_CONTINUATION, 0, 1, b"\x00\x01a\x7f\x80\x7e" + b"b" * 16_000) * 500,
    "a header that grows": _HELLO
    + frame(_HEADERS, 4, 1, b"\x40\x01a\x7f\xa1\x1e" + b"b" * 4000 + b"\xbe" * 12_000),
    "goodbye": _HELLO + frame(_GOAWAY, 0, 0, bytes(8)),
}


@dataclass(frozen=True)
class Place:
    """A server's addresses, those of its unix sockets included."""

    doors: Doors
    plain: str
    """A further server's, for peers that come by TCP."""
    plain_pid: int
    region_socket: Path

    def addresses(self) -> dict[str, str]:
        """Return where peers can connect."""
        return {
            "gRPC by TCP": self.plain,
            "gRPC by a unix socket": self.doors.grpc,
            "HTTP": self.doors.http,
            "metrics": self.doors.metrics,
            "region socket": f"unix:{self.region_socket}",
        }

    def descriptors(self) -> int:
        """Return how many descriptors both processes have open."""
        return sum(vitals(pid).descriptors for pid in (self.doors.pid, self.plain_pid))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A server that listens on unix sockets and serves HTTP and metrics, and one on TCP."""
    folder = tmp_path_factory.mktemp("sockets")
    region_socket = folder / "regions"
    budget = ("--memory-budget-mib", "256")
    with (
        open_doors(
            *budget, "--listen", f"unix:{folder / 'grpc'}", "--region-socket", str(region_socket)
        ) as doors,
        open_doors(*budget) as other,
    ):
        yield Place(doors, other.grpc, other.pid, region_socket)


def _connect(address: str) -> socket.socket:
    """Connect to HOST:PORT or unix:PATH."""
    if address.startswith("unix:"):
        connected = socket.socket(socket.AF_UNIX)
        connected.settimeout(_SECONDS)
        connected.connect(address.removeprefix("unix:"))
        return connected
    host, _, port = address.rpartition(":")
    return socket.create_connection((host, int(port)), timeout=_SECONDS)


def _say(address: str, data: bytes) -> None:
    """Connect, send as much as the server takes, hear something, and go."""
    with _connect(address) as peer, suppress(OSError):
        peer.sendall(data)
        peer.settimeout(0.05)
        peer.recv(4096)


def _check(address: str) -> None:
    """Check that an honest caller is served."""
    with Client(address) as client:
        result = client.evaluate("mse_loss", {"input": [1.0, 2.0], "target": [0.0, 0.0]})
        assert float(result.loss) == 2.5
        with client.region(4096) as region:
            one, other = region.array(2), region.array(2)
            one[...], other[...] = (1.0, 3.0), (0.0, 0.0)
            assert float(client.evaluate("mse_loss", {"input": one, "target": other}).loss) == 5.0


def test_nonsense_harms_nobody(place: Place) -> None:
    """At each address: honest callers are served meanwhile, memory and descriptors return."""
    for address in (place.plain, place.doors.grpc):
        _check(address)
    descriptors = place.descriptors()
    with (
        witness(place.plain, "health") as health,
        witness(place.plain, "sdk") as sdk,
        PeakMemory(place.doors.pid, place.plain_pid) as memory,
    ):
        for address in place.addresses().values():
            for _ in range(tier(short=2, soak=20)):
                for data in _NONSENSE.values():
                    _say(address, data)
        reports = {"health": health.report(), "sdk": sdk.report()}
    wait_until(lambda: place.descriptors() <= descriptors)
    for kind, report in reports.items():
        assert (report.failed, report.seconds != []) == (0, True), (kind, report.errors)
    assert memory.growth_bytes <= 64 * _MIB
    for address in (place.plain, place.doors.grpc):
        _check(address)
    record("growth of memory", memory.growth_bytes / _MIB, unit="MiB", required="<= 64")
    record("health, p99", reports["health"].p99_ms, unit="ms", required="<= 100")


def test_who_says_nothing_is_cut(place: Place) -> None:
    """A connection at any address that says nothing is ended, and its descriptor closed."""
    descriptors = place.descriptors()
    peers = {
        name: [_connect(address) for _ in range(tier(short=4, soak=40))]
        for name, address in place.addresses().items()
    }
    try:
        for name, each in peers.items():
            taken = wait_until(lambda each=each: all(map(_ended, each)), 90)  # type: ignore[misc]
            record(f"silent peers cut, {name}", taken, unit="s")
            assert taken < 60
    finally:
        for each in peers.values():
            for peer in each:
                peer.close()
    wait_until(lambda: place.descriptors() <= descriptors)
    _check(place.doors.grpc)


def _ended(peer: socket.socket) -> bool:
    """Return whether the server has ended a connection; what it says before is dropped."""
    peer.setblocking(False)  # noqa: FBT003 (as it is called)
    try:
        return not peer.recv(1 << 16)
    except BlockingIOError:
        return False
    except OSError:
        return True
