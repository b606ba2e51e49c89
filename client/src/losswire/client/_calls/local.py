"""The target `local:`: the service inside of the caller's own process.

It belongs to another distribution, which says by an entry point where it is: the SDK imports
nothing of it by name.
"""

from collections.abc import Callable, Mapping
from functools import cache
from importlib.metadata import entry_points
from typing import Final, Protocol
from urllib.parse import parse_qsl

SCHEME: Final = "local:"
_GROUP: Final = "losswire.local"


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
