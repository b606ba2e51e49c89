"""Limits, memory, deadlines and turns are the same for prepared evaluations as for others."""

import asyncio
import math
from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np
import pytest

from losswire.server.compute.thresholds import SMALL_BYTES
from losswire.server.errors import ExpiredError
from losswire.server.prepared.cache import PreparedEvaluation
from losswire.server.prepared.envelope import Slice
from losswire.server.settings import MIB
from losswire.v1 import evaluation_pb2, loss_service_pb2
from tests.support.inside import CLOSED, PATIENCE, numbered, outcome, outcomes, until
from tests.support.prepared_forms import (
    LARGE,
    NEEDS_NATIVE,
    SIZES,
    SMALL,
    SMALL_FORMS,
    Build,
    classes,
    with_class,
)
from tests.support.prepared_server import (
    METHODS,
    SERVICE,
    Server,
    bits,
    compared,
    handlers_alone,
    no_deadline,
    request_of,
    run_with_server,
)
from tests.support.requests import GOLDEN, evaluation, item_status, trailing

Evaluation = evaluation_pb2.Evaluation

pytestmark = NEEDS_NATIVE


@pytest.mark.parametrize("name", ["mixed", "unknown", "invalid", "malformed"])
def test_many_of_all_kinds(name: str, decoded: list[str]) -> None:
    """Known, unknown and invalid evaluations of one call have each its own outcome, in order."""
    others = {
        "mixed": [
            GOLDEN,
            with_class(SMALL(2), 1, 99),
            SMALL_FORMS["float64"](1),
            Evaluation(loss="?"),
        ],
        "unknown": [SMALL_FORMS["float64"](1)],
        "invalid": [with_class(SMALL(2), 1, 99)],
        "malformed": [
            evaluation("cross_entropy", {"input": np.ones((2, 2)), "target": np.ones(3)})
        ],
    }[name]
    items = [SMALL(1), *others, SMALL(3), LARGE(1), *others, SMALL(4)]

    async def body(server: Server) -> None:
        await server.one(SMALL(1))
        expected = await outcomes(server.app.evaluator, items, math.inf)
        decoded.clear()
        request = loss_service_pb2.EvaluateManyRequest(evaluations=items).SerializeToString()
        for _ in range(3):
            answer = await server.raw("EvaluateMany", request)
            answered = loss_service_pb2.EvaluateManyResponse.FromString(answer).outcomes
            assert bits(answered) == bits(expected)
        assert len(decoded) == 3 * sum(each.loss != "?" for each in items)

    run_with_server(body)


@pytest.mark.parametrize(("count", "fits"), [(63, True), (64, True), (65, False)])
def test_as_many_as_allowed(count: int, *, fits: bool) -> None:
    """More evaluations than one call may hold are refused, also when all of them are known."""

    async def body(server: Server) -> None:
        await server.one(SMALL(1))
        request = loss_service_pb2.EvaluateManyRequest(evaluations=[SMALL(1)] * count)
        for _ in range(2):
            if fits:
                answer = await server.raw("EvaluateMany", request.SerializeToString())
                outcomes = loss_service_pb2.EvaluateManyResponse.FromString(answer).outcomes
                assert len(outcomes) == count
                continue
            with pytest.raises(grpc.RpcError, match="at most 64"):
                await server.raw("EvaluateMany", request.SerializeToString())

    run_with_server(body, max_evaluations_per_call=64)


def test_many_hold_their_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """While known evaluations of one call are computed, what all of them need is held."""
    held: list[int] = []
    needed: list[int] = []
    result_of = PreparedEvaluation.result_of
    request = loss_service_pb2.EvaluateManyRequest(evaluations=[SMALL(1)] * 50)

    async def run() -> None:
        async with handlers_alone() as (_, evaluator, handlers):
            admission = evaluator.budget

            def spy(prepared: PreparedEvaluation, sent: Slice) -> bytes | None:
                held.append(admission.reserved_bytes)
                needed.append(prepared.peak_bytes)
                return result_of(prepared, sent)

            monkeypatch.setattr(PreparedEvaluation, "result_of", spy)
            await handlers.one(request_of(SMALL(1)), no_deadline)
            await handlers.many(request.SerializeToString(), no_deadline)
            assert held == [sum(needed)] * 50
            assert admission.reserved_bytes == 0

    asyncio.run(run())


def test_many_let_others_have_a_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """The event loop does not compute all known evaluations of a call in one go."""
    turns: list[str] = []
    result_of = PreparedEvaluation.result_of
    request = loss_service_pb2.EvaluateManyRequest(evaluations=[SMALL(1)] * 64)

    def spy(known: PreparedEvaluation, sent: Slice) -> bytes | None:
        turns.append("one of many")
        return result_of(known, sent)

    async def other() -> None:
        turns.append("another")

    async def run() -> None:
        async with handlers_alone() as (_, _, handlers):
            await handlers.one(request_of(SMALL(1)), no_deadline)
            monkeypatch.setattr(PreparedEvaluation, "result_of", spy)
            many = asyncio.create_task(handlers.many(request.SerializeToString(), no_deadline))
            await asyncio.gather(many, other())
            assert 0 < turns.index("another") < 64

    asyncio.run(run())


