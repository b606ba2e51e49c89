"""The target `local:`: the service inside of the caller's own process.

It belongs to another distribution, which says by an entry point where it is: the SDK imports
nothing of it by name.
"""

from collections.abc import Callable, Mapping
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Final, Protocol
from urllib.parse import parse_qsl

SCHEME: Final = "local:"
_GROUP: Final = "losswire.local"
_CONSOLE_GROUP: Final = "losswire.console"


class DirectListener(Protocol):
    """Gets what happens in a call, on a thread of the server."""

    def taken(self) -> None:
        """Hear that the server has taken the next message."""

    def answered(self, answer: Any) -> None:
        """Get a SummarizeLossesResponse, which may be serialized."""

    def failed(self, code: int, status: bytes) -> None:
        """Hear that the call has failed: its canonical code, and a google.rpc.Status."""

    def ended(self) -> None:
        """Hear that the call has ended, after `failed` too: its arrays are not read any more."""


class DirectSummary(Protocol):
    """A SummarizeLosses whose tensors stay where they are. Any thread may use it."""

    def send(self, message: bytes, elements: Mapping[str, memoryview] = ...) -> None:
        """Add a message, and the elements that it is without, by the paths of their tensors."""

    def finish(self) -> None:
        """End the messages."""

    def cancel(self) -> None:
        """End the call, unless it has ended."""


class LocalServer(Protocol):
    """A server in this process; one for all clients of the same target."""

    @property
    def address(self) -> str:
        """The target to connect to, once it is started."""

    @property
    def is_ready(self) -> bool:
        """Whether it was started."""

    def start(self) -> None:
        """Start it and wait until it serves; nothing when it does already."""

    def open_summary(self, listener: DirectListener) -> DirectSummary:
        """Begin a SummarizeLosses, once it is started. Any thread may call."""


class ConsoleServer(Protocol):
    """A server in this process with the console, at an address of this machine."""

    @property
    def http_address(self) -> str:
        """The address of the console, once it is started: HOST:PORT."""

    @property
    def grpc_address(self) -> str:
        """The target of its gRPC services, once it is started."""

    @property
    def file_path(self) -> str:
        """The path at which the console reads the file; empty where there is none."""

    def start(self) -> None:
        """Start it and wait until it serves; RuntimeError when it cannot."""

    def stop(self) -> None:
        """End calls under way, then the server."""


def find_local(target: str) -> LocalServer:
    """Return the server of `local:`, or of `local:?threads=2&device=cpu`; starts nothing.

    Raises ValueError for what is no such target, and ModuleNotFoundError without its distribution.
    """
    return _installed()(_options_of(target))


@cache
def _installed() -> Callable[[Mapping[str, str]], LocalServer]:
    """Return the function of the service that takes a target's options; looks for it once."""
    found = entry_points(group=_GROUP)
    if not found:
        raise ModuleNotFoundError(
            "target: local: evaluates in this process, and needs the service installed beside the "
            "SDK: pip install losswire-server"
        )
    make: Callable[[Mapping[str, str]], LocalServer] = next(iter(found)).load()
    return make


def open_console(target: str, port: int, file: Path | None = None) -> ConsoleServer:
    """Return a server of its own with the console, for `local:` and its options; starts nothing.

    It listens at a port of 127.0.0.1, 0 being a free one, and serves `file` to the console.

    Raises ValueError for what is no such target, and ModuleNotFoundError without its distribution.
    """
    if not target.startswith(SCHEME):
        raise ValueError(
            f"--server {target}: the console of a server that runs is at its HTTP address, which "
            "--http names; --server takes local: or local:?threads=N&device=D"
        )
    found = entry_points(group=_CONSOLE_GROUP)
    if not found:
        raise ModuleNotFoundError(
            "the console is served by the service, which is not installed beside the SDK: pip "
            "install losswire-server, or name a server that runs by --http http://HOST:PORT"
        )
    make: Callable[[Mapping[str, str], int, Path | None], ConsoleServer]
    make = next(iter(found)).load()
    return make(_options_of(target), port, file)


def _options_of(target: str) -> dict[str, str]:
    """Return the options of a target."""
    rest = target.removeprefix(SCHEME)
    if rest and not rest.startswith("?"):
        raise ValueError(f"target: expected local: or local:?threads=N&device=D, got {target!r}")
    try:
        pairs = parse_qsl(rest[1:], keep_blank_values=True, strict_parsing=True) if rest[1:] else []
    except ValueError:
        raise ValueError(f"target: expected NAME=VALUE&... after local:?, got {target!r}") from None
    options = dict(pairs)
    if len(options) < len(pairs):
        raise ValueError(f"target: an option is given twice in {target!r}")
    return options
