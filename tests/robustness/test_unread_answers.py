"""Callers who do not take their answers: what is kept for them is in the budget, and ends."""

import asyncio
import time
from collections.abc import Iterator

import numpy as np
import pytest

from losswire.client import AsyncClient, Client
from losswire.v1 import evaluation_pb2, loss_service_pb2, tensor_pb2
from tests.support.doors import Doors, open_doors
from tests.support.http2 import EVALUATE, EVALUATE_STREAM, Call, Sessions, framed
from tests.support.soak import record, tier
from tests.support.vitals import PeakMemory

_MIB = 1 << 20
_BUDGET = 256 * _MIB
_ANSWER = 6 * _MIB
_CUT = 25.0
"""Seconds after which an answer of 6 MiB is not kept, with the steps in which that is looked at."""
_SLACK = tier(short=20.0, soak=0.0)


@pytest.fixture(scope="module")
def doors() -> Iterator[Doors]:
    """A server with a small budget."""
    with open_doors("--memory-budget-mib", "256", "--resident-quota-mib", "64") as found:
        yield found


@pytest.fixture(scope="module")
def small_request(doors: Doors) -> evaluation_pb2.Evaluation:
    """An evaluation of some hundred bytes whose answer has 6 MiB."""
    with Client(doors.grpc) as client:
        stored = client.put(np.zeros(_ANSWER // 4, np.float32))
        sha256 = stored.id
    tensor = tensor_pb2.Tensor(
        data_type=tensor_pb2.DATA_TYPE_FLOAT32,
        shape=[_ANSWER // 4],
        resident=tensor_pb2.TensorId(sha256=sha256),
    )
    return evaluation_pb2.Evaluation(
        loss="mse_loss", inputs={"input": tensor, "target": tensor}, gradients_for=["input"]
    )


def _reserved(doors: Doors) -> float:
    found = doors.samples()
    return sum(
        found.of("losswire_reserved_bytes", reservation=each)
        for each in ("receive", "compute", "answer")
    )


def _message(path: str, evaluation: evaluation_pb2.Evaluation) -> bytes:
    if path == EVALUATE:
        request = loss_service_pb2.EvaluateRequest(evaluation=evaluation)
        return framed(request.SerializeToString())
    streamed = loss_service_pb2.EvaluateStreamRequest(id=1, evaluation=evaluation)
    return framed(streamed.SerializeToString()) * 20


@pytest.mark.parametrize("path", [EVALUATE, EVALUATE_STREAM])
def test_unread_answers_stay_within_the_budget_and_end(
    doors: Doors, small_request: evaluation_pb2.Evaluation, path: str
) -> None:
    """Windows of 0: the memory of all answers is bounded, others are served, and all is freed."""
    connections = tier(short=4, soak=8)
    calls_each = tier(short=40, soak=100) if path == EVALUATE else 5
    array = np.ones(100_000, np.float32)

    async def run() -> None:
        async with AsyncClient(doors.grpc) as client, Sessions(doors.grpc) as sessions:
            opened = await sessions.open(connections, window=0)
            for each in opened:
                await each.settled()
            calls: list[Call] = []
            for each in opened:
                calls += [each.call(path) for _ in range(calls_each)]
            message = _message(path, small_request)
            await asyncio.gather(*(call.send(message, end=path == EVALUATE) for call in calls))
            began = time.monotonic()
            served = 0
            while not all(call.ended for call in calls):
                assert time.monotonic() - began < 3 * (_CUT + _SLACK)
                result = await client.evaluate(
                    "mse_loss", {"input": array, "target": array + 1}, timeout=30
                )
                assert result.loss == 1
                served += 1
                await asyncio.sleep(0.05)
            assert served
            record(
                f"unread answers of {path.rpartition('/')[2]} ended",
                time.monotonic() - began,
                unit="s",
            )
            while await asyncio.to_thread(_reserved, doors) > _MIB:
                assert time.monotonic() - began < 3 * (_CUT + _SLACK)
                await asyncio.sleep(0.1)

    with PeakMemory(doors.pid) as memory:
        asyncio.run(run())
    share = memory.growth_bytes / _BUDGET
    assert share < tier(short=1.3, soak=1.2)
    record(
        f"memory of unread answers of {path.rpartition('/')[2]} to the budget",
        share,
        required="<= 1.2",
    )
