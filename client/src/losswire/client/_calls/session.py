"""The facts that all calls of a client share, such as its targets."""

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Real
from typing import Any, Protocol

import numpy as np

from losswire.client._calls.forks import begin_use
from losswire.client._calls.identity import RESOLVED, Identity, Metadata, is_loopback
from losswire.client._calls.identity_arguments import IdentityFields, read_arguments
from losswire.client._calls.interrupt import Interrupt
from losswire.client._calls.local import SCHEME, LocalServer, find_local
from losswire.client._calls.retry import Attempts, RetryPolicy, Rotation
from losswire.client._messages import thresholds
from losswire.client._messages.catalogue import LossInfo, ServerInfo

_SCHEMES = ("dns:", "ipv4:", "ipv6:", "unix:", "unix-abstract:", "vsock:", "xds:", "passthrough:")
_ADDRESS_LISTS = ("ipv4:", "ipv6:")


def parse_targets(target: str) -> list[str]:
    """Split a target into those that need a channel each.

    `host:port` and `[v6]:port`, several with commas between them, `local:`, and any name with a
    scheme that gRPC knows (`dns:///name:port`, `unix:/path`). gRPC spreads calls over all addresses
    of one name by itself; it has no way to write several names, so those get a channel each.
    """
    if not isinstance(target, str):
        raise TypeError(f"target: expected text such as '127.0.0.1:50051', got {target!r}")
    if target.startswith((*_ADDRESS_LISTS, SCHEME)):
        return [target]
    parts = [part.strip() for part in target.split(",")]
    for part in parts:
        if part.startswith(_SCHEMES):
            continue
        host, colon, port = part.rpartition(":")
        bracketed = host.startswith("[") and host.endswith("]")
        if not colon or not host or (":" in host and not bracketed):
            raise ValueError(f"target: expected host:port or [v6]:port, got {part!r}")
        if not (port.isascii() and port.isdigit() and 0 < int(port) < 2**16):
            raise ValueError(f"target: {port!r} in {part!r} is not a port number")
    return parts


def check_timeout(timeout: float | None, default: float) -> float:
    """Return the seconds that a call may take, at most `MAX_TIMEOUT_SECONDS`.

    Raises TypeError for no number, ValueError for one that is not greater than 0 and finite.
    """
    if timeout is None:
        return default
    # The first comparison is for speed: each call asks.
    if type(timeout) is not float and not _is_number(timeout):
        raise TypeError(f"timeout: expected a number of seconds, got {timeout!r}")
    if not 0 < timeout < math.inf:
        raise ValueError(f"timeout: expected seconds greater than 0 and finite, got {timeout}")
    return float(min(timeout, thresholds.MAX_TIMEOUT_SECONDS))


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, (bool, np.bool_))


class Cancellable(Protocol):
    """A call that any thread may end."""

    def cancel(self) -> None:
        """End it."""


