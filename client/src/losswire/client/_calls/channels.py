"""The channels of a client, one to each target."""

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, TypeVar, overload
from weakref import WeakSet

import grpc
import grpc.aio

from losswire.client._calls.identity import RESOLVED, Identity
from losswire.client._calls.operations import Calls
from losswire.client._calls.session import Session
from losswire.client._messages import thresholds
from losswire.client._version import __version__

_C = TypeVar("_C", grpc.Channel, grpc.aio.Channel)


_Options = tuple[tuple[str, Any], ...]


def _balanced(policy: str, **settings: str) -> _Options:
    """Return the option that says how calls go round the addresses of one name."""
    config = {"loadBalancingConfig": [{policy: settings}]}
    return (("grpc.service_config", json.dumps(config)),)


_IN_TURN: Final = _balanced("round_robin")
_BY_LOAD: Final = _balanced(
    "weighted_round_robin",
    blackoutPeriod=thresholds.WEIGHT_AFTER,
    weightUpdatePeriod=thresholds.WEIGHT_PERIOD,
)
"""In turn, too, until servers say how busy they are (ORCA's load reports)."""

_OPTIONS: Final[_Options] = (
    ("grpc.primary_user_agent", f"losswire-python/{__version__}"),
    # The SDK's own policy retries (see retry.py).
    ("grpc.enable_retries", 0),
    # The server, which knows its memory, refuses messages that are too large.
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    # A connection that died silently is noticed after 80 s instead of never.
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    # A server that comes back is found again within a second. One that accepts
    # no connection within five is left for another one.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    ("grpc.min_reconnect_backoff_ms", 5_000),
    # The environment's proxy would see the token of a connection without TLS.
    ("grpc.enable_http_proxy", 0),
)


class Channels(Sequence[_C]):
    """The channels of a client, which are made anew when its certificates have changed.

    Those before them are not closed: gRPC does it when nobody uses them any more.
    """

    def __init__(self, session: Session, make: Callable[[str, Identity], _C]) -> None:
        """Make a channel to each target; the first call connects."""
        self._session = session
        self._make: Callable[[str, Identity], _C] = make
        self._lock = threading.Lock()
        self._ever: WeakSet[_C] = WeakSet()
        self._connect()

    def _connect(self) -> None:
        identity = self._session.identity
        self._generation = identity.generation
        self._made: list[_C] = [self._make(name, identity) for name in self._session.targets]
        self._ever.update(self._made)
        self.methods = [Calls(each) for each in self._made]
        """The methods of each target that have one answer."""

    def follow(self) -> None:
        """Take what has changed on disk."""
        identity = self._session.identity
        identity.follow()
        if identity.generation != self._generation and not self._session.closed:
            with self._lock:
                if identity.generation != self._generation:
                    self._connect()

    def all(self) -> Sequence[_C]:
        """Return the channels, and those that were replaced and still carry calls."""
        return tuple(self._ever)

    def __len__(self) -> int:
        return len(self._made)

    def __iter__(self) -> Iterator[_C]:
        return iter(self._made)

    @overload
    def __getitem__(self, index: int) -> _C: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[_C]: ...
    def __getitem__(self, index: int | slice) -> _C | Sequence[_C]:
        if self._session.identity.watches:
            self.follow()
        return self._made[index]


def connect(session: Session) -> Channels[grpc.Channel]:
    """Make a channel to each target."""
    return Channels(session, channel_to)


def connect_async(session: Session) -> Channels[grpc.aio.Channel]:
    """Make a channel to each target, for the running event loop."""
    return Channels(session, _async_channel_to)


def _options_of(target: str) -> _Options:
    return (*_OPTIONS, *(_BY_LOAD if target.startswith(RESOLVED) else _IN_TURN))


def channel_to(target: str, identity: Identity) -> grpc.Channel:
    """Make a channel to one target."""
    credentials = identity.credentials_for(target)
    if credentials is None:
        return grpc.insecure_channel(target, _options_of(target))
    return grpc.secure_channel(target, credentials, _options_of(target))


def _async_channel_to(target: str, identity: Identity) -> grpc.aio.Channel:
    credentials = identity.credentials_for(target)
    if credentials is None:
        return grpc.aio.insecure_channel(target, _options_of(target))
    return grpc.aio.secure_channel(target, credentials, _options_of(target))
