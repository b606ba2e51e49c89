"""A TCP proxy that does to connections what networks do: cuts, slows, holds and refuses them."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from math import inf

_PIECE = 16 * 1024
"""Bytes that are carried at a time; those of a slowed connection are a twentieth of a second."""


@dataclass(frozen=True)
class Harm:
    """What happens to one connection. Bytes are counted in one direction each."""

    cut_up_after: float = inf
    """The connection is reset when so many bytes went to the server."""
    cut_down_after: float = inf
    """It is reset when so many bytes came from the server."""
    bytes_per_second: float = inf
    """The rate in each direction."""
    hold_after: float = inf
    """When so many bytes went to the server, nothing moves any more, and it remains open."""
    refuse: bool = False
    """It is closed before anything is read."""


HARMLESS = Harm()


@dataclass
class Counts:
    """What has happened."""

    connections: int = 0
    open: int = 0
    refused: int = 0
    cut: int = 0
    held: int = 0
    bytes_up: int = 0
    bytes_down: int = 0


class ChaosProxy:
    """Carries bytes between callers and one server; made by `chaos_proxy`."""

    def __init__(self, upstream: str) -> None:
        host, _, port = upstream.rpartition(":")
        self._upstream = host, int(port)
        self._choose: Callable[[int], Harm] = lambda _: HARMLESS
        self._ends: set[asyncio.StreamWriter] = set()
        self.counts = Counts()
        self.address = ""

    def harm(self, choose: Harm | Callable[[int], Harm]) -> None:
        """Do this to each new connection, or what a function says of its number (0, 1, ...)."""
        self._choose = choose if callable(choose) else lambda _: choose

    async def serve(self, started: "Future[str]", stop: asyncio.Event) -> None:
        """Accept until told to stop."""
        server = await asyncio.start_server(self._carry, "127.0.0.1", 0)
        host, port = server.sockets[0].getsockname()
        self.address = f"{host}:{port}"
        started.set_result(self.address)
        await stop.wait()
        server.close()
        self.cut_all()

    def cut_all(self) -> None:
        """Reset every connection that is open; only on the thread of the proxy."""
        for each in list(self._ends):
            each.transport.abort()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry one connection."""
        harm = self._choose(self.counts.connections)
        self.counts.connections += 1
        if harm.refuse:
            self.counts.refused += 1
            writer.transport.abort()
            return
        try:
            up_reader, up_writer = await asyncio.open_connection(*self._upstream)
        except OSError:
            writer.transport.abort()
            return
        ends = {writer, up_writer}
        self._ends |= ends
        self.counts.open += 1
        held = asyncio.Event()
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(self._one_way(reader, up_writer, harm, held, is_up=True))
                both.create_task(self._one_way(up_reader, writer, harm, held, is_up=False))
        except* (OSError, _CutError):
            pass
        finally:
            for each in ends:
                each.transport.abort()
            self._ends -= ends
            self.counts.open -= 1

    async def _one_way(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        harm: Harm,
        held: asyncio.Event,
        *,
        is_up: bool,
    ) -> None:
        """Carry what goes to the server (up), or what comes from it."""
        cut_after = harm.cut_up_after if is_up else harm.cut_down_after
        passed = 0
        while data := await reader.read(_piece(harm)):
            if is_up and not held.is_set() and passed + len(data) >= harm.hold_after:
                self.counts.held += 1
                held.set()
            if held.is_set():
                # Nothing is carried any more, until an end goes.
                continue
            allowed = data[: int(min(len(data), cut_after - passed))]
            passed += len(data)
            if is_up:
                self.counts.bytes_up += len(allowed)
            else:
                self.counts.bytes_down += len(allowed)
            await _write(writer, allowed, harm)
            if passed >= cut_after:
                self.counts.cut += 1
                raise _CutError
        raise _CutError


class _CutError(Exception):
    """One direction has ended, so that both do."""


def _piece(harm: Harm) -> int:
    """Return how many bytes to carry at a time."""
    return int(max(1, min(_PIECE, harm.bytes_per_second / 20)))


async def _write(writer: asyncio.StreamWriter, data: bytes, harm: Harm) -> None:
    """Write at the rate that is allowed."""
    writer.write(data)
    await writer.drain()
    if harm.bytes_per_second < inf:
        await asyncio.sleep(len(data) / harm.bytes_per_second)


@contextmanager
def chaos_proxy(upstream: str) -> Iterator[ChaosProxy]:
    """Run a proxy to HOST:PORT on a thread of its own; its `address` is what to call instead."""
    proxy = ChaosProxy(upstream)
    started: Future[str] = Future()
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()

    def run() -> None:
        asyncio.set_event_loop(loop)
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            runner.run(proxy.serve(started, stop))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        started.result(timeout=30)
        yield proxy
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(timeout=30)