@dataclass(slots=True)
class Session:
    """The facts that all calls of a client have in common. Does no I/O."""

    targets: Sequence[str]
    """The targets of the channels, one each."""
    timeout: float
    """The seconds that a call may take by default."""
    retry: RetryPolicy
    """When failed calls are tried again."""
    identity: Identity
    """Who the client is and whom it trusts."""
    wait_for_ready: float = thresholds.READY_SECONDS
    """The seconds that calls wait for a first answer of any target."""
    local: LocalServer | None = None
    """The server in this process, for the target `local:`."""
    server: ServerInfo | None = None
    """The cached description of the server; None before it is known. All servers of one client are
    assumed to be alike."""
    losses: Mapping[str, LossInfo] | None = None
    """The cached descriptions of its losses, by name; None before they are known."""
    closed: bool = False
    """Whether the client was closed."""
    interrupt: Interrupt = field(default_factory=Interrupt)
    """Ends the waiting of calls over leases when the client closes."""
    calls: set[Cancellable] = field(default_factory=set)
    """The calls under way that closing the channels does not end."""
    rotation: Rotation = field(init=False)
    process: int = field(init=False)

    def __post_init__(self) -> None:
        self.rotation = Rotation(self.targets, self.wait_for_ready, self.identity)
        self.process = os.getpid()

    @property
    def same_host(self) -> bool:
        """Whether there is one server, and it can only be on this machine."""
        # What is behind a name of gRPC's is for the resolver to say.
        is_one = len(self.targets) == 1 and not self.targets[0].startswith(RESOLVED)
        return is_one and is_loopback(self.targets[0])

    @property
    def is_inherited(self) -> bool:
        """Whether this process has the client from its parent, through a fork."""
        return os.getpid() != self.process

    @property
    def metadata(self) -> Metadata | None:
        """The metadata of each call but those with large messages."""
        return self.identity.metadata

    def metadata_of(self, request: bytes) -> Metadata | None:
        """Return the metadata of a call with this message."""
        identity = self.identity
        is_large = len(request) >= thresholds.LARGE_BYTES
        return identity.large_metadata if is_large else identity.metadata

    def beside(self) -> "Session":
        """Return a session of its own with the same arguments."""
        return Session(
            targets=self.targets,
            identity=self.identity,
            local=self.local,
            timeout=self.timeout,
            retry=self.retry,
            wait_for_ready=self.wait_for_ready,
        )

    def end_calls(self) -> None:
        """End the calls under way, for a client that is closed."""
        for each in tuple(self.calls):
            each.cancel()

    def forget_server(self) -> None:
        """Drop the cached descriptions, because the server may have been started again."""
        self.server = None
        self.losses = None

    def check_usable(self) -> None:
        """Refuse a client that was closed, or inherited through a fork; RuntimeError."""
        if self.closed:
            raise RuntimeError("this client is closed")
        if self.is_inherited:
            raise RuntimeError(
                f"this client belongs to process {self.process}, before a fork; its connections "
                "do not work here. Start processes with 'spawn' or 'forkserver', and make a "
                "client in each"
            )

    @property
    def needs_start(self) -> bool:
        """Whether the server is in this process and does not run yet; `start` starts it."""
        return self.local is not None and not self.local.is_ready

    def start(self) -> None:
        """Start the server in this process, where the target is one, and wait until it serves."""
        self.check_usable()
        if self.local is not None:
            self.local.start()

    def attempts(self, timeout: float | None, only: int | None = None) -> Attempts:
        """Start a call, to any target or only to the one with an index."""
        self.check_usable()
        if self.needs_start:
            self.start()
        seconds = self.timeout if timeout is None else check_timeout(timeout, self.timeout)
        return Attempts(self.retry, self.rotation, seconds, only)


def open_session(
    target: str,
    timeout: float,
    retry: RetryPolicy | None = None,
    identity: IdentityFields | None = None,
    *,
    wait_for_ready: float | bool | None = None,
) -> Session:
    """Check a client's arguments; TypeError or ValueError with the argument's name.

    ModuleNotFoundError for `local:` where the service is not installed; RuntimeError in a process
    where gRPC does not work after a fork.
    """
    targets, local = parse_targets(target), None
    begin_use()
    if target.startswith(SCHEME):
        # It is in this process: what the environment says of others does not concern it.
        arguments = read_arguments(identity or {}, {})
        if beyond := arguments.beyond_this_process:
            raise ValueError(f"{beyond}: a target local: is in this process and takes none")
        local = find_local(target)
        targets = [local.address]
    else:
        arguments = read_arguments(identity or {})
    return Session(
        targets=targets,
        identity=Identity(arguments),
        local=local,
        timeout=check_timeout(timeout, thresholds.DEFAULT_TIMEOUT_SECONDS),
        retry=retry or RetryPolicy(),
        wait_for_ready=_check_wait(wait_for_ready),
    )


def _check_wait(seconds: Any) -> float:
    """Return how many seconds to wait for a first answer; ValueError for no positive number."""
    if seconds is None or seconds is False:
        return thresholds.READY_SECONDS
    if seconds is True:
        return math.inf
    if not _is_number(seconds) or not seconds > 0:
        raise ValueError(
            f"wait_for_ready: expected seconds greater than 0, or True, got {seconds!r}"
        )
    # No call waits longer, and an int may be too large for a float.
    return float(min(seconds, thresholds.MAX_TIMEOUT_SECONDS))
