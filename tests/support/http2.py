"""HTTP/2 by hand, for what no gRPC client would send: slow, lying, silent and greedy peers.

Any number of sessions run in one event loop. A session answers SETTINGS and PING by itself, and
opens the windows of what it has read unless it is told not to read.
"""

import asyncio
import struct
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Self

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    ResponseReceived,
    SettingsAcknowledged,
    StreamEnded,
    StreamReset,
    TrailersReceived,
    WindowUpdated,
)
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes, Settings

PATIENCE = 60.0
"""How long to wait for something that must happen: for hangs only."""

EVALUATE = "/losswire.v1.LossService/Evaluate"
EVALUATE_STREAM = "/losswire.v1.LossService/EvaluateStream"
EVALUATE_CHUNKED = "/losswire.v1.LossService/EvaluateChunked"
HEALTH = "/grpc.health.v1.Health/Check"


def framed(message: bytes, *, length: int | None = None, flag: int = 0) -> bytes:
    """Return a message of gRPC with its prefix, which says `length` instead where given."""
    return struct.pack(">BI", flag, len(message) if length is None else length) + message


@dataclass
class Answer:
    """What came back for one call."""

    fields: dict[str, str] = field(default_factory=dict)
    """Header and trailers."""
    data: bytearray = field(default_factory=bytearray)
    """The messages with their prefixes."""
    reset: int | None = None
    """The code of RST_STREAM."""
    lost: bool = False
    """Whether the connection ended before the call did."""
    seconds: float = 0.0
    """From the header until the end."""

    @property
    def code(self) -> int | None:
        """The number of the gRPC status; None when there was none."""
        text = self.fields.get("grpc-status")
        return None if text is None else int(text)

    @property
    def message(self) -> str:
        """The text of the gRPC status."""
        return self.fields.get("grpc-message", "")


class Call:
    """One stream of a session."""

    def __init__(self, session: "Session", number: int) -> None:
        self.number = number
        self.answer = Answer()
        self._session = session
        self._started = asyncio.get_running_loop().time()
        self._ended = asyncio.Event()

    @property
    def ended(self) -> bool:
        """Whether the server has ended it: by a status, a reset or the end of the connection."""
        return self._ended.is_set()

    async def send(self, data: bytes, *, end: bool = False) -> None:
        """Send bytes as flow control lets them through; returns early when the call has ended."""
        await self._session.send(self, data, end=end)

    async def drip(self, data: bytes, bytes_per_second: float) -> None:
        """Send bytes slowly, in steps of at least one byte, until the call has ended."""
        step = max(1, int(bytes_per_second / 10))
        for start in range(0, len(data), step):
            await self.send(data[start : start + step])
            with suppress(TimeoutError):
                await asyncio.wait_for(self._ended.wait(), step / bytes_per_second)
            if self.ended:
                return

    def reset(self, code: ErrorCodes = ErrorCodes.CANCEL) -> None:
        """Send RST_STREAM."""
        self._session.reset(self, code)

    async def wait(self, seconds: float = PATIENCE) -> Answer:
        """Wait until it has ended; raises TimeoutError."""
        async with asyncio.timeout(seconds):
            await self._ended.wait()
        return self.answer

    def end(self) -> None:
        """Note that the server has ended it."""
        if not self.ended:
            self.answer.seconds = asyncio.get_running_loop().time() - self._started
            self._ended.set()


