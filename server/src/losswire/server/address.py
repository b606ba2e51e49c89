"""The addresses to listen at."""

import errno
import ipaddress
import socket
from dataclasses import dataclass
from typing import Final

_REASONS: Final = {
    errno.EADDRINUSE: "another program does already",
    errno.EADDRNOTAVAIL: "this machine does not have the address",
    errno.EACCES: "this user may not; ports below 1024 need privileges",
}
"""Why an address cannot be listened at, by the number of the system's error."""


class StartError(Exception):
    """The server cannot start with its settings; the text says what to change."""


@dataclass(frozen=True, slots=True)
class Address:
    """The address to listen at."""

    text: str
    host: str
    """Empty for a unix socket."""

    @classmethod
    def parse(cls, text: str, option: str = "--listen") -> "Address":
        """Read the `HOST:PORT` or `unix:PATH` of an option; StartError for anything else."""
        if text.startswith("unix:"):
            return cls(text, "")
        host, colon, port = text.rpartition(":")
        if not colon or not host or not _is_number(port) or int(port) > 65535:  # noqa: PLR2004 (the largest port)
            message = f"{option} {text}: expected HOST:PORT or unix:PATH"
            raise StartError(message)
        host = host.strip("[]")
        try:
            host.encode("idna")
        except UnicodeError:
            message = f"{option} {text}: {host} is no name of a host"
            raise StartError(message) from None
        return cls(text, host)

    @classmethod
    def parse_tcp(cls, text: str, option: str) -> "Address":
        """Read the `HOST:PORT` of an option; StartError for anything else."""
        try:
            address = cls.parse(text)
        except StartError:
            address = cls(text, "")
        if address.host:
            return address
        message = f"{option} {text}: expected HOST:PORT"
        raise StartError(message)

    def check_allowed(self, option: str, *, allowed: bool) -> None:
        """Raise StartError when other machines can call, and that is not allowed."""
        if self.local or allowed:
            return
        message = (
            f"{option} {self.text} can be reached from other machines: give --tls-cert and "
            "--tls-key, which `losswire-server tls` can make, and --tokens, which `losswire-server "
            "token` makes, or --tls-client-ca; say --allow-insecure to do without"
        )
        raise StartError(message)

    @property
    def port(self) -> int:
        """The port."""
        return int(self.text.rpartition(":")[2])

    def with_port(self, port: int) -> str:
        """Return the address with the port that was picked."""
        return f"{self.text.rpartition(':')[0]}:{port}" if self.host else self.text

    @property
    def local(self) -> bool:
        """Whether only this machine can call."""
        if self.host in ("", "localhost"):
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal()


def cannot_listen(option: str, text: str, error: OSError) -> StartError:
    """Return the error of an address at which the system does not let this server listen."""
    if isinstance(error, socket.gaierror):
        reason = "there is no host of this name"
    else:
        reason = _REASONS.get(error.errno or 0) or error.strerror or str(error)
    return StartError(f"{option} {text}: cannot listen there: {reason}")


def why_not(address: Address) -> OSError:
    """Return why gRPC cannot listen at an address, which it does not say itself."""
    if address.host:
        try:
            listening_socket(address).close()
        except OSError as error:
            return error
    return OSError("most often another program does")


def listening_socket(address: Address) -> socket.socket:
    """Return a socket that listens at an address of TCP; OSError when that fails."""
    [found, *_] = socket.getaddrinfo(
        address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    family, kind, protocol, _, place = found
    bound = socket.socket(family, kind, protocol)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(place)
        # Now, so that an address in use is seen before anything else starts.
        bound.listen()
    except OSError:
        bound.close()
        raise
    return bound
