"""A server inside of the test's own process, and a loss that the test can stop and resume."""

import asyncio
import math
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import grpc
import torch
from torch import Tensor

from losswire.server.app import App
from losswire.server.catalogue.registry import Registry
from losswire.server.declare import Input, LossRecord, Terms, floats, layout, loss
from losswire.server.errors import LosswireServerError
from losswire.server.losses import builtin_registry
from losswire.server.pipeline.evaluator import Evaluator
from losswire.server.pipeline.worker import ComputeWorker
from losswire.server.rpc.handlers import outcome_of
from losswire.server.settings import MIB, Settings
from losswire.v1 import evaluation_pb2, loss_service_pb2_grpc
from tests.support.harness import UNLIMITED
from tests.support.requests import evaluation, f32

if TYPE_CHECKING:
    AsyncStub = loss_service_pb2_grpc.LossServiceAsyncStub
else:
    AsyncStub = loss_service_pb2_grpc.LossServiceStub

PATIENCE = 60.0
"""The seconds to wait for something that must happen."""

CLOSED = 0.0
"""The number that `gate` stops at until it is opened."""

FAULTY = -1.0
"""The number that `gate` fails at, with an unexpected error."""

SECRET = "what only the log may tell"  # noqa: S105 (the text of an error)
"""The text of that error."""


@dataclass
class Gate:
    """A loss called `gate` that records its numbers, waits at 0 and fails at -1."""

    computed: list[float] = field(default_factory=list)
    """The first number of each input that was computed."""
    threads: set[int] = field(default_factory=set)
    """The threads it was computed in."""
    parallelism: list[int] = field(default_factory=list)
    """The number of threads that torch could use for each."""
    reached: threading.Event = field(default_factory=threading.Event)
    open: threading.Event = field(default_factory=threading.Event)

    @property
    def record(self) -> LossRecord:
        """The record of the loss."""

        @loss(
            layouts=(layout("any", input=floats("*S"), values="*S"),),
            inputs={"input": Input(meaning="Numbers.", differentiable=True)},
            source="tests",
        )
        def gate(input: Tensor) -> Terms:
            """Each number is its own loss."""
            first = float(input.detach().flatten()[0])
            self.computed.append(first)
            self.threads.add(threading.get_ident())
            self.parallelism.append(torch.get_num_threads())
            if first == CLOSED:
                self.reached.set()
                self.open.wait(PATIENCE)
            if first == FAULTY:
                raise ZeroDivisionError(SECRET)
            return Terms(input * 1)

        return gate

    @property
    def registry(self) -> Registry:
        """The built-in losses and this one."""
        registry = builtin_registry()
        registry.add(self.record)
        return registry


def numbered(number: float, elements: int = 1) -> evaluation_pb2.Evaluation:
    """Return an evaluation of the gate for a number."""
    array = f32(*[number] * elements)
    return evaluation("gate", {"input": array}, reduction=evaluation_pb2.REDUCTION_SUM)


def _settings(**changes: Any) -> Settings:  # noqa: ANN401 (any setting)
    facts: dict[str, Any] = {
        "listen": "127.0.0.1:0",
        "device": "cpu",
        "threads": 1,
        "memory_budget_bytes": 64 * MIB,
        "drain_seconds": PATIENCE,
    }
    return Settings(**{**facts, **changes})


@asynccontextmanager
async def serving_app(
    gate: Gate,
    **changes: Any,  # noqa: ANN401 (any setting)
) -> AsyncIterator[tuple[App, grpc.aio.Channel]]:
    """Serve on this event loop and connect; at the end the gate is opened."""
    app = App(_settings(**changes), gate.registry)
    address = await app.start()
    try:
        async with grpc.aio.insecure_channel(address, UNLIMITED) as channel:
            yield app, channel
    finally:
        gate.open.set()
        await app.stop()


@asynccontextmanager
async def serving(
    gate: Gate,
    **changes: Any,  # noqa: ANN401 (any setting)
) -> AsyncIterator[AsyncStub]:
    """Serve like `serving_app`, for tests that only evaluate."""
    async with serving_app(gate, **changes) as (_, channel):
        yield loss_service_pb2_grpc.LossServiceStub(channel)


def in_server(
    gate: Gate,
    body: Callable[[AsyncStub], Awaitable[None]],
    **changes: Any,  # noqa: ANN401 (any setting)
) -> None:
    """Run a function that calls a server, both on one new event loop."""

    async def run() -> None:
        async with serving(gate, **changes) as stub:
            await body(stub)

    asyncio.run(run())


@contextmanager
def running_evaluator(
    gate: Gate,
    **changes: Any,  # noqa: ANN401 (any setting)
) -> Iterator[Evaluator]:
    """Create an evaluator alone, without any service; at the end the gate is opened."""
    worker = ComputeWorker(torch.device("cpu"), 1)
    worker.start()
    try:
        yield Evaluator(gate.registry, worker, _settings(**changes))
    finally:
        gate.open.set()
        worker.stop()


async def outcomes(
    evaluator: Evaluator, items: Sequence[evaluation_pb2.Evaluation], deadline: float = math.inf
) -> list[evaluation_pb2.EvaluationOutcome]:
    """Evaluate many batches; each gets the outcome that EvaluateMany would send."""
    return [outcome_of(each) for each in await evaluator.evaluate_many(items, deadline)]


async def outcome(
    evaluator: Evaluator, item: evaluation_pb2.Evaluation, deadline: float = math.inf
) -> evaluation_pb2.EvaluationOutcome:
    """Evaluate one batch; an error becomes the outcome that a stream would send."""
    try:
        return outcome_of(await evaluator.evaluate(item, deadline))
    except LosswireServerError as error:
        return outcome_of(error)


async def until(condition: Callable[[], bool]) -> None:
    """Wait until a condition becomes true."""
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 (of another thread, often)
            await asyncio.sleep(0.005)