class Session(asyncio.Protocol):
    """One connection."""

    def __init__(self, window: int | None, *, reads: bool) -> None:
        """See `open`."""
        self._connection = H2Connection(H2Configuration(header_encoding="utf-8"))
        if window is not None:
            self._connection.local_settings = Settings(
                initial_values={SettingCodes.INITIAL_WINDOW_SIZE: window}
            )
        self._reads = reads
        self._calls: dict[int, Call] = {}
        self._changed = asyncio.Event()
        self._transport: asyncio.Transport | None = None
        self._over = asyncio.Event()
        self._settled = asyncio.Event()

    @classmethod
    async def open(cls, address: str, *, window: int | None = None, reads: bool = True) -> Self:
        """Connect to HOST:PORT or unix:PATH; raises OSError.

        `window` is the initial window of each stream, 0 for one that lets nothing come; unless it
        `reads`, no window is opened again.
        """
        loop = asyncio.get_running_loop()

        session = cls(window, reads=reads)
        if address.startswith("unix:"):
            path = address.removeprefix("unix:")
            await loop.create_unix_connection(lambda: session, path)
        else:
            host, _, port = address.rpartition(":")
            await loop.create_connection(lambda: session, host, int(port))
        return session

    # what asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the preface."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._connection.initiate_connection()
        self._flush()

    def data_received(self, data: bytes) -> None:
        """Take frames."""
        try:
            events = self._connection.receive_data(data)
        except ProtocolError:
            self.close()
            return
        for event in events:
            self._take(event)
        self._flush()

    def connection_lost(self, exc: Exception | None) -> None:
        """End all calls."""
        del exc
        self._over.set()
        for call in self._calls.values():
            if not call.ended:
                call.answer.lost = True
                call.end()
        self._wake()

    # what tests call

    @property
    def over(self) -> bool:
        """Whether the connection has ended."""
        return self._over.is_set()

    async def settled(self) -> None:
        """Wait until the server has taken the SETTINGS; raises TimeoutError."""
        async with asyncio.timeout(PATIENCE):
            await self._settled.wait()

    async def finished(self, seconds: float = PATIENCE) -> None:
        """Wait until the connection has ended; raises TimeoutError."""
        async with asyncio.timeout(seconds):
            await self._over.wait()

    def call(self, path: str, fields: Mapping[str, str] | None = None) -> Call:
        """Send the header of a call, to which `fields` are added; raises ConnectionError."""
        if self.over:
            message = "the connection has ended"
            raise ConnectionError(message)
        number = self._connection.get_next_available_stream_id()
        header = {
            ":method": "POST",
            ":scheme": "http",
            ":path": path,
            ":authority": "localhost",
            "te": "trailers",
            "content-type": "application/grpc",
            **(fields or {}),
        }
        self._connection.send_headers(number, list(header.items()))
        call = self._calls[number] = Call(self, number)
        self._flush()
        return call

    async def ask(
        self, path: str, message: bytes, fields: Mapping[str, str] | None = None
    ) -> Answer:
        """Make an ordinary call with one message; raises TimeoutError."""
        call = self.call(path, fields)
        await call.send(framed(message), end=True)
        return await call.wait()

    async def send(self, call: Call, data: bytes, *, end: bool) -> None:
        """See `Call.send`."""
        rest = memoryview(data)
        while not call.ended:
            with suppress(ProtocolError):
                room = min(
                    self._connection.local_flow_control_window(call.number),
                    self._connection.max_outbound_frame_size,
                )
                if room > 0 or not rest:
                    part, rest = rest[:room], rest[room:]
                    last = end and not rest
                    self._connection.send_data(call.number, bytes(part), end_stream=last)
                    self._flush()
                if not rest:
                    return
                if room > 0:
                    continue
            self._changed.clear()
            await self._changed.wait()

    def reset(self, call: Call, code: ErrorCodes) -> None:
        """See `Call.reset`."""
        with suppress(ProtocolError):
            self._connection.reset_stream(call.number, code)
            self._flush()

    def pause(self) -> None:
        """Read nothing more from the socket."""
        assert self._transport is not None
        self._transport.pause_reading()

    def close(self) -> None:
        """Close the connection, without GOAWAY."""
        assert self._transport is not None
        self._transport.abort()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        self.close()
        await self._over.wait()

    # inside

    def _take(self, event: Event) -> None:
        """Act on an event of the connection."""
        self._wake()
        if isinstance(event, SettingsAcknowledged):
            self._settled.set()
        elif isinstance(event, ConnectionTerminated):
            self._goes_away(event.last_stream_id)
        elif isinstance(event, DataReceived) and self._reads:
            with suppress(ProtocolError):
                self._connection.acknowledge_received_data(
                    event.flow_controlled_length or 0, event.stream_id
                )
        call = self._calls.get(getattr(event, "stream_id", None) or 0)
        if call is None or isinstance(event, WindowUpdated):
            return
        if isinstance(event, ResponseReceived | TrailersReceived):
            call.answer.fields |= {str(name): str(text) for name, text in event.headers}
        elif isinstance(event, DataReceived):
            call.answer.data += event.data
        elif isinstance(event, StreamReset):
            call.answer.reset = int(event.error_code)
            call.end()
        elif isinstance(event, StreamEnded):
            call.end()

    def _goes_away(self, last: int | None) -> None:
        """End the calls that the server will not take."""
        for call in self._calls.values():
            if last is not None and call.number > last and not call.ended:
                call.answer.lost = True
                call.end()

    def _flush(self) -> None:
        """Write what the connection has to say."""
        assert self._transport is not None
        if not self._transport.is_closing():
            self._transport.write(self._connection.data_to_send())

    def _wake(self) -> None:
        """Wake those who wait for a window or an end."""
        self._changed.set()


class Sessions:
    """Any number of sessions to one address, all closed at the end of its context."""

    def __init__(self, address: str) -> None:
        self._address = address
        self.all: list[Session] = []

    async def open(
        self, count: int, *, window: int | None = None, reads: bool = True
    ) -> list[Session]:
        """Open some, as `Session.open` does; raises OSError."""
        new = [await Session.open(self._address, window=window, reads=reads) for _ in range(count)]
        self.all += new
        return new

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        for each in self.all:
            each.close()
        # The closing of a socket is a turn of the event loop away.
        await asyncio.sleep(0)


async def all_ended(calls: Iterable[Call], seconds: float) -> list[Call]:
    """Wait until the server has ended the calls; returns those that it has not after a while."""
    loop = asyncio.get_running_loop()
    until = loop.time() + seconds
    for call in calls:
        with suppress(TimeoutError):
            await call.wait(max(until - loop.time(), 0.001))
    return [call for call in calls if not call.ended]
