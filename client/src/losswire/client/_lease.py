"""The connection by which a region is leased, over which evaluations can go as well.

What lies in shared memory need not be sent, and then most of a call is gRPC's own work: over
this connection it takes a fraction of the time. docs/protocol.md describes what is sent.
"""

import asyncio
import socket
import struct
import threading
import time
from contextlib import suppress
from typing import Final

from losswire.client._errors import DeadlineExceededError, error_from_details

_HEADER: Final = struct.Struct("<II")
"""Of a request: how many bytes follow, and how many milliseconds it may take. Of an answer: how
many bytes follow, and the code of a failure, or 0."""

_USUAL_BYTES: Final = 64 * 1024
"""What most answers fit into."""

_MOST_MILLISECONDS: Final = 2**32 - 1
_LEAST_SECONDS: Final = 1e-3
"""A timeout of 0 would mean not to wait at all."""


class Lease:
    """One connection. Any thread may use it; nobody ever waits for another one's call."""

    def __init__(self, connection: socket.socket, longest: int) -> None:
        """Take the connection, and how long a request may be; 0: none may be sent."""
        self._connection = connection
        self._longest = longest
        self._calling = threading.Lock()
        self._broken = not longest
        """Whether nothing can be sent any more."""
        self._owed = False
        """Whether an answer is still to come."""
        self._received = b""
        """What has come of it."""

    def call(self, request: bytes, seconds: float) -> bytes | None:
        """Make one call of Evaluate; gives its answer.

        None when it is not to be had this way, and has to be asked for by gRPC. Raises the
        LosswireError that the server answers with, and DeadlineExceededError.
        """
        if not self._begins(request):
            return None
        connection, end = self._connection, time.monotonic() + seconds
        try:
            connection.settimeout(seconds)
            connection.sendall(_framed(request, seconds))
            self._sent()
            while missing := self._missing():
                connection.settimeout(max(end - time.monotonic(), _LEAST_SECONDS))
                self._take(connection.recv(missing))
            answer = self._whole()
        except TimeoutError:
            raise _late(seconds) from None
        except OSError:
            return None
        finally:
            self._calling.release()
        return _body(answer)

    async def call_async(self, request: bytes, seconds: float) -> bytes | None:
        """Make one call, as `call` does, on the running event loop."""
        if not self._begins(request):
            return None
        connection, loop = self._connection, asyncio.get_running_loop()
        try:
            connection.settimeout(0)
            async with asyncio.timeout(seconds):
                await loop.sock_sendall(connection, _framed(request, seconds))
                self._sent()
                while missing := self._missing():
                    self._take(await loop.sock_recv(connection, missing))
            answer = self._whole()
        except TimeoutError:
            raise _late(seconds) from None
        except OSError:
            return None
        finally:
            self._calling.release()
        return _body(answer)

    @property
    def is_free(self) -> bool:
        """Whether a call can be made over it now, as far as can be seen without trying."""
        return not (self._broken or self._calling.locked())

    @property
    def has_ended(self) -> bool:
        """Whether no call will be made over it any more."""
        return self._broken and not self._calling.locked()

    def _begins(self, request: bytes) -> bool:
        """Begin a call, unless the request is too long or the connection is not free."""
        if len(request) > self._longest or not self._calling.acquire(blocking=False):
            return False
        if self._broken or (self._owed and not self._catches_up()):
            self._calling.release()
            return False
        # Until all of the request is sent.
        self._broken = True
        return True

    def _sent(self) -> None:
        self._broken, self._owed = False, True

    def _catches_up(self) -> bool:
        """Pass over the answer that nobody waited for, if it has come by now."""
        try:
            self._connection.settimeout(0)
            while missing := self._missing():
                self._take(self._connection.recv(missing))
        except BlockingIOError:
            return False
        except OSError:
            self._broken = True
            return False
        self._whole()
        return True

    def _missing(self) -> int:
        """Tell how many bytes to ask for; 0 when the answer is whole."""
        received = self._received
        if len(received) < _HEADER.size:
            return _USUAL_BYTES
        size: int = _HEADER.unpack_from(received)[0]
        return _HEADER.size + size - len(received)

    def _take(self, part: bytes) -> None:
        """Take what was received; nothing means that the connection has ended."""
        if not part:
            raise ConnectionError
        self._received += part

    def _whole(self) -> bytes:
        answer, self._received, self._owed = self._received, b"", False
        return answer

    def interrupt(self) -> None:
        """End the call under way, on whatever thread; the lease remains."""
        with suppress(OSError):
            self._connection.shutdown(socket.SHUT_RD)

    def close(self) -> None:
        """End the lease."""
        self._connection.close()


def _framed(request: bytes, seconds: float) -> bytes:
    milliseconds = min(max(int(seconds * 1000), 1), _MOST_MILLISECONDS)
    return _HEADER.pack(len(request), milliseconds) + request


def _late(seconds: float) -> DeadlineExceededError:
    return DeadlineExceededError(f"no answer within {seconds:g} s")


def _body(answer: bytes) -> bytes:
    """Give what follows the header; raises it if it is an error."""
    code: int = _HEADER.unpack_from(answer)[1]
    body = answer[_HEADER.size :]
    if code:
        raise error_from_details(code, body)
    return body
