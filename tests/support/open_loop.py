"""Small calls at a rate of the generator's own, whether or not they are answered.

Frames are made once and sent with other stream ids, so that one thread makes some 10,000 calls a
second. Run as a program: a JSON object of the fields of `Load` on the command line, one of those of
`Counts` on standard output.
"""

import json
import re
import selectors
import socket
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

_DATA, _HEADERS, _RESET, _SETTINGS, _PING, _GOAWAY, _WINDOW = 0, 1, 3, 4, 6, 7, 8
_END_STREAM, _ACK, _END_HEADERS = 1, 1, 4
_HEADER_BYTES: Final = 9
_FIRST_WINDOW: Final = 65_535
_LARGE_WINDOW: Final = 1 << 30
_STATUS: Final = re.compile(rb"grpc-status[\x01\x02](\d\d?)")
_NICENESS: Final = 10
_ROOT: Final = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """Calls to make."""

    address: str
    method: str
    message: str
    """The bytes of each request, in hexadecimal digits."""
    seconds: float
    rate: float = 0.0
    """Calls a second; 0: each answer is followed by the next call, as by a caller who waits."""
    connections: int = 64
    streams: int = 120
    """The most calls at a time on one connection."""
    deadline: float = 1.0


@dataclass(slots=True, kw_only=True)
class Counts:
    """What became of the calls."""

    seconds: float = 0.0
    sent: int = 0
    held_back: int = 0
    """Calls that were due, while every connection had as many as it may have."""
    in_time: int = 0
    """Answers with a result, within the deadline."""
    late: int = 0
    reset: int = 0
    """Calls that ended without a status."""
    by_status: dict[str, int] = field(default_factory=dict)
    """Calls without a result, by the number of their status."""
    p50: float = 0.0
    p99: float = 0.0
    """Of the results, in seconds."""

    @property
    def goodput(self) -> float:
        """Results in time, a second."""
        return self.in_time / self.seconds


def run_load(load: Load) -> Counts:
    """Make the calls in a process of their own.

    Callers have machines of their own. Here they get the processors that the server leaves: a call
    that is due too late is made as soon as may be, so that as many are made.
    """
    nice = ["nice", "-n", str(_NICENESS)]
    command = [*nice, sys.executable, "-m", __name__, json.dumps(asdict(load))]
    done = subprocess.run(command, cwd=_ROOT, check=True, capture_output=True, text=True)
    return Counts(**json.loads(done.stdout))


def _frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    head = len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big")
    return head + payload


def _setting(number: int, value: int) -> bytes:
    return number.to_bytes(2, "big") + value.to_bytes(4, "big")


def _literal(name: bytes, value: bytes) -> bytes:
    """Return a header field that no table remembers."""
    return b"\x00" + bytes((len(name),)) + name + bytes((len(value),)) + value


class _Call:
    """The frames of a call, all but its stream id."""

    def __init__(self, load: Load) -> None:
        path = b"/" + load.method.encode()
        block = b"\x83\x86" + b"\x04" + bytes((len(path),)) + path
        block += b"\x01\x09localhost" + _literal(b"te", b"trailers")
        block += _literal(b"content-type", b"application/grpc")
        block += _literal(b"grpc-timeout", f"{round(load.deadline * 1000)}m".encode())
        message = bytes.fromhex(load.message)
        body = b"\x00" + len(message).to_bytes(4, "big") + message
        self._head = _frame(_HEADERS, _END_HEADERS, 0, block)
        self._body = _frame(_DATA, _END_STREAM, 0, body)
        self.body_bytes = len(body)

    def frames(self, stream: int) -> bytes:
        """Return the call on a stream."""
        number = stream.to_bytes(4, "big")
        head, body = self._head, self._body
        return b"".join(
            (head[:5], number, head[_HEADER_BYTES:], body[:5], number, body[_HEADER_BYTES:])
        )