@pytest.mark.parametrize("known", [False, True])
def test_many_together_are_admitted(known: bool) -> None:  # noqa: FBT001
    """Evaluations that are too large together are refused, known or not, and nothing stays held."""
    request = loss_service_pb2.EvaluateManyRequest(evaluations=[classes(1, 100, 100)] * 30)

    async def body(server: Server) -> None:
        if known:
            await server.one(classes(1, 100, 100))
        for _ in range(2):
            with pytest.raises(grpc.RpcError, match="the server's memory budget is"):
                await server.raw("EvaluateMany", request.SerializeToString())
        # Given back once gRPC has sent the answer, a moment after it is here.
        await until(lambda: server.app.evaluator.budget.reserved_bytes == 0)

    run_with_server(body, memory_budget_bytes=2 * MIB)


@pytest.mark.parametrize("method", METHODS)
@SIZES
def test_memory_in_use(build: Build, method: str) -> None:
    """While others use the memory a call of a known form is OVERLOADED, and then it is not."""

    async def body(server: Server) -> None:
        admission = server.app.evaluator.budget
        await server.one(build(1))
        await server.one(build(1))
        # Given back once gRPC has sent the answer, a moment after it is here.
        await until(lambda: not admission.reserved_bytes)
        with admission.hold(admission.free_bytes - 1000):
            one = loss_service_pb2.EvaluateRequest(evaluation=build(2)).SerializeToString()
            with pytest.raises(grpc.RpcError) as refused:
                await server.raw(method, one)  # before its message is read
            assert item_status(refused.value).reason == "OVERLOADED"
            assert int(trailing(refused.value)["grpc-retry-pushback-ms"]) > 0
        await until(lambda: not admission.reserved_bytes)
        await compared(server, method, build)

    run_with_server(body)


def test_expired_calls_are_not_computed() -> None:
    """What is large and known has a deadline, too."""

    async def run() -> None:
        async with handlers_alone() as (_, evaluator, handlers):
            await handlers.one(request_of(LARGE(1)), no_deadline)
            with pytest.raises(ExpiredError):
                await handlers.one(request_of(LARGE(1)), lambda: 0.0)
            assert evaluator.budget.reserved_bytes == 0

    asyncio.run(run())


def test_cancelled_calls_are_not_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits for the worker when its caller goes away never begins, and holds no memory."""
    begun: list[int] = []
    large_answer_of = PreparedEvaluation.large_answer_of

    def spy(known: PreparedEvaluation, *rest: Any) -> bytes | None:  # noqa: ANN401 (as it takes them)
        begun.append(1)
        return large_answer_of(known, *rest)

    monkeypatch.setattr(PreparedEvaluation, "large_answer_of", spy)

    async def run() -> None:
        async with handlers_alone() as (gate, evaluator, handlers):
            await handlers.one(request_of(LARGE(1)), no_deadline)
            blocking = asyncio.create_task(
                handlers.one(request_of(numbered(CLOSED, SMALL_BYTES)), no_deadline)
            )
            await until(gate.reached.is_set)
            held = evaluator.budget.reserved_bytes
            waiting = asyncio.create_task(handlers.one(request_of(LARGE(1)), no_deadline))
            await until(lambda: evaluator.budget.reserved_bytes > held)
            waiting.cancel()
            await asyncio.wait([waiting])
            assert waiting.cancelled()
            assert evaluator.budget.reserved_bytes == held
            gate.open.set()
            await blocking
            assert not begun
            await handlers.one(request_of(LARGE(1)), no_deadline)
            assert begun

    asyncio.run(run())


def test_streams_of_known_forms() -> None:
    """Items keep their numbers, whatever these are and however often they come."""
    numbers = [0, 2**64 - 1, 7, 7, 0, 127, 128, 2**32]

    def items() -> Iterator[bytes]:
        for seed, number in enumerate(numbers):
            request = loss_service_pb2.EvaluateStreamRequest(id=number, evaluation=SMALL(seed))
            yield request.SerializeToString()

    async def body(server: Server) -> None:
        seeds = range(len(numbers))
        expected = [await outcome(server.app.evaluator, SMALL(seed), math.inf) for seed in seeds]
        for _ in range(2):
            answers = [
                loss_service_pb2.EvaluateStreamResponse.FromString(each)
                async for each in server.stream(items())
            ]
            found = sorted((each.id, *bits([each.outcome])) for each in answers)
            wanted = zip(numbers, bits(expected), strict=True)
            assert found == sorted(wanted)

    run_with_server(body)


def test_a_stream_that_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """For a caller who does not read, a few answers are computed, and others are served."""
    computed: list[int] = []
    result_of = PreparedEvaluation.result_of

    def spy(known: PreparedEvaluation, *rest: Any) -> bytes | None:  # noqa: ANN401 (as result_of takes them)
        computed.append(1)
        return result_of(known, *rest)

    message = classes(1, 100, 100)
    request = loss_service_pb2.EvaluateStreamRequest(evaluation=message).SerializeToString()

    async def body(server: Server) -> None:
        await server.one(message)
        monkeypatch.setattr(PreparedEvaluation, "result_of", spy)
        call: Any = server.channel.stream_stream(SERVICE + "EvaluateStream")
        stream = call(iter([request] * 2000), timeout=PATIENCE)
        await until(lambda: len(computed) > 4)
        before = -1
        while before < len(computed):
            before = len(computed)
            await asyncio.sleep(0.3)
        assert len(computed) < 1000
        await compared(server, "Evaluate", SMALL)
        stream.cancel()

    run_with_server(body, max_in_flight_per_stream=4)
