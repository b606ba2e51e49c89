"""Memory is reserved before it is used, always released, and never overbooked."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import grpc
import pytest
import torch
from google.rpc import error_details_pb2
from google.rpc import status_pb2 as rpc_status_pb2

from losswire.server import thresholds
from losswire.server.compute.work import Work
from losswire.server.errors import ExpiredError, OverLimitError, OverloadedError
from losswire.server.pipeline.admit import peak_bytes
from losswire.server.pipeline.evaluator import Evaluator
from losswire.server.pipeline.worker import Answer, ComputeWorker
from losswire.server.settings import MIB, Settings
from losswire.v1 import evaluation_pb2, loss_service_pb2
from tests.support.harness import Child
from tests.support.inside import (
    CLOSED,
    FAULTY,
    PATIENCE,
    AsyncStub,
    Gate,
    in_server,
    numbered,
    outcomes,
    running_evaluator,
    until,
)
from tests.support.requests import (
    GOLDEN,
    TIMEOUT,
    Stub,
    by_call,
    by_many,
    by_stream,
    details,
    evaluation,
    f32,
    is_golden,
    item_status,
    trailing,
)

Request = loss_service_pb2.EvaluateRequest
Response = loss_service_pb2.EvaluateResponse

_NEVER = float("inf")
_KIB = 1024
_ENDS = {"success": type(None), "error": ZeroDivisionError, "expired": ExpiredError}


def _large(number: float) -> evaluation_pb2.Evaluation:
    """Return an evaluation of the gate that takes more than half of 1 MiB."""
    return numbered(number, 15_000)


async def _price(evaluator: Evaluator, item: evaluation_pb2.Evaluation) -> int:
    return peak_bytes(await evaluator.check(item))


@pytest.mark.parametrize("end", ["success", "error", "expired", "cancelled"])
def test_the_budget_is_given_back(end: str) -> None:
    """Reserved while the evaluation waits and is computed, and 0 after every kind of end."""
    gate = Gate()
    number = FAULTY if end == "error" else 1.0

    async def run(evaluator: Evaluator) -> None:
        wanted = await _price(evaluator, numbered(number))
        busy = asyncio.create_task(evaluator.evaluate(numbered(CLOSED), _NEVER))
        await until(gate.reached.is_set)
        assert evaluator.budget.reserved_bytes == wanted > 0
        deadline = 0.0 if end == "expired" else _NEVER
        waiting = asyncio.create_task(evaluator.evaluate(numbered(number), deadline))
        await until(lambda: evaluator.budget.reserved_bytes == 2 * wanted)
        if end == "cancelled":
            waiting.cancel()
            await asyncio.wait([waiting])
            assert evaluator.budget.reserved_bytes == wanted
        gate.open.set()
        await asyncio.wait([busy, waiting])
        assert evaluator.budget.reserved_bytes == 0
        if end == "cancelled":
            assert waiting.cancelled()
        else:
            assert type(waiting.exception()) is _ENDS[end]

    with running_evaluator(gate) as evaluator:
        asyncio.run(run(evaluator))


class _FailingQueue(ComputeWorker):
    """A worker that fails when evaluations are submitted; it records what is reserved then."""

    def __init__(self) -> None:
        super().__init__(torch.device("cpu"), 1)
        self.reserved_bytes: Callable[[], int] = int
        self.seen: list[int] = []

    def submit(self, works: Sequence[Work], deadline: float) -> Awaitable[list[Answer]]:
        """Fail, after all checks and with the memory reserved."""
        del works, deadline
        self.seen.append(self.reserved_bytes())
        raise ZeroDivisionError


def test_an_error_after_the_reservation_gives_the_budget_back() -> None:
    """Between the reservation and the computation, too, no error leaves bytes reserved."""
    settings = Settings(threads=1, memory_budget_bytes=MIB)
    worker = _FailingQueue()
    evaluator = Evaluator(Gate().registry, worker, settings)
    worker.reserved_bytes = lambda: evaluator.budget.reserved_bytes

    async def run() -> None:
        wanted = await _price(evaluator, numbered(1.0))
        with pytest.raises(ZeroDivisionError):
            await evaluator.evaluate(numbered(1.0), _NEVER)
        assert evaluator.budget.reserved_bytes == 0
        with pytest.raises(ZeroDivisionError):
            await evaluator.evaluate_many([numbered(1.0), numbered(1.0)], _NEVER)
        assert evaluator.budget.reserved_bytes == 0
        assert worker.seen == [wanted, 2 * wanted]

    asyncio.run(run())


def test_a_call_of_many_reserves_for_all_of_them() -> None:
    """EvaluateMany reserves the sum of its items' peaks; refused items reserve nothing."""
    gate = Gate()

    async def run(evaluator: Evaluator) -> None:
        prices = [await _price(evaluator, each) for each in (numbered(CLOSED), numbered(1.0, 10))]
        wanted = sum(prices)
        items = [numbered(CLOSED), evaluation_pb2.Evaluation(), numbered(1.0, 10)]
        task = asyncio.create_task(outcomes(evaluator, items, _NEVER))
        await until(gate.reached.is_set)
        assert evaluator.budget.reserved_bytes == wanted
        gate.open.set()
        assert [each.error.code for each in await task] == [0, 5, 0]
        assert evaluator.budget.reserved_bytes == 0

    with running_evaluator(gate) as evaluator:
        asyncio.run(run(evaluator))


