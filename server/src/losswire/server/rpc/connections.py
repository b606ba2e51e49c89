"""Ends connections: of callers who do not take their answers, which nothing else frees.

gRPC neither aborts a message that waits for the caller's window nor closes a connection; the
socket's own shutdown does. Needs Linux, and TCP: peers of a unix socket have no names.
"""

import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final
from urllib.parse import unquote

_DESCRIPTORS: Final = Path("/proc/self/fd")
_MAPPED: Final = "::ffff:"
"""The beginning of an IPv4 address as a socket for both versions shows it."""


def end_connection(peer: str) -> bool:
    """End the connection of a peer, as gRPC names it; returns whether it was found."""
    name = _parse(peer)
    if name is None:
        return False
    for connection in _connections():
        try:
            address = connection.getpeername()
            if isinstance(address, tuple) and _named(address) == name:
                connection.shutdown(socket.SHUT_RDWR)
                return True
        except OSError:  # not connected
            continue
        finally:
            # The descriptor is gRPC's.
            connection.detach()
    return False


def _parse(peer: str) -> tuple[str, int] | None:
    """Return host and port of `ipv4:HOST:PORT` or `ipv6:[HOST]:PORT`; None for other peers."""
    kind, _, rest = unquote(peer).partition(":")
    host, _, port = rest.rpartition(":")
    if kind not in {"ipv4", "ipv6"} or not port.isdigit():
        return None
    return host.strip("[]").partition("%")[0].removeprefix(_MAPPED), int(port)


def _named(address: tuple[str, int]) -> tuple[str, int]:
    return address[0].partition("%")[0].removeprefix(_MAPPED), address[1]


def _connections() -> Iterator[socket.socket]:
    """Yield all sockets of this process, whose descriptors stay open."""
    with suppress(FileNotFoundError):  # not Linux
        for each in _DESCRIPTORS.iterdir():
            try:
                yield socket.socket(fileno=int(each.name))
            except OSError:  # no socket, or closed by now
                continue
