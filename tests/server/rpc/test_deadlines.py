"""Expired and cancelled evaluations are not computed."""

import asyncio
import time
import weakref
from collections.abc import Awaitable, Callable

import grpc
import numpy as np
import pytest

from losswire.server.errors import ExpiredError
from losswire.server.pipeline.evaluator import Evaluator
from losswire.v1 import evaluation_pb2, loss_service_pb2
from tests.support.inside import (
    CLOSED,
    PATIENCE,
    AsyncStub,
    Gate,
    in_server,
    numbered,
    outcome,
    outcomes,
    running_evaluator,
    until,
)

Request = loss_service_pb2.EvaluateRequest

_NEVER = float("inf")


def _request(number: float) -> Request:
    return Request(evaluation=numbered(number))


async def _queue_behind_gate(
    gate: Gate, evaluate: Callable[[float], Awaitable[object]], numbers: tuple[float, ...]
) -> list[asyncio.Task[object]]:
    """Keep the worker busy with the gate and queue the numbers behind it, in order."""

    async def one(number: float) -> object:
        return await evaluate(number)

    tasks = [asyncio.create_task(one(CLOSED))]
    await until(gate.reached.is_set)
    tasks += [asyncio.create_task(one(number)) for number in numbers]
    return tasks


def test_expired_work_is_never_computed() -> None:
    """Of three waiting evaluations, the one whose deadline passes fails and is not computed."""

    async def run(evaluator: Evaluator, gate: Gate) -> None:
        now = time.monotonic()
        deadlines = {CLOSED: _NEVER, 1.0: now + PATIENCE, 2.0: now + 0.05, 3.0: _NEVER}

        async def evaluate(number: float) -> object:
            return await outcome(evaluator, numbered(number), deadlines[number])

        tasks = await _queue_behind_gate(gate, evaluate, (1.0, 2.0, 3.0))
        await asyncio.sleep(0.1)
        gate.open.set()
        outcomes = await asyncio.gather(*tasks)
        codes = [getattr(each, "error").code for each in outcomes]  # noqa: B009 (untyped)
        assert codes == [0, 0, grpc.StatusCode.DEADLINE_EXCEEDED.value[0], 0]
        assert gate.computed == [CLOSED, 1.0, 3.0]

    gate = Gate()
    with running_evaluator(gate) as evaluator:
        asyncio.run(run(evaluator, gate))


def test_a_deadline_is_looked_at_between_the_items_of_a_call() -> None:
    """When it passes during the first of many, the others are not computed."""

    async def run(evaluator: Evaluator, gate: Gate) -> list[int]:
        items = [numbered(number) for number in (CLOSED, 1.0, 2.0)]
        task = asyncio.create_task(outcomes(evaluator, items, time.monotonic() + 0.5))
        await until(gate.reached.is_set)
        await asyncio.sleep(0.6)
        gate.open.set()
        return [each.error.code for each in await task]

    gate = Gate()
    with running_evaluator(gate) as evaluator:
        assert asyncio.run(run(evaluator, gate)) == [0, 4, 4]
    assert gate.computed == [CLOSED]


def test_a_deadline_that_has_passed_already_is_refused() -> None:
    """Nothing is computed for a call that came too late."""

    async def run(evaluator: Evaluator) -> None:
        with pytest.raises(ExpiredError):
            await evaluator.evaluate(numbered(1.0), time.monotonic() - 1)

    gate = Gate()
    with running_evaluator(gate) as evaluator:
        asyncio.run(run(evaluator))
    assert gate.computed == []


def test_cancelled_work_leaves_the_queue() -> None:
    """It is not computed, and other waiting evaluations are not affected."""

    async def run(evaluator: Evaluator, gate: Gate) -> None:
        async def evaluate(number: float) -> object:
            return await evaluator.evaluate(numbered(number), _NEVER)

        first, second, third = await _queue_behind_gate(gate, evaluate, (1.0, 2.0))
        await asyncio.sleep(0.05)
        second.cancel()
        with pytest.raises(asyncio.CancelledError):
            await second
        gate.open.set()
        await asyncio.gather(first, third)

    gate = Gate()
    with running_evaluator(gate) as evaluator:
        asyncio.run(run(evaluator, gate))
    assert gate.computed == [CLOSED, 2.0]


def test_cancelled_work_gives_its_memory_back_at_once() -> None:
    """While the worker is busy with another call, a cancelled evaluation is freed."""

    async def run(evaluator: Evaluator, gate: Gate) -> None:
        busy = asyncio.create_task(evaluator.evaluate(numbered(CLOSED), _NEVER))
        await until(gate.reached.is_set)
        checked = await evaluator.check(numbered(1.0, 100))
        array = weakref.ref(checked.inputs["input"])
        waiting = evaluator.worker.submit([checked], _NEVER)
        assert isinstance(waiting, asyncio.Future)
        await asyncio.sleep(0.05)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        del checked, waiting
        await until(lambda: array() is None)
        assert not gate.open.is_set()
        gate.open.set()
        await busy

    gate = Gate()
    with running_evaluator(gate) as evaluator:
        asyncio.run(run(evaluator, gate))


def test_cancelling_a_call_stops_between_its_items() -> None:
    """Of many items, those after the one that is computed at the cancellation never begin."""

    async def run(evaluator: Evaluator, gate: Gate) -> None:
        items = [numbered(number) for number in (CLOSED, 1.0, 2.0)]
        task = asyncio.create_task(outcomes(evaluator, items, _NEVER))
        await until(gate.reached.is_set)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.sleep(0)
        gate.open.set()
        await evaluator.evaluate(numbered(3.0), _NEVER)

    gate = Gate()
    with running_evaluator(gate) as evaluator:
        asyncio.run(run(evaluator, gate))
    assert gate.computed == [CLOSED, 3.0]


@pytest.mark.parametrize("end", ["deadline", "cancel"])
def test_ended_calls_are_not_computed_over_the_wire(end: str) -> None:
    """A caller's deadline and a caller's cancellation reach the queue."""
    gate = Gate()

    async def run(stub: AsyncStub) -> None:
        first = asyncio.ensure_future(_finish(stub.Evaluate(_request(CLOSED), timeout=PATIENCE)))
        await until(gate.reached.is_set)
        timeout = 0.2 if end == "deadline" else PATIENCE
        call = stub.Evaluate(_request(1.0), timeout=timeout)
        await asyncio.sleep(0.2)
        if end == "cancel":
            call.cancel()
        expected = {"deadline": grpc.StatusCode.DEADLINE_EXCEEDED}
        assert await call.code() is expected.get(end, grpc.StatusCode.CANCELLED)
        last = asyncio.ensure_future(_finish(stub.Evaluate(_request(2.0), timeout=PATIENCE)))
        await asyncio.sleep(0.2)
        gate.open.set()
        assert [await first, await last] == [0.0, 2.0]

    in_server(gate, run)
    assert gate.computed == [CLOSED, 2.0]


async def _finish(
    call: "grpc.aio.UnaryUnaryCall[Request, loss_service_pb2.EvaluateResponse]",
) -> float:
    """Return the loss of a call."""
    result: evaluation_pb2.EvaluationResult = (await call).result
    return float(np.frombuffer(result.loss.data, "<f4")[0])
