"""The listening socket of the HTTP door: callers who are gone already cost next to nothing."""

import socket
from typing import Any, Protocol, Self

from losswire.server.http import limits


class Listener(socket.socket):
    """A listening socket that accepts only connections which their callers have not reset.

    A storm of resets would otherwise fill the line of connections that wait to be accepted, each of
    which takes the event loop twenty times as long to serve as to drop.
    """

    @classmethod
    def of(cls, listening: socket.socket) -> Self:
        """Return one in the place of a listening socket, which is detached."""
        return cls(listening.family, listening.type, listening.proto, fileno=listening.detach())

    def accept(self) -> tuple[socket.socket, Any]:
        """Accept the next caller who is still there.

        BlockingIOError when none waits, or after so many who are gone that others have their turn.
        """
        for _ in range(limits.HTTP_DROPPED_IN_A_ROUND):
            accepted, peer = super().accept()
            if not is_gone(accepted):
                return accepted, peer
            accepted.close()
        raise BlockingIOError


class _HasOptions(Protocol):
    """A socket, or asyncio's view of one."""

    def getsockopt(self, level: int, optname: int, /) -> int:
        """Return the value of an option."""


def is_gone(connection: _HasOptions) -> bool:
    """Return whether the caller has reset a connection, of which bytes may still be unread."""
    return connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) != 0
