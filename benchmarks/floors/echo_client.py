"""The raw gRPC caller: sends the bytes of the logits and gets as many back.

`echo_client SYNC_ADDRESS AIO_ADDRESS`. From an array in hand to an array in hand, as everywhere.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import grpc
import numpy as np
import numpy.typing as npt

from benchmarks import data
from benchmarks.floors.echo_server import CHUNKED, OPTIONS, UNARY
from benchmarks.threads import run_in_threads
from benchmarks.worker import Spec, Timing, Work, WrongResultError, serve

Array = npt.NDArray[Any]

_CHUNK = 1 << 20


class Echo(Work):
    """What both ways of sending share."""

    def __init__(self, channels: dict[str, grpc.Channel], spec: Spec) -> None:
        """Make the array."""
        self._channel = channels[spec.server]
        self._logits = data.logits(spec.rows, spec.columns, spec.dtype)
        self._callers = spec.callers

    def call(self) -> Array:
        """Send the array and make one of what comes back."""
        raise NotImplementedError

    def check(self) -> str:
        """Compare the bytes."""
        if not np.array_equal(self.call(), self._logits):
            raise WrongResultError("other bytes came back")
        return "the same bytes"

    def run(self, count: int) -> Timing:
        """Call so many times, with as many threads as asked for."""
        if self._callers == 1:
            return super().run(count)
        return run_in_threads(self.call, self._callers, count)


class Unary(Echo):
    """One message each way."""

    def __init__(self, channels: dict[str, grpc.Channel], spec: Spec) -> None:
        """Take the method."""
        super().__init__(channels, spec)
        self._method: Any = self._channel.unary_unary(UNARY)

    def call(self) -> Array:
        """Send and receive; the answer's bytes are used where they lie."""
        answer = self._method(self._logits.tobytes())
        return np.frombuffer(answer, self._logits.dtype).reshape(self._logits.shape)


class Chunked(Echo):
    """Messages of 1 MiB, both ways at once."""

    def __init__(self, channels: dict[str, grpc.Channel], spec: Spec) -> None:
        """Take the method."""
        super().__init__(channels, spec)
        self._method: Any = self._channel.stream_stream(CHUNKED)
        self._bytes = _bytes_of(self._logits)

    def call(self) -> Array:
        """Send from gRPC's thread while this one receives."""
        answer = np.empty(self._logits.shape, self._logits.dtype)
        place = _bytes_of(answer)
        done = 0
        for chunk in self._method(self._chunks()):
            place[done : done + len(chunk)] = chunk
            done += len(chunk)
        if done != len(place):
            message = f"{done} of {len(place)} bytes came back"
            raise WrongResultError(message)
        return answer

    def _chunks(self) -> Iterator[bytes]:
        for start in range(0, len(self._bytes), _CHUNK):
            yield bytes(self._bytes[start : start + _CHUNK])


def _bytes_of(array: Array) -> memoryview:
    """Give the bytes where they lie."""
    flat: Any = array.reshape(-1).view(np.uint8)
    return memoryview(flat)


_WORKS = {"unary": Unary, "chunked": Chunked}


def _open(channels: dict[str, grpc.Channel], spec: Spec) -> Work:
    return _WORKS[spec.work](channels, spec)


def main(arguments: Sequence[str]) -> int:
    """Answer the benchmark's commands."""
    channels = {
        kind: grpc.insecure_channel(address, OPTIONS)
        for kind, address in zip(("sync", "aio"), arguments, strict=True)
    }
    return serve(partial(_open, channels))