class _Connection:
    """One connection: what is sent and received on it, and the calls under way."""

    def __init__(self, load: Load, call: _Call) -> None:
        host, _, port = load.address.rpartition(":")
        self.socket = socket.create_connection((host, int(port)))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.settimeout(0)
        self._call = call
        self._most = self._allowed = load.streams
        self._window = _FIRST_WINDOW
        self._next = 1
        self._received = b""
        self.out = bytearray(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        settings = _setting(1, 0) + _setting(4, _LARGE_WINDOW)
        self.out += _frame(_SETTINGS, 0, 0, settings)
        self.out += _frame(_WINDOW, 0, 0, _LARGE_WINDOW.to_bytes(4, "big"))
        self.begun: dict[int, float] = {}
        """When each call under way began, by its stream."""
        self._with_data: set[int] = set()

    @property
    def has_room(self) -> bool:
        """Whether another call may begin."""
        return len(self.begun) < self._allowed and self._window >= self._call.body_bytes

    def begin(self, now: float) -> None:
        """Send one more call."""
        self.out += self._call.frames(self._next)
        self._window -= self._call.body_bytes
        self.begun[self._next] = now
        self._next += 2

    def flush(self) -> None:
        """Send what the socket takes."""
        if self.out:
            try:
                sent = self.socket.send(self.out)
            except BlockingIOError:
                return
            del self.out[:sent]

    def receive(self) -> Iterable[tuple[int, bool, str | None]]:
        """Yield the calls that ended: stream, whether it has a result, and else its status."""
        try:
            self._received += self.socket.recv(1 << 18)
        except BlockingIOError:
            return
        data, at = self._received, 0
        while len(data) - at >= _HEADER_BYTES:
            size = int.from_bytes(data[at : at + 3], "big")
            if len(data) - at < _HEADER_BYTES + size:
                break
            kind, flags = data[at + 3], data[at + 4]
            stream = int.from_bytes(data[at + 5 : at + _HEADER_BYTES], "big")
            payload = data[at + _HEADER_BYTES : at + _HEADER_BYTES + size]
            at += _HEADER_BYTES + size
            if kind == _DATA:
                self._with_data.add(stream)
            elif kind == _HEADERS and flags & _END_STREAM:
                found = _STATUS.search(payload)
                status = found[1].decode() if found else "?"
                yield stream, status == "0" and stream in self._with_data, status
            elif kind == _RESET:
                yield stream, False, None
            else:
                self._control(kind, flags, stream, payload)
        self._received = data[at:]

    def _control(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == _WINDOW and not stream:
            self._window += int.from_bytes(payload, "big")
        elif kind == _PING and not flags & _ACK:
            self.out += _frame(_PING, _ACK, 0, payload)
        elif kind == _SETTINGS and not flags & _ACK:
            for start in range(0, len(payload), 6):
                number = int.from_bytes(payload[start : start + 2], "big")
                value = int.from_bytes(payload[start + 2 : start + 6], "big")
                if number == 3:
                    self._allowed = min(self._most, value)
            self.out += _frame(_SETTINGS, _ACK, 0)

    def end(self, stream: int) -> float | None:
        """Forget a call; returns when it began, or None if it has ended already."""
        self._with_data.discard(stream)
        return self.begun.pop(stream, None)


class _Generator:
    """Makes calls, and counts what becomes of them."""

    def __init__(self, load: Load) -> None:
        self._load = load
        call = _Call(load)
        self._connections = [_Connection(load, call) for _ in range(load.connections)]
        self._selector = selectors.DefaultSelector()
        for each in self._connections:
            self._selector.register(each.socket, selectors.EVENT_READ, each)
        self._turn = 0
        self._counts = Counts()
        self._times: list[float] = []

    def run(self) -> Counts:
        """Make calls until the time is over, and wait for the last answers as long as they may."""
        load, counts = self._load, self._counts
        began = time.perf_counter()
        end = began + load.seconds
        due = 0
        while (now := time.perf_counter()) < end + load.deadline:
            if now < end:
                due = self._send(now, began, due)
            elif not any(each.begun for each in self._connections):
                break
            for connection in self._connections:
                connection.flush()
            for key, _ in self._selector.select(0.0005):
                self._receive(key.data)
        counts.seconds = load.seconds
        self._times.sort()
        if self._times:
            counts.p50 = self._times[len(self._times) // 2]
            counts.p99 = self._times[int(len(self._times) * 0.99)]
        return counts

    def _send(self, now: float, began: float, due: int) -> int:
        """Begin the calls that are due; returns how many were due so far."""
        if not self._load.rate:
            for connection in self._connections:
                while connection.has_room:
                    self._counts.sent += 1
                    connection.begin(now)
            return 0
        wanted = int((now - began) * self._load.rate)
        for _ in range(wanted - due):
            for _ in self._connections:
                self._turn = (self._turn + 1) % len(self._connections)
                connection = self._connections[self._turn]
                if connection.has_room:
                    self._counts.sent += 1
                    connection.begin(now)
                    break
            else:
                self._counts.held_back += wanted - due
                break
            due += 1
        return wanted

    def _receive(self, connection: _Connection) -> None:
        counts = self._counts
        for stream, has_result, status in connection.receive():
            began = connection.end(stream)
            if began is None:
                continue
            took = time.perf_counter() - began
            if has_result:
                self._times.append(took)
                if took <= self._load.deadline:
                    counts.in_time += 1
                else:
                    counts.late += 1
            elif status is None:
                counts.reset += 1
            else:
                counts.by_status[status] = counts.by_status.get(status, 0) + 1


def _main() -> None:
    counts = _Generator(Load(**json.loads(sys.argv[1]))).run()
    sys.stdout.write(json.dumps(asdict(counts)))


if __name__ == "__main__":
    _main()
