"""A chunked call holds a few parts at a time, with slow, cancelled and large callers."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from torch import Tensor

from losswire.server import thresholds
from losswire.server.declare import Input, Terms, floats, layout, loss
from losswire.server.errors import (
    ExpiredError,
    InvalidEvaluationError,
    OverLimitError,
    OverloadedError,
)
from losswire.server.pipeline.chunked.call import Part
from losswire.server.pipeline.chunked.read_ahead import read_ahead
from losswire.server.pipeline.evaluator import Evaluator
from losswire.v1 import evaluation_pb2, tensor_pb2
from tests.support.chunks import Request, header_of
from tests.support.harness import Child
from tests.support.inside import CLOSED, FAULTY, PATIENCE, Gate, numbered, running_evaluator, until
from tests.support.requests import GOLDEN, Stub, by_call, evaluation, f32, is_golden

_MIB = 1 << 20
_NEVER = float("inf")


def _header(rows: int, width: int, **fields: Any) -> Request:  # noqa: ANN401 (any field)
    """Return a header that sums rows with the gate."""
    item = evaluation(
        "gate",
        {"input": np.zeros((1, width), np.float32)},
        reduction=evaluation_pb2.REDUCTION_SUM,
        **fields,
    )
    item.inputs["input"].shape[0] = rows
    return header_of(item, ["input"])


def _payload(number: float, rows: int, width: int) -> memoryview:
    return memoryview(np.full((rows, width), number, np.float32).tobytes())


@pytest.mark.parametrize("end", ["success", "error", "cancelled", "wrong part"])
def test_the_budget_is_given_back(end: str) -> None:
    """A few parts are reserved from the header on, and nothing after any kind of end."""
    gate = Gate()
    last = FAULTY if end == "error" else 2.0

    async def run(evaluator: Evaluator) -> None:
        async def parts() -> AsyncIterator[Part]:
            yield _header(1000, 256, gradients_for=["input"])
            yield _payload(CLOSED, 100, 256)
            yield _payload(last, 800, 256)
            yield _payload(3.0, 200 if end == "wrong part" else 100, 256)

        async def collect() -> list[Any]:
            return [each async for each in evaluator.chunked.evaluate(parts(), _NEVER)]

        task = asyncio.create_task(collect())
        await until(gate.reached.is_set)
        assert 0 < evaluator.budget.reserved_bytes < 64 * _MIB
        if end == "cancelled":
            task.cancel()
            await asyncio.wait([task])
        gate.open.set()
        await asyncio.wait([task])
        assert evaluator.budget.reserved_bytes == 0
        await evaluator.worker.run(lambda waited: waited, _NEVER)  # what was cancelled still ends
        if end == "success":
            assert len(task.result()) == 4
        elif end != "cancelled":
            kind = ZeroDivisionError if end == "error" else InvalidEvaluationError
            assert isinstance(task.exception(), kind)
        assert (3.0 in gate.computed) == (end == "success")

    with running_evaluator(gate) as evaluator:
        asyncio.run(run(evaluator))


def test_a_larger_part_reserves_more() -> None:
    """The reservation follows the largest part; a part that never fits is refused."""
    gate = Gate()

    async def run(evaluator: Evaluator) -> None:
        held: list[int] = []

        async def parts() -> AsyncIterator[Part]:
            yield _header(10_000, 1024)
            for rows in (1, 4, 4096):
                yield _payload(1.0, rows, 1024)
                await until(lambda: len(gate.computed) == len(held) + 1)
                held.append(evaluator.budget.reserved_bytes)

        with pytest.raises(OverLimitError, match="the server's memory budget is"):
            async for _ in evaluator.chunked.evaluate(parts(), _NEVER):
                pass
        assert held[0] == held[1] > 0
        assert evaluator.budget.reserved_bytes == 0
        busy = asyncio.create_task(evaluator.evaluate(numbered(CLOSED, 1_300_000), _NEVER))
        await until(gate.reached.is_set)
        with pytest.raises(OverloadedError):
            async for _ in evaluator.chunked.evaluate(parts(), _NEVER):
                pass
        gate.open.set()
        await busy

    with running_evaluator(gate) as evaluator:
        asyncio.run(run(evaluator))


def test_a_silent_sender_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """A caller that sends no more rows does not hold its reservation forever."""
    monkeypatch.setattr(thresholds, "GRACE_SECONDS", 0.05)

    async def run(evaluator: Evaluator) -> None:
        async def parts() -> AsyncIterator[Part]:
            yield _header(1000, 256)
            yield _payload(1.0, 100, 256)
            assert evaluator.budget.reserved_bytes > 0
            await asyncio.sleep(PATIENCE)

        with pytest.raises(ExpiredError, match="the message did not arrive in time"):
            async for _ in evaluator.chunked.evaluate(parts(), _NEVER):
                pass
        assert evaluator.budget.reserved_bytes == 0

    with running_evaluator(Gate()) as evaluator:
        asyncio.run(run(evaluator))


def test_what_runs_ahead_is_bounded() -> None:
    """A source is read at most by the depth and one further item, and is closed."""
    made: list[int] = []
    closed: list[bool] = []

    async def source() -> Any:  # noqa: ANN401 (an asynchronous generator)
        try:
            for number in range(100):
                made.append(number)
                yield number
        finally:
            closed.append(True)

    async def run() -> None:
        items = read_ahead(source(), 2)
        assert await anext(items) == 0
        await until(lambda: len(made) == 4)
        await asyncio.sleep(0.02)
        assert len(made) == 4
        await items.aclose()
        assert closed == [True]

    asyncio.run(run())


def test_a_denominator_that_nobody_foresaw_is_refused() -> None:
    """A record that does not declare its denominators returns no wrong gradients of a mean."""

    @loss(
        layouts=(layout("any", input=floats("*S"), values="*S"),),
        inputs={"input": Input(meaning="Numbers.", differentiable=True)},
        source="tests",
    )
    def odd(input: Tensor) -> Terms:
        """Weigh each number by itself."""
        return Terms(input * 1, denominators=input.detach())

    async def ask(evaluator: Evaluator, **fields: Any) -> list[Any]:  # noqa: ANN401 (any field)
        async def parts() -> AsyncIterator[Part]:
            yield header_of(evaluation("odd", {"input": f32(1, 2, 3)}, **fields), ["input"])
            yield memoryview(f32(1, 2).tobytes())
            yield memoryview(f32(3).tobytes())

        return [each async for each in evaluator.chunked.evaluate(parts(), _NEVER)]

    async def run(evaluator: Evaluator) -> None:
        evaluator.registry.add(odd)
        with pytest.raises(InvalidEvaluationError, match="normalizer: is required: odd does not"):
            await ask(evaluator, gradients_for=["input"])
        for fields in ({"normalizer": 6.0, "gradients_for": ["input"]}, {}):
            *_, last = await ask(evaluator, **fields)
            assert last.result.result.mean_denominator == 6.0

    with running_evaluator(Gate()) as evaluator:
        asyncio.run(run(evaluator))


_WIDTH = 4096
_BLOCK_ROWS = 64


def _large(stub: Stub, mib: int, take: Callable[[Iterator[Any]], None]) -> None:
    """Stream a tensor of some MiB, each part the same memory, and read the answers."""
    rows = mib * _MIB // (4 * _WIDTH)
    block = np.random.default_rng(3).standard_normal((_BLOCK_ROWS, _WIDTH)).astype(np.float32)
    item = evaluation(
        "cross_entropy",
        {"input": block, "target": np.zeros(rows, np.int64)},
        gradients_for=["input"],
    )
    item.inputs["input"].shape[0] = rows
    payload = block.tobytes()

    def requests() -> Iterator[Request]:
        yield header_of(item, ["input"])
        for _ in range(0, rows, _BLOCK_ROWS):
            yield Request(rows=payload)

    take(stub.EvaluateChunked(requests(), timeout=250.0))


def _consume(answers: Iterator[Any]) -> None:
    *_, last = (
        each.result.rows if each.HasField("result") else each.ByteSize() for each in answers
    )
    assert last > 0


def test_memory_is_bounded_however_large_the_tensor(tmp_path: Path) -> None:
    """512 MiB go through a server that grows by 96 MiB at most."""
    with Child(tmp_path / "log") as child, child.channel() as channel:
        stub = Stub(channel)
        assert is_golden(by_call(stub, GOLDEN).result)
        before, most, over = child.resident_bytes, [0], threading.Event()

        def watch() -> None:
            while not over.wait(0.01):
                most[0] = max(most[0], child.resident_bytes)

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            _large(stub, 512, _consume)
        finally:
            over.set()
            watcher.join()
        assert most[0] - before <= 96 * _MIB


def test_a_slow_reader_holds_up_nobody(tmp_path: Path) -> None:
    """While a caller does not read, others are served and no memory piles up; then it ends well."""
    with (
        Child(tmp_path / "log") as child,
        child.channel() as channel,
        child.channel() as other,
    ):
        neighbour = Stub(other)
        assert is_golden(by_call(neighbour, GOLDEN).result)
        before = child.resident_bytes

        def slowly(answers: Iterator[Any]) -> None:
            next(answers)
            until_then = time.monotonic() + 1.5
            while time.monotonic() < until_then:
                assert is_golden(by_call(neighbour, GOLDEN).result)
                assert child.resident_bytes - before <= 96 * _MIB
            _consume(answers)

        _large(Stub(channel), 192, slowly)


def test_a_caller_that_goes_away_frees_what_was_reserved(tmp_path: Path) -> None:
    """After 20 cancelled calls the budget, which holds two at a time, is free again."""
    with (
        Child(tmp_path / "log", "--memory-budget-mib", "48") as child,
        child.channel() as channel,
    ):
        stub = Stub(channel)

        def leave(answers: Any) -> None:  # noqa: ANN401 (a call)
            next(answers)
            answers.cancel()

        def fits(take: Callable[[Any], None]) -> bool:
            try:
                _large(stub, 64, take)
            except grpc.RpcError as error:
                return error.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED
            return True

        def until_it_fits(take: Callable[[Any], None]) -> None:
            deadline = time.monotonic() + PATIENCE
            while not fits(take):
                assert time.monotonic() < deadline
                time.sleep(0.02)

        for _ in range(20):
            until_it_fits(leave)
        until_it_fits(_consume)


def test_a_tensor_without_a_type_is_refused_before_its_shape_is_used() -> None:
    """The form of a streamed tensor is checked like any other's."""

    async def run(evaluator: Evaluator) -> None:
        async def parts() -> AsyncIterator[Part]:
            request = _header(10, 4)
            tensor = request.header.evaluation.inputs["input"]
            tensor.data_type = tensor_pb2.DATA_TYPE_UNSPECIFIED
            tensor.shape[0] = -1
            yield request

        with pytest.raises(InvalidEvaluationError) as refused:
            async for _ in evaluator.chunked.evaluate(parts(), _NEVER):
                pass
        fields = [each.field for each in refused.value.violations]
        assert fields[:2] == ['inputs["input"].data_type', 'inputs["input"].shape[0]']

    with running_evaluator(Gate()) as evaluator:
        asyncio.run(run(evaluator))