def test_more_than_the_budget_is_refused_soon_or_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One that does not fit for a while has a time for its retry; one that never fits has none."""
    monkeypatch.setattr(thresholds, "ADMISSION_WAIT_SECONDS", 0.05)
    gate = Gate()

    async def run(evaluator: Evaluator) -> None:
        task = asyncio.create_task(evaluator.evaluate(_large(CLOSED), _NEVER))
        await until(gate.reached.is_set)
        reserved = evaluator.budget.reserved_bytes
        with pytest.raises(OverloadedError) as overloaded:
            await evaluator.evaluate(_large(1.0), _NEVER)
        assert overloaded.value.retry_after_ms == 50
        with pytest.raises(OverLimitError):
            await evaluator.evaluate(numbered(1.0, 100_000), _NEVER)
        await until(lambda: evaluator.budget.reserved_bytes == reserved)
        small = asyncio.create_task(evaluator.evaluate(numbered(2.0), _NEVER))
        await until(lambda: evaluator.budget.reserved_bytes > reserved)
        gate.open.set()
        await asyncio.gather(task, small)
        await evaluator.evaluate(_large(3.0), _NEVER)
        assert evaluator.budget.reserved_bytes == 0

    with running_evaluator(gate, memory_budget_bytes=_KIB * _KIB) as evaluator:
        asyncio.run(run(evaluator))
    assert gate.computed == [CLOSED, 2.0, 3.0]


def test_an_evaluation_waits_for_memory() -> None:
    """One that does not fit now is computed as soon as another has ended."""
    gate = Gate()

    async def run(evaluator: Evaluator) -> None:
        first = asyncio.create_task(evaluator.evaluate(_large(CLOSED), _NEVER))
        await until(gate.reached.is_set)
        second = asyncio.create_task(evaluator.evaluate(_large(1.0), _NEVER))
        await until(lambda: bool(len(evaluator.budget.line)))
        gate.open.set()
        await asyncio.gather(first, second)
        assert evaluator.budget.reserved_bytes == 0

    with running_evaluator(gate, memory_budget_bytes=_KIB * _KIB) as evaluator:
        asyncio.run(run(evaluator))
    assert gate.computed == [CLOSED, 1.0]


def test_a_price_covers_what_is_made() -> None:
    """No peak is below the inputs, values and gradients in the type they are computed in."""

    async def run(evaluator: Evaluator) -> None:
        rows, classes = 100, 50
        logits = f32(*[[0.5] * classes] * rows)
        item = evaluation("cross_entropy", {"input": logits, "target": logits})
        assert await _price(evaluator, item) >= 4 * 2 * rows * classes + 8 * rows
        loss_only = await _price(evaluator, item)
        item.gradients_for.extend(["input", "target"])
        assert await _price(evaluator, item) >= loss_only + 4 * 2 * rows * classes
        hollow = evaluation("cross_entropy", {"input": logits[:, :0], "target": logits[:, :0]})
        assert await _price(evaluator, hollow) >= 8 * rows

    with running_evaluator(Gate()) as evaluator:
        asyncio.run(run(evaluator))


def test_a_tiny_server_refuses_what_never_fits(tmp_path: Path) -> None:
    """With 1 MiB to spend: pushback -1, no RetryInfo, by every method; small work is done."""
    item = evaluation("sigmoid", {"input": f32(*[0.5] * 100_000)})
    request = loss_service_pb2.EvaluateRequest(evaluation=item)
    with (
        Child(tmp_path / "log", "--memory-budget-mib", "1") as child,
        child.channel() as channel,
    ):
        stub = Stub(channel)
        with pytest.raises(grpc.RpcError) as refused:
            stub.Evaluate(request, timeout=TIMEOUT)
        assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert trailing(refused.value)["grpc-retry-pushback-ms"] == "-1"
        assert item_status(refused.value).reason == "OVER_LIMIT"
        assert error_details_pb2.RetryInfo not in details(refused.value)[1]
        for method in (by_stream, by_many):
            error = method(stub, item).error
            assert (error.code, error.reason) == (8, "OVER_LIMIT")
            assert not error.HasField("retry_after_ms")
        assert is_golden(by_call(stub, GOLDEN).result)


def test_a_busy_server_tells_when_to_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """OVERLOADED carries RetryInfo and the pushback that gRPC's own retries understand."""
    monkeypatch.setattr(thresholds, "ADMISSION_WAIT_SECONDS", 0.05)
    gate = Gate()

    async def run(stub: AsyncStub) -> None:
        def call(number: float) -> "grpc.aio.UnaryUnaryCall[Request, Response]":
            request = Request(evaluation=_large(number))
            return stub.Evaluate(request, timeout=PATIENCE)

        first = call(CLOSED)
        await until(gate.reached.is_set)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call(1.0)
        assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        metadata = dict(refused.value.trailing_metadata())
        assert metadata["grpc-retry-pushback-ms"] == "50"
        info = _retry_info(metadata["grpc-status-details-bin"])
        assert info.retry_delay.ToMilliseconds() == 50
        gate.open.set()
        await first
        await call(2.0)

    in_server(gate, run, memory_budget_bytes=_KIB * _KIB)
    assert gate.computed == [CLOSED, 2.0]


def _retry_info(binary: str | bytes) -> error_details_pb2.RetryInfo:
    """Find RetryInfo in a call's rich status."""
    assert isinstance(binary, bytes)
    info = error_details_pb2.RetryInfo()
    found = [each.Unpack(info) for each in rpc_status_pb2.Status.FromString(binary).details]
    assert found.count(True) == 1
    return info


def test_too_many_items_are_refused_for_ever(stub: Stub) -> None:
    """4096 evaluations in one call are taken, one more is OVER_LIMIT with pushback -1."""
    limits = stub.GetServerInfo(loss_service_pb2.GetServerInfoRequest(), timeout=TIMEOUT).limits
    empty = evaluation_pb2.Evaluation()
    most = limits.max_evaluations_per_call
    request = loss_service_pb2.EvaluateManyRequest(evaluations=[empty] * most)
    assert len(stub.EvaluateMany(request, timeout=TIMEOUT).outcomes) == most == 4096
    request.evaluations.append(empty)
    with pytest.raises(grpc.RpcError) as refused:
        stub.EvaluateMany(request, timeout=TIMEOUT)
    assert item_status(refused.value).message == "4097 evaluations in one call; at most 4096"
    assert trailing(refused.value)["grpc-retry-pushback-ms"] == "-1"
