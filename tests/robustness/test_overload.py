"""More calls than a server can answer: it answers as many as it can in time, and says so to all."""

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np
import numpy.typing as npt
import pytest

from losswire.client import Client
from losswire.v1 import loss_service_pb2
from tests.support.open_loop import Counts, Load, run_load
from tests.support.process import running_server
from tests.support.requests import evaluation
from tests.support.soak import percentile, record, tier
from tests.support.witness import witness

_METHOD = "losswire.v1.LossService/Evaluate"
_GENERATOR = np.random.default_rng(8)
_INPUTS: dict[str, npt.ArrayLike] = {
    "input": _GENERATOR.standard_normal((32, 10)).astype(np.float32),
    "target": _GENERATOR.integers(0, 10, 32),
}
_REFUSALS = {"1", "4", "8"}
"""CANCELLED by gRPC's core, DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED."""


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Start a server."""
    with running_server("--region-quota-mib", "0") as found:
        yield found


def _message() -> bytes:
    item = evaluation("cross_entropy", _INPUTS, gradients_for=["input"])
    return loss_service_pb2.EvaluateRequest(evaluation=item).SerializeToString()


def _load(address: str, seconds: float, *, rate: float = 0.0, streams: int = 120) -> Counts:
    return run_load(
        Load(
            address=address,
            method=_METHOD,
            message=_message().hex(),
            seconds=seconds,
            rate=rate,
            streams=streams,
        )
    )


def test_overload_is_shed(address: str) -> None:
    """Answer in time as many of five times too many calls as of just enough, and health always."""
    # Beside the same observer, who takes a part of the processors.
    with witness(address, interval=0.02) as health:
        peak = _load(address, tier(short=1.0, soak=5.0), streams=1).goodput
        health.report()
        counts = _load(address, tier(short=1.5, soak=10.0), rate=5 * peak)
        seen = health.report()
    assert counts.in_time
    assert counts.by_status.keys() <= _REFUSALS
    assert not counts.reset
    assert seen.seconds
    assert not seen.failed
    record("goodput of 5x overload, of the peak's", counts.goodput / peak, required=">= 0.9")
    record("the peak", peak, unit="calls/s")
    record("p99 of health in 5x overload", seen.p99_ms, unit="ms", required="<= 100")


def test_a_caller_beside_overload_has_no_failed_call(address: str) -> None:
    """Answer a caller who uses the SDK, while others make too many calls."""
    ended = threading.Event()

    def flood() -> None:
        try:
            _load(address, tier(short=2.0, soak=10.0), rate=tier(short=6000, soak=15_000))
        finally:
            ended.set()

    with Client(address, timeout=30) as client:
        right = client.evaluate("cross_entropy", _INPUTS).loss
        thread = threading.Thread(target=flood)
        thread.start()
        times: list[float] = []
        while not ended.is_set():
            began = time.perf_counter()
            assert client.evaluate("cross_entropy", _INPUTS).loss == right
            times.append(time.perf_counter() - began)
        thread.join()
    assert times
    record("p99 of an SDK caller in overload", percentile(times, 0.99) * 1000, unit="ms")


def test_a_burst_is_answered_or_refused(address: str) -> None:
    """Answer or refuse each of many calls that come at once over many connections, and soon."""
    connections, each = 40, tier(short=25, soak=100)

    async def burst() -> Counter[str]:
        options = [("grpc.use_local_subchannel_pool", 1)]
        channels = [grpc.aio.insecure_channel(address, options) for _ in range(connections)]
        calls: list[Any] = [channel.unary_unary(f"/{_METHOD}") for channel in channels]
        message = _message()
        await asyncio.gather(*(call(message, timeout=30) for call in calls))
        found = await asyncio.gather(
            *(call(message, timeout=20) for call in calls for _ in range(each)),
            return_exceptions=True,
        )
        await asyncio.gather(*(channel.close() for channel in channels))
        return Counter(
            one.code().name if isinstance(one, grpc.aio.AioRpcError) else type(one).__name__
            for one in found
        )

    began = time.perf_counter()
    found = asyncio.run(burst())
    assert found.keys() <= {"bytes", "CANCELLED", "RESOURCE_EXHAUSTED"}
    assert found["bytes"] >= 128
    record("4000 calls at once: answered", found["bytes"])
    record("4000 calls at once: until the last", time.perf_counter() - began, unit="s")
