"""Messages that would grow when they are parsed: they take neither memory nor time."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.support.encodings import field
from tests.support.harness import Child
from tests.support.requests import GOLDEN, TIMEOUT, Stub, by_call, is_golden
from tests.support.soak import percentile, record, tier
from tests.support.vitals import PeakMemory

_MIB = 1 << 20
_SIZE = 8 * _MIB - 200
"""The bytes of a message, just below the limit."""

_GROWTH = 64 * _MIB
"""What one message may add to the memory of the server: its bytes, in several hands."""


def _full(unit: bytes) -> bytes:
    return unit * (_SIZE // len(unit))


def _keys() -> bytes:
    """Return entries of a map with a key of four letters each and no value."""
    return b"".join(b"\x12\x06\x0a\x04%04x" % (number & 0xFFFF) for number in range(_SIZE // 8))


def _tensor(shape: bytes) -> bytes:
    return field(2, field(1, b"input") + field(2, b"\x08\x09" + shape))


def _evaluation(contents: bytes) -> bytes:
    return field(1, field(1, b"mse_loss") + contents)


_LOSSES, _TENSORS, _RUNS = (
    f"/losswire.v1.{name}/" for name in ("LossService", "TensorService", "RunService")
)

_MESSAGES: dict[str, tuple[str, Callable[[], bytes]]] = {
    "shape, packed": (
        _LOSSES + "Evaluate",
        lambda: _evaluation(_tensor(field(2, _full(b"\x01")))),
    ),
    "shape, one by one": (
        _LOSSES + "Evaluate",
        lambda: _evaluation(_tensor(_full(b"\x10\x01"))),
    ),
    "inputs": (_LOSSES + "Evaluate", lambda: _evaluation(_full(b"\x12\x00"))),
    "names": (_LOSSES + "Evaluate", lambda: _evaluation(_full(b"\x2a\x00"))),
    "unknown numbers": (_LOSSES + "Evaluate", lambda: _full(b"\xf8\x7f\x01")),
    "unknown texts": (_LOSSES + "Evaluate", lambda: _full(b"\xfa\x7f\x00")),
    "unknown groups": (_LOSSES + "Evaluate", lambda: _full(b"\x7b\x7c")),
    "a group in a group": (_LOSSES + "Evaluate", lambda: _full(b"\x7b")),
    "one field again and again": (_LOSSES + "Evaluate", lambda: _evaluation(_full(b"\x20\x01"))),
    "evaluations": (_LOSSES + "EvaluateMany", lambda: _full(b"\x0a\x00")),
    "shapes of many": (
        _LOSSES + "EvaluateMany",
        lambda: b"".join([_evaluation(_tensor(field(2, b"\x01" * 2000)))] * 4000),
    ),
    "evaluations of a stream": (_LOSSES + "EvaluateStream", lambda: _full(b"\x12\x00")),
    "numbers of a stream": (_LOSSES + "EvaluateStream", lambda: _full(b"\x08\x01")),
    "header of a chunked call": (
        _LOSSES + "EvaluateChunked",
        lambda: field(1, field(1, _keys())),
    ),
    "streamed inputs": (_LOSSES + "EvaluateChunked", lambda: field(1, _full(b"\x12\x00"))),
    "header of an upload": (
        _TENSORS + "PutTensor",
        lambda: field(1, b"\x08\x09" + field(2, _full(b"\x01"))),
    ),
    "labels to look for": (_RUNS + "ListRuns", lambda: _full(b"\x1a\x00")),
    "slices to continue": (
        _LOSSES + "SummarizeLosses",
        lambda: field(1, field(12, field(7, _full(b"\x12\x00")))),
    ),
    "buckets to continue": (
        _LOSSES + "SummarizeLosses",
        lambda: field(1, field(12, field(6, field(2, field(15, field(3, _full(b"\x01"))))))),
    ),
    "names of rows": (
        _LOSSES + "SummarizeLosses",
        lambda: field(2, field(6, _full(b"\x12\x00"))),
    ),
    "slices of a run": (
        _RUNS + "SaveRun",
        lambda: field(1, field(7, field(7, _full(b"\x12\x00")))),
    ),
}


@pytest.fixture(scope="module")
def child(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Child]:
    """A server of its own, with a budget of 256 MiB."""
    folder = tmp_path_factory.mktemp("growing")
    store = str(folder / "runs.db")
    with Child(folder / "log", "--memory-budget-mib", "256", store=store) as child:
        yield child


@contextmanager
def _health(child: Child) -> Iterator[list[float]]:
    """Ask for health every 2 ms; yields the times that the answers took, in seconds."""
    took: list[float] = []
    over = threading.Event()

    def ask() -> None:
        with child.channel() as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            while not over.wait(0.002):
                began = time.monotonic()
                stub.Check(health_pb2.HealthCheckRequest(), timeout=TIMEOUT)
                took.append(time.monotonic() - began)

    with ThreadPoolExecutor(1) as thread:
        asking = thread.submit(ask)
        try:
            yield took
        finally:
            over.set()
            asking.result()


def _send(child: Child, path: str, message: bytes) -> grpc.StatusCode:
    """Send a message as the only one of a call; returns how the call ends."""
    with child.channel() as channel:
        call: grpc.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(path)
        answers = call(iter([message]), timeout=TIMEOUT)
        try:
            list(answers)
        except grpc.RpcError:
            return answers.code()
        return grpc.StatusCode.OK


@pytest.mark.parametrize("what", _MESSAGES)
def test_a_message_takes_neither_memory_nor_time(child: Child, what: str) -> None:
    """One message of 8 MiB that says very much: refused, health answers, memory stays."""
    path, make = _MESSAGES[what]
    message = make()
    assert len(message) <= 8 * _MIB
    with PeakMemory(child.process.pid) as memory, _health(child) as took:
        codes = {_send(child, path, message) for _ in range(tier(short=1, soak=20))}
    assert codes <= {grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.INVALID_ARGUMENT}
    assert memory.growth_bytes <= _GROWTH
    record(
        f"health while parsing: {what}, p99", percentile(took, 0.99), unit="s", required="<= 0.1"
    )
    record(f"memory of one message: {what}", memory.growth_bytes / _MIB, unit="MiB")


def test_many_callers_of_growing_messages(child: Child) -> None:
    """A flood of them leaves the budget whole, and everyone else is served as always."""
    kinds = ("shape, packed", "header of a chunked call", "unknown numbers", "slices to continue")
    messages = [(_MESSAGES[kind][0], _MESSAGES[kind][1]()) for kind in kinds]
    end = time.monotonic() + tier(short=1.0, soak=10.0)

    def flood(number: int) -> None:
        path, message = messages[number % len(messages)]
        while time.monotonic() < end:
            _send(child, path, message)

    with (
        PeakMemory(child.process.pid) as memory,
        _health(child) as took,
        ThreadPoolExecutor(32) as threads,
    ):
        floods = [threads.submit(flood, number) for number in range(tier(short=8, soak=32))]
        for each in floods:
            each.result()
    with child.channel() as channel:
        assert is_golden(by_call(Stub(channel), GOLDEN).result)
    assert memory.growth_bytes <= 1.2 * 256 * _MIB
    record("health in a flood of growing messages, p99", percentile(took, 0.99), unit="s")
    growth = memory.growth_bytes / _MIB
    record("memory in a flood of growing messages", growth, unit="MiB", required="<= 307")


def test_what_was_refused_is_in_no_log(child: Child) -> None:
    """None of these messages is an error of the server's."""
    assert Path(child.log).exists()
    assert [each for each in child.entries() if each["level"] == "error"] == []
