"""Connections of the HTTP door: uvicorn's, with the limits that it lacks."""

import asyncio
import time
from contextlib import suppress
from typing import Any, Final

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from losswire.server import thresholds
from losswire.server.errors import MalformedMessageError
from losswire.server.http import limits
from losswire.server.http.listener import is_gone
from losswire.server.http.problems import problem_answer
from losswire.server.http.sending import CutError
from losswire.server.rpc.request_id import new_request_id

_UNREADABLE: Final = (
    "this is not HTTP/1.1, its header is longer than "
    f"{limits.HTTP_HEADER_BYTES} bytes, or its body comes in too small fragments"
)


SOURCE: Final = "losswire.source"
"""The name under which a request's scope has the connection that its body comes through."""


class Connection(H11Protocol):
    """One connection: its header has a deadline, and its body comes when there is memory for it."""

    def __init__(self, *arguments: Any, **keywords: Any) -> None:  # noqa: ANN401 (uvicorn's)
        """Begin without a timer."""
        super().__init__(*arguments, **keywords)
        self.conn = self._parser = _Parser(h11.SERVER, limits.HTTP_HEADER_BYTES)
        self._application = self.app
        self.app = self._run
        self._header_timer: asyncio.TimerHandle | None = None
        self._flush_timer: asyncio.TimerHandle | None = None
        self._reads_on = False
        """Whether there is memory for more than the first bytes of the body."""
        self.idle_since = time.monotonic()
        """Since when it has been waiting for a request, while it does."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for the header of the first request; end the longest idle one of too many."""
        if len(self.connections) >= limits.HTTP_MAX_CONNECTIONS and not self._end_idle():
            transport.abort()
            return
        super().connection_made(transport)
        # What was written has left before more is, so that its memory is known.
        # Under TLS, asyncio pauses from this size on, and otherwise above it.
        is_secret = transport.get_extra_info("sslcontext") is not None
        transport.set_write_buffer_limits(high=1 if is_secret else 0)
        self._start_header_timer()
        self._bound_reads()

    @property
    def is_idle(self) -> bool:
        """Whether no request is under way."""
        cycle: Any = self.cycle
        return cycle is None or cycle.response_complete

    @property
    def common_name(self) -> str:
        """The common name of the caller's certificate; empty without one."""
        certificate: Any = self.transport.get_extra_info("peercert") or {}
        names = [each for part in certificate.get("subject", ()) for each in part]
        return next((text for name, text in names if name == "commonName"), "")

    def _end_idle(self) -> bool:
        """End the connection that has been idle for longest; returns whether there was one."""
        idle = [each for each in self.connections if isinstance(each, Connection) and each.is_idle]
        if not idle:
            return False
        longest = min(idle, key=lambda each: each.idle_since)
        self.connections.discard(longest)
        longest.transport.abort()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the timers."""
        for each in (self._header_timer, self._flush_timer):
            if each is not None:
                each.cancel()
        if self.transport is not None:
            super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Wait no longer than the deadline for the rest of a header that has begun."""
        if self.is_idle and is_gone(self.transport.get_extra_info("socket")):
            self.transport.abort()
            return
        super().data_received(data)
        comes = not self.is_idle and self.cycle.more_body and not self._reads_on
        if comes and len(self.cycle.body) >= limits.HTTP_FIRST_BYTES:
            self.flow.pause_reading()
        self._keep_reading()
        self._bound_reads()
        if self.conn.their_state is not h11.IDLE:
            if self._header_timer is not None:
                self._header_timer.cancel()
                self._header_timer = None
        elif self._header_timer is None and not self.transport.is_closing():
            self._start_header_timer()

    def read_on(self) -> None:
        """Read more than the first bytes of the body, for which there is memory now."""
        if not self._reads_on:
            self._reads_on = True
            self._bound_reads()

    async def linger(self) -> None:
        """Drop what still comes, without looking at it, until the caller ends or for a moment."""
        if self.transport.is_closing():
            return
        dropping = _Dropping(self)
        self.transport.set_protocol(dropping)
        self.flow.resume_reading()
        with suppress(TimeoutError):
            async with asyncio.timeout(limits.HTTP_DISCARD_SECONDS):
                await dropping.ended.wait()
        self.transport.set_protocol(self)

    def on_response_complete(self) -> None:
        """Wait for the next request, and no longer than others do for the caller to read."""
        self._reads_on = False
        self.idle_since = time.monotonic()
        super().on_response_complete()
        self._bound_reads()
        self._start_flush_timer()

    def send_400_response(self, msg: str) -> None:
        """Answer what cannot be read with a problem, and close."""
        del msg
        cycle: Any = self.cycle
        if cycle is not None and not cycle.response_complete:
            cycle.disconnected = True
            cycle.message_event.set()
        if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            self.transport.abort()
            return
        answer = problem_answer(MalformedMessageError(_UNREADABLE), new_request_id())
        body = b"".join(map(bytes, answer.body))  # type: ignore[arg-type]  # no iterator
        headers = [("content-type", answer.media_type), ("content-length", str(len(body)))]
        events = (
            h11.Response(status_code=answer.status, headers=[*headers, ("connection", "close")]),
            h11.Data(data=body),
            h11.EndOfMessage(),
        )
        for each in events:
            self.transport.write(self.conn.send(each) or b"")
        self.transport.close()
        self._start_flush_timer()

    async def _run(self, scope: Any, receive: Any, send: Any) -> None:  # noqa: ANN401 (uvicorn's)
        """Run the application; cut the connection when its answer cannot be sent."""
        # From here on each step of this answer has its own time.
        self._stop_flush_timer()
        scope[SOURCE] = self
        try:
            await self._application(scope, receive, send)
        except (CutError, asyncio.CancelledError):
            self.cycle.disconnected = True
            self.transport.abort()

    def _keep_reading(self) -> None:
        """Read on while little of the next request has come: a caller who leaves is seen so."""
        if self.flow.read_paused and not self.cycle.more_body:
            waiting, _ = self._parser.trailing_data
            if len(waiting) <= limits.HTTP_HEADER_BYTES:
                self.flow.resume_reading()

    def _bound_reads(self) -> None:
        """Limit the bytes of one read, to fewer while they may be fragments."""
        sized = self._parser.is_sized
        most = limits.HTTP_RECEIVE_BYTES if sized else limits.HTTP_CHUNKED_RECEIVE_BYTES
        if not self._reads_on:
            most = limits.HTTP_FIRST_BYTES
        # Of asyncio's transports of sockets; others read as much as they like.
        self.transport.max_size = most  # type: ignore[attr-defined]

    def _start_header_timer(self) -> None:
        self._header_timer = self.loop.call_later(limits.HTTP_HEADER_SECONDS, self.transport.abort)

    def _start_flush_timer(self) -> None:
        self._stop_flush_timer()
        self._flush_timer = self.loop.call_later(thresholds.GRACE_SECONDS, self._cut_unread)

    def _stop_flush_timer(self) -> None:
        if self._flush_timer is not None:
            self._flush_timer.cancel()
            self._flush_timer = None

    def _cut_unread(self) -> None:
        """Cut a connection whose caller has not read the answer that was written to it."""
        if self.transport.get_write_buffer_size():
            self.transport.abort()


