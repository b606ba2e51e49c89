"""The addresses that all workers share; the supervisor holds them while workers come and go."""

import socket
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import Final

from losswire.server.address import Address, StartError, cannot_listen, listening_socket
from losswire.server.settings import Settings

_ANY: Final = ("0.0.0.0", "::")  # noqa: S104 (compared with, not listened at)


class Addresses:
    """All addresses of a server, until they are closed."""

    def __init__(self, settings: Settings) -> None:
        """Bind the addresses of the settings; StartError when one cannot be bound."""
        allowed = settings.lets_others_call
        with ExitStack() as taken:
            self._port = HeldPort(settings.listen, allowed=allowed)
            taken.callback(self._port.close)
            self._http = _listener("--http", settings.http, allowed=allowed)
            if self._http:
                taken.callback(self._http.close)
            # Nothing but health is told there, for which probes come from other machines.
            self._health = (
                HeldPort(settings.health, allowed=True, option="--health")
                if settings.health
                else None
            )
            if self._health:
                taken.callback(self._health.close)
            self._metrics = _listener("--metrics", settings.metrics, allowed=allowed)
            taken.pop_all()

    @property
    def grpc(self) -> str:
        """Where gRPC is served, with the port that was picked."""
        return self._port.address

    @property
    def http(self) -> str:
        """Where HTTP is served; empty: nowhere."""
        return self._http.address if self._http else ""

    @property
    def metrics(self) -> str:
        """Where metrics are read; empty: nowhere."""
        return self._metrics.address if self._metrics else ""

    @property
    def health(self) -> str:
        """Where only health is answered; empty: nowhere."""
        return self._health.address if self._health else ""

    @property
    def http_descriptor(self) -> int | None:
        """The listening socket of HTTP, which workers inherit; None: there is none."""
        return self._http.descriptor if self._http else None

    @property
    def metrics_descriptor(self) -> int | None:
        """That of metrics."""
        return self._metrics.descriptor if self._metrics else None

    @property
    def descriptors(self) -> Sequence[int]:
        """All listening sockets."""
        return [each.descriptor for each in (self._http, self._metrics) if each]

    def close(self) -> None:
        """Close everything: once no worker listens either, callers are refused at once."""
        for each in (self._port, self._http, self._metrics, self._health):
            if each is not None:
                each.close()


class HeldPort:
    """A port of TCP, at which each worker listens with a socket of its own.

    The kernel spreads connections over their sockets. That of the supervisor only keeps the port,
    so that no other program gets it while no worker listens.
    """

    def __init__(self, text: str, *, allowed: bool, option: str = "--listen") -> None:
        """Bind an address, where port 0 picks a free one; StartError when that fails."""
        address = Address.parse(text, option)
        address.check_allowed(option, allowed=allowed)
        if not address.host:
            message = (
                f"{option} {address.text}: several workers cannot share a unix socket; "
                "with --workers, listen at HOST:PORT"
            )
            raise StartError(message)
        self._sockets: list[socket.socket] = []
        port = address.port
        try:
            for family, host in _hosts(address.host):
                held = _held(family, host, port)
                self._sockets.append(held)
                port = held.getsockname()[1]
        except OSError as error:
            self.close()
            raise cannot_listen(option, text, error) from error
        self.address = address.with_port(port)

    def close(self) -> None:
        """Close the port."""
        for each in self._sockets:
            each.close()


class SharedListener:
    """A listening socket that all workers have: whoever is free accepts the next connection."""

    def __init__(self, option: str, text: str, *, allowed: bool) -> None:
        """Listen at the address of an option; StartError when that is not possible."""
        address = Address.parse_tcp(text, option)
        address.check_allowed(option, allowed=allowed)
        try:
            self._socket = listening_socket(address)
        except OSError as error:
            raise cannot_listen(option, text, error) from error
        self.address = address.with_port(self._socket.getsockname()[1])

    @property
    def descriptor(self) -> int:
        """The descriptor, which workers inherit."""
        return self._socket.fileno()

    def close(self) -> None:
        """Listen no more, once no worker does."""
        self._socket.close()


def _listener(option: str, text: str, *, allowed: bool) -> SharedListener | None:
    return SharedListener(option, text, allowed=allowed) if text else None


def _hosts(host: str) -> Iterator[tuple[socket.AddressFamily, str]]:
    """Yield the addresses that gRPC listens at for a host."""
    if host in _ANY and socket.has_dualstack_ipv6():
        yield socket.AF_INET6, "::"
        return
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    for family, _, _, _, name in found:
        yield family, str(name[0])


def _held(family: socket.AddressFamily, host: str, port: int) -> socket.socket:
    """Return a socket that has a port, and shares it with those of the same user from then on."""
    held = socket.socket(family, socket.SOCK_STREAM)
    try:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6 and host == "::":
            held.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        held.bind((host, port))
        # Not before: another server's port, shared in the same way, would look free.
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    except OSError:
        held.close()
        raise
    return held
