"""The raw gRPC caller: sends the bytes of the logits and receives the same number.

`echo_client SYNC_ADDRESS AIO_ADDRESS`. From an array in hand to an array in hand, as everywhere.
"""

import asyncio
import time
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import grpc
import grpc.aio
import numpy as np
import numpy.typing as npt

from benchmarks import data
from benchmarks.floors.echo_server import CHUNKED, OPTIONS, UNARY
from benchmarks.threads import run_in_threads
from benchmarks.worker import Spec, Timing, Work, WrongResultError, serve

Array = npt.NDArray[Any]

_CHUNK = 1 << 20


class Echo(Work):
    """The common part of all ways of sending."""

    def __init__(self, addresses: Mapping[str, str], spec: Spec) -> None:
        """Make the array."""
        self._address = addresses[spec.server]
        self._logits = data.logits(spec.rows, spec.columns, spec.dtype)
        self._callers = spec.callers

    @abstractmethod
    def call(self) -> Array:
        """Send the array and make one of what comes back."""

    def check(self) -> str:
        """Compare the bytes."""
        if not np.array_equal(self.call(), self._logits):
            raise WrongResultError("other bytes came back")
        return "the same bytes"

    def run(self, count: int) -> Timing:
        """Make a number of calls, from a number of threads."""
        if self._callers == 1:
            return super().run(count)
        return run_in_threads(self.call, self._callers, count)


class Unary(Echo):
    """One message each way."""

    def __init__(self, addresses: Mapping[str, str], spec: Spec) -> None:
        """Connect."""
        super().__init__(addresses, spec)
        self._method: Any = grpc.insecure_channel(self._address, OPTIONS).unary_unary(UNARY)

    def call(self) -> Array:
        """Send and receive; the answer's bytes are used without a copy."""
        answer = self._method(self._logits.tobytes())
        return np.frombuffer(answer, self._logits.dtype).reshape(self._logits.shape)


class Answer:
    """An array that fills with what comes back."""

    def __init__(self, like: Array) -> None:
        """Make the array."""
        self._array = np.empty(like.shape, like.dtype)
        self._place = _bytes_of(self._array)
        self._done = 0

    def add(self, chunk: bytes) -> None:
        """Append a chunk."""
        self._place[self._done : self._done + len(chunk)] = chunk
        self._done += len(chunk)

    def whole(self) -> Array:
        """Return the array, once it is complete."""
        if self._done != len(self._place):
            message = f"{self._done} of {len(self._place)} bytes came back"
            raise WrongResultError(message)
        return self._array


def _chunks(array: Array) -> Iterator[bytes]:
    whole = _bytes_of(array)
    for start in range(0, len(whole), _CHUNK):
        yield bytes(whole[start : start + _CHUNK])


class Chunked(Echo):
    """Messages of 1 MiB, both ways at once."""

    def __init__(self, addresses: Mapping[str, str], spec: Spec) -> None:
        """Connect."""
        super().__init__(addresses, spec)
        self._method: Any = grpc.insecure_channel(self._address, OPTIONS).stream_stream(CHUNKED)

    def call(self) -> Array:
        """Send from gRPC's thread while this one receives."""
        answer = Answer(self._logits)
        for chunk in self._method(_chunks(self._logits)):
            answer.add(chunk)
        return answer.whole()


class ChunkedLater(Echo):
    """The same from an asyncio program; not faster by rule, so both are tried."""

    def run(self, count: int) -> Timing:
        """Make a number of calls on one connection, which is made before the clock starts."""
        return asyncio.run(self._run(count))

    def call(self) -> Array:
        """Call once."""
        return asyncio.run(self._call_once())

    async def _run(self, count: int) -> Timing:
        clock, calls = time.perf_counter, []
        async with grpc.aio.insecure_channel(self._address, options=OPTIONS) as channel:
            await channel.channel_ready()
            begin = clock()
            for _ in range(count):
                start = clock()
                _answer = await self._exchange(channel)
                calls.append(clock() - start)
            return Timing(calls, clock() - begin)

    async def _call_once(self) -> Array:
        async with grpc.aio.insecure_channel(self._address, options=OPTIONS) as channel:
            return await self._exchange(channel)

    async def _exchange(self, channel: grpc.aio.Channel) -> Array:
        method: Any = channel.stream_stream(CHUNKED)
        answer = Answer(self._logits)
        async for chunk in method(_chunks(self._logits)):
            answer.add(chunk)
        return answer.whole()


def _bytes_of(array: Array) -> memoryview:
    """Return the bytes without a copy."""
    flat: Any = array.reshape(-1).view(np.uint8)
    return memoryview(flat)


_WORKS: Mapping[str, Callable[[Mapping[str, str], Spec], Work]] = {
    "unary": Unary,
    "chunked": Chunked,
    "chunked asyncio": ChunkedLater,
}


def _open(addresses: Mapping[str, str], spec: Spec) -> Work:
    return _WORKS[spec.work](addresses, spec)


def main(arguments: Sequence[str]) -> int:
    """Answer the benchmark's commands."""
    addresses = dict(zip(("sync", "aio"), arguments, strict=True))
    return serve(partial(_open, addresses))