class _Dropping(asyncio.BufferedProtocol):
    """Takes the place of a connection while nobody looks at what comes."""

    _BUFFER: Final = bytearray(limits.HTTP_RECEIVE_BYTES)
    """Whatever comes, through whichever connection, is written here and never read."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._left_bytes = limits.HTTP_DISCARD_BYTES
        self.ended = asyncio.Event()

    def get_buffer(self, sizehint: int) -> bytearray:
        """Return where to write what comes."""
        del sizehint
        return self._BUFFER

    def buffer_updated(self, nbytes: int) -> None:
        """End when too much has come."""
        self._left_bytes -= nbytes
        if self._left_bytes < 0:
            self.ended.set()

    def eof_received(self) -> bool:
        """End; the answer that is on its way still leaves."""
        self.ended.set()
        return True

    def pause_writing(self) -> None:
        """Notify the connection."""
        self._connection.pause_writing()

    def resume_writing(self) -> None:
        """Notify the connection."""
        self._connection.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """Notify the connection."""
        self.ended.set()
        self._connection.connection_lost(exc)


class _Parser(h11.Connection):
    """A parser that refuses floods of fragments, each of which costs the same.

    It writes the header of an answer of a known length together with the first bytes of its body.
    """

    def __init__(self, role: type[h11.SERVER], max_event_bytes: int) -> None:
        super().__init__(role, max_event_bytes)
        self._fragments_left: float = 0
        self._header: list[bytes] = []
        """The header of an answer, of which the body follows at once."""
        self.is_sized = False
        """Whether the current request has declared the length of its body."""

    def next_event(self) -> Any:  # noqa: ANN401 (an event, or one of two signs)
        """Return the next event; RemoteProtocolError for too many fragments."""
        event = super().next_event()
        if isinstance(event, h11.Request):
            self._fragments_left = limits.HTTP_FREE_FRAGMENTS
            if _size_of(event) > limits.HTTP_HEADER_BYTES:
                # The parser bounds only a header that has not come as a whole.
                raise h11.RemoteProtocolError("a long header")
            names = {name for name, _ in event.headers}
            self.is_sized = b"content-length" in names
            if b"transfer-encoding" in names and (self.is_sized or event.http_version < b"1.1"):
                # A proxy in front might see another end of the body than this server does.
                raise h11.RemoteProtocolError("two lengths of a body")
        elif isinstance(event, h11.Data):
            self._fragments_left += len(event.data) / limits.HTTP_FRAGMENT_BYTES - 1
            if self._fragments_left < 0:
                raise h11.RemoteProtocolError("too many fragments")
        return event

    def send_with_data_passthrough(self, event: h11.Event) -> list[bytes] | None:
        """Return the bytes of an event; those of a header come with what follows it at once.

        Each write to a socket takes as long as parsing a short request.
        """
        written = super().send_with_data_passthrough(event)
        if written is None:
            return None
        if isinstance(event, h11.Response) and _has_body(event):
            self._header = written
            return []
        header, self._header = self._header, []
        return header + written


def _size_of(request: h11.Request) -> int:
    """Return the bytes of a header, but for separators."""
    fields = sum(len(name) + len(text) for name, text in request.headers)
    return len(request.method) + len(request.target) + fields


def _has_body(response: h11.Response) -> bool:
    """Return whether the header of an answer declares a body, which follows at once."""
    return any(name == b"content-length" and size != b"0" for name, size in response.headers)
