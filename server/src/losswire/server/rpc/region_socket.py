"""The unix socket that leases regions: a connection is the lease of the region that it redeemed.

The peer sends the token; the server answers with one byte and, beside it, the descriptor. After
that the peer may send evaluations. When the connection ends, for whatever reason, so does the
lease.
"""

import asyncio
import os
import socket
import stat
import struct
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Final, cast

from losswire.server import thresholds
from losswire.server.memory.regions.store import TOKEN_BYTES, RegionStore
from losswire.server.private_folder import PrivateFolder, new_path
from losswire.server.rpc.calls import Gate
from losswire.server.rpc.lease_calls import LeaseCalls, Respond

GRANTED: Final = b"\x01"
"""The byte that is sent together with the descriptor."""

_CREDENTIALS: Final = struct.Struct("iII")
"""The kernel's `struct ucred`: process, user and group of the peer."""

_ROOT: Final = 0


class RegionSocket:
    """Listens until it is closed, and then removes the files that it created."""

    def __init__(
        self,
        store: RegionStore,
        path: str,
        respond: Respond,
        max_request_bytes: int,
        gate: Gate,
    ) -> None:
        """Listen at a path, or in a new private folder when it is empty.

        `respond` answers the requests that come over leases, of at most `max_request_bytes` each.
        The `gate` reserves their memory, and ends peers that send or take them too slowly.

        Raises OSError when the path cannot be used, for example because a server listens there.
        """
        self._store = store
        self._respond = respond
        self._gate = gate
        self._max_request_bytes = max_request_bytes
        self._calls: set[LeaseCalls] = set()
        self._folder = None if path else PrivateFolder(new_path())
        self._path = Path(path) if self._folder is None else self._folder.path / "regions.sock"
        self._leases: set[asyncio.Task[None]] = set()
        self._waiting: dict[asyncio.Task[None], None] = {}
        """The peers whose token is still to come, the oldest first."""
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._bind()
        except BaseException:
            self._listener.close()
            self._remove_folder()
            raise
        self._loop = asyncio.get_running_loop()
        self._retry: asyncio.TimerHandle | None = None
        """The timer of the next try to accept, after one that failed."""
        self._listen()
        store.socket_path = str(self._path)
        store.max_request_bytes = max_request_bytes

    def _bind(self) -> None:
        if self._folder is None:
            _remove_stale(self._path)
        # Before the path exists, so that no other user can connect in between.
        os.fchmod(self._listener.fileno(), stat.S_IRUSR | stat.S_IWUSR)
        self._listener.bind(str(self._path))
        self._listener.listen(thresholds.TOKEN_PEERS_IN_LINE)
        self._listener.setblocking(False)  # noqa: FBT003 - the name says it

    async def close(self, drain_seconds: float) -> None:
        """Answer the current requests, for some seconds, then end all leases and stop listening."""
        if self._listener.fileno() < 0:  # closed already
            return
        self._loop.remove_reader(self._listener)
        if self._retry is not None:
            self._retry.cancel()
        self._store.retire()
        for each in self._calls:
            each.finish()
        if self._calls:
            await asyncio.wait([each.ended for each in self._calls], timeout=drain_seconds)
        self._store.close()
        for lease in self._leases:
            lease.cancel()
        await asyncio.gather(*self._leases, return_exceptions=True)
        self._listener.close()
        with suppress(OSError):
            self._path.unlink()
        self._remove_folder()

    def _remove_folder(self) -> None:
        if self._folder is not None:
            self._folder.remove()

    def _listen(self) -> None:
        """Accept connections from now on, one in each turn of the event loop."""
        self._retry = None
        self._loop.add_reader(self._listener, self._accept)

    def _accept(self) -> None:
        """Accept a connection. No task does this: one that is cancelled may lose the connection."""
        try:
            peer, _ = self._listener.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return
        except OSError:
            # Out of descriptors, for example: others will be closed.
            self._loop.remove_reader(self._listener)
            self._retry = self._loop.call_later(thresholds.ACCEPT_RETRY_SECONDS, self._listen)
            return
        if not _may_redeem(peer):
            peer.close()
            return
        if len(self._waiting) >= thresholds.MAX_TOKEN_PEERS:
            # Who means it sends the token at once: the oldest does not.
            oldest = next(iter(self._waiting))
            del self._waiting[oldest]
            oldest.cancel()
        lease = asyncio.create_task(self._serve(peer))
        self._leases.add(lease)
        self._waiting[lease] = None
        lease.add_done_callback(self._ended)
        # A task that is cancelled before its first turn never enters its context.
        lease.add_done_callback(partial(_close, peer))

    def _ended(self, lease: asyncio.Task[None]) -> None:
        self._leases.discard(lease)
        self._waiting.pop(lease, None)

    async def _serve(self, peer: socket.socket) -> None:
        """Serve one peer to the end of its connection."""
        with peer, suppress(OSError):
            peer.setblocking(False)  # noqa: FBT003 - the name says it
            token = await _read_token(peer)
            self._waiting.pop(cast("asyncio.Task[None]", asyncio.current_task()), None)
            region = self._store.redeem(token) if token else None
            if region is None:
                return
            try:
                socket.send_fds(peer, [GRANTED], [region.memory.caller_descriptor])
                region.memory.close_caller_descriptor()
                await self._serve_lease(peer)
            finally:
                self._store.end(region)

    async def _serve_lease(self, peer: socket.socket) -> None:
        """Answer the requests of a connection until it ends."""
        calls = LeaseCalls(self._respond, self._max_request_bytes, self._gate)
        loop = asyncio.get_running_loop()
        await loop.connect_accepted_socket(lambda: calls, peer)
        self._calls.add(calls)
        try:
            await calls.ended
        finally:
            self._calls.discard(calls)
            calls.abort()


def _close(peer: socket.socket, lease: "asyncio.Task[None]") -> None:
    """Close the connection of a lease that has ended; nothing when it is closed."""
    del lease
    peer.close()


def _may_redeem(peer: socket.socket) -> bool:
    """Return whether the peer runs as the server's own user, or as root.

    Such a peer could read the server's memory anyway. Everyone who can reach the gRPC port
    can ask for a token, so a token alone is not enough.
    """
    credentials = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    _, user, _ = _CREDENTIALS.unpack(credentials)
    return user in (os.geteuid(), _ROOT)


async def _read_token(peer: socket.socket) -> bytes:
    """Read a token; empty when it does not come in time, or not completely."""
    loop = asyncio.get_running_loop()
    token = b""
    with suppress(TimeoutError):
        async with asyncio.timeout(thresholds.TOKEN_READ_SECONDS):
            while len(token) < TOKEN_BYTES:
                part = await loop.sock_recv(peer, TOKEN_BYTES - len(token))
                if not part:
                    return b""
                token += part
            return token
    return b""


def _remove_stale(path: Path) -> None:
    """Remove the socket of a server that has ended; OSError when one listens there."""
    if not path.is_socket():
        return  # `bind` fails on anything else
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
    message = "a server listens there"
    raise OSError(message)
