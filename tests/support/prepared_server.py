"""A server inside of the test, asked by each of its methods, and its handlers without a server."""

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any

import grpc

from losswire.server.app import App
from losswire.server.pipeline.evaluator import Evaluator
from losswire.server.rpc.handlers import EvaluateHandlers
from losswire.server.settings import MIB
from losswire.v1 import evaluation_pb2, loss_service_pb2
from tests.support.inside import PATIENCE, Gate, outcome, running_evaluator, serving_app
from tests.support.prepared_forms import (
    Build,
)
from tests.support.requests import essence, item_status

Evaluation = evaluation_pb2.Evaluation

Outcome = evaluation_pb2.EvaluationOutcome

SERVICE = "/losswire.v1.LossService/"


class Server:
    """The ways to a server inside of the test."""

    def __init__(self, app: App, channel: grpc.aio.Channel) -> None:
        self.app = app
        self.channel = channel

    async def raw(self, method: str, data: bytes) -> bytes:
        """Send bytes as they are; a stream of one item, for EvaluateStream."""
        if method != "EvaluateStream":
            call: Any = self.channel.unary_unary(SERVICE + method)
            answer: bytes = await call(data, timeout=PATIENCE)
            return answer
        [answer] = [each async for each in self.stream([data])]
        return answer

    def stream(self, items: Iterable[bytes]) -> AsyncIterator[bytes]:
        """Send items of a stream."""
        call: Any = self.channel.stream_stream(SERVICE + "EvaluateStream")
        answers: AsyncIterator[bytes] = call(iter(items), timeout=PATIENCE)
        return answers

    async def one(self, item: Evaluation) -> list[Outcome]:
        """Evaluate in a call of its own."""
        request = loss_service_pb2.EvaluateRequest(evaluation=item)
        try:
            answer = await self.raw("Evaluate", request.SerializeToString())
        except grpc.RpcError as error:
            return [Outcome(error=item_status(error))]
        return [Outcome(result=loss_service_pb2.EvaluateResponse.FromString(answer).result)]

    async def many(self, item: Evaluation) -> list[Outcome]:
        """Evaluate several times in one call."""
        request = loss_service_pb2.EvaluateManyRequest(evaluations=[item] * 3)
        answer = await self.raw("EvaluateMany", request.SerializeToString())
        return list(loss_service_pb2.EvaluateManyResponse.FromString(answer).outcomes)

    async def item(self, item: Evaluation) -> list[Outcome]:
        """Evaluate as an item of a stream."""
        request = loss_service_pb2.EvaluateStreamRequest(id=300, evaluation=item)
        answer = await self.raw("EvaluateStream", request.SerializeToString())
        response = loss_service_pb2.EvaluateStreamResponse.FromString(answer)
        assert response.id == 300
        return [response.outcome]


METHODS: dict[str, Callable[[Server, Evaluation], Awaitable[list[Outcome]]]] = {
    "Evaluate": Server.one,
    "EvaluateMany": Server.many,
    "EvaluateStream": Server.item,
}


@asynccontextmanager
async def serving(**changes: Any) -> AsyncIterator[Server]:  # noqa: ANN401 (any setting)
    """Serve on this event loop."""
    settings = {"threads": 2, "memory_budget_bytes": 512 * MIB} | changes
    async with serving_app(Gate(), **settings) as (app, channel):
        yield Server(app, channel)


def bits(outcomes: Iterable[Outcome]) -> list[bytes]:
    """Serialize all that must be the same of some outcomes: bits, because NaN is not equal."""
    return [
        (
            Outcome(result=essence(each.result)) if each.HasField("result") else each
        ).SerializeToString(deterministic=True)
        for each in outcomes
    ]


async def compared(
    server: Server, method: str, build: Build, seeds: Iterable[int] = (1, 1, 2, 3)
) -> None:
    """Evaluate several numbers, and expect the outcomes of the pipeline alone, without a cache."""
    for seed in seeds:
        expected = await outcome(server.app.evaluator, build(seed), math.inf)
        answers = await METHODS[method](server, build(seed))
        assert bits(answers) == bits([expected] * len(answers))
        for each in answers:
            assert each.result.compute_nanoseconds > 0


def run_with_server(body: Callable[[Server], Awaitable[None]], **changes: Any) -> None:  # noqa: ANN401
    """Serve with some settings, and run something that calls the server."""

    async def run() -> None:
        async with serving(**changes) as server:
            await body(server)

    asyncio.run(run())


async def count_decoded(
    server: Server, method: str, build: Build, decoded: list[str], seeds: Iterable[int] = (5, 6, 7)
) -> int:
    """Count what is decoded of evaluations by a method, each of which has a result."""
    decoded.clear()
    for seed in seeds:
        assert all(each.HasField("result") for each in await METHODS[method](server, build(seed)))
    return len(decoded)


async def raw_outcome(server: Server, method: str, request: bytes) -> Outcome:
    """Send a request; gives the only outcome, or what is wrong with it."""
    try:
        answer = await server.raw(method, request)
    except grpc.RpcError as error:
        return Outcome(error=item_status(error))
    if method == "Evaluate":
        return Outcome(result=loss_service_pb2.EvaluateResponse.FromString(answer).result)
    if method == "EvaluateStream":
        return loss_service_pb2.EvaluateStreamResponse.FromString(answer).outcome
    [outcome] = loss_service_pb2.EvaluateManyResponse.FromString(answer).outcomes
    return outcome


@asynccontextmanager
async def handlers_alone(
    **changes: Any,  # noqa: ANN401 (any setting)
) -> AsyncIterator[tuple[Gate, Evaluator, EvaluateHandlers]]:
    """Make the handlers of a pipeline alone, without a server."""
    gate = Gate()
    with running_evaluator(gate, **changes) as alone:
        yield gate, alone, EvaluateHandlers(alone, 64)


def request_of(message: Evaluation) -> bytes:
    """Serialize the request of a call of its own."""
    return loss_service_pb2.EvaluateRequest(evaluation=message).SerializeToString()


def no_deadline() -> float:
    """Return the deadline of a call that may take any time."""
    return math.inf
