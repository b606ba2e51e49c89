"""Prepared evaluations have the answers of the pipeline, bit by bit, whatever was asked before."""

import asyncio
import math

import numpy as np
import pytest
import torch

from losswire.server.compute.native import binding
from losswire.server.rpc.handlers import EvaluateHandlers
from losswire.server.settings import MIB
from losswire.v1 import evaluation_pb2, loss_service_pb2
from losswire.wire import varint
from tests.support.inside import Gate, numbered, outcome, running_evaluator
from tests.support.prepared_forms import (
    LARGE_FORMS,
    NEEDS_NATIVE,
    OTHER_FORMS,
    SIZES,
    SMALL_FORMS,
    Build,
    classes,
)
from tests.support.prepared_server import (
    METHODS,
    Server,
    bits,
    compared,
    count_decoded,
    handlers_alone,
    no_deadline,
    raw_outcome,
    request_of,
    run_with_server,
)

Evaluation = evaluation_pb2.Evaluation

pytestmark = NEEDS_NATIVE


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("build", SMALL_FORMS.values(), ids=SMALL_FORMS)
def test_small_forms_are_answered_as_by_the_pipeline(
    build: Build, method: str, decoded: list[str]
) -> None:
    """After the first one no message is decoded, and not one bit of an answer is another."""

    async def body(server: Server) -> None:
        await compared(server, method, build)
        assert not await count_decoded(server, method, build, decoded)

    run_with_server(body)


@pytest.mark.parametrize("build", LARGE_FORMS.values(), ids=LARGE_FORMS)
def test_large_forms_are_answered_as_by_the_pipeline(build: Build, decoded: list[str]) -> None:
    """So are large ones in calls of their own, whatever threads share the rows."""

    async def body(server: Server) -> None:
        await compared(server, "Evaluate", build)
        assert not await count_decoded(server, "Evaluate", build, decoded)

    run_with_server(body)


@pytest.mark.parametrize("method", ["EvaluateMany", "EvaluateStream"])
def test_large_items_take_the_pipeline(method: str, decoded: list[str]) -> None:
    """The event loop does not compute what is large, and by the pipeline it has the same bits."""
    build = LARGE_FORMS["of exactly the size"]

    async def body(server: Server) -> None:
        await compared(server, "Evaluate", build)
        await compared(server, method, build)
        assert await count_decoded(server, method, build, decoded) >= 3

    run_with_server(body)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("build", OTHER_FORMS.values(), ids=OTHER_FORMS)
def test_other_forms_take_the_pipeline(build: Build, method: str, decoded: list[str]) -> None:
    """What native code does not do in messages is decoded each time, and nothing is kept of it."""

    async def body(server: Server) -> None:
        await compared(server, method, build)
        assert await count_decoded(server, method, build, decoded) >= 3

    run_with_server(body)


@SIZES
def test_calls_at_once_do_not_mix(build: Build, decoded: list[str]) -> None:
    """Many calls of one form at a time have each its own numbers."""

    async def body(server: Server) -> None:
        evaluator = server.app.evaluator
        expected = [await outcome(evaluator, build(seed), math.inf) for seed in range(8)]
        await server.one(build(0))
        decoded.clear()
        for _ in range(3):
            answers = await asyncio.gather(*(server.one(build(seed)) for seed in range(8)))
            assert [bits(each) for each in answers] == [bits([each]) for each in expected]
        assert not decoded

    run_with_server(body, memory_budget_bytes=1024 * MIB)


@SIZES
def test_on_a_gpu_nothing_is_kept(
    build: Build, decoded: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Native rows compute on the processor: on another device all take the pipeline."""

    async def run() -> None:
        with running_evaluator(Gate()) as alone:
            with monkeypatch.context() as patch:
                patch.setattr(alone.worker, "device", torch.device("cuda"))
                handlers = EvaluateHandlers(alone, 64)
            for _ in range(3):
                await handlers.one(request_of(build(1)), no_deadline)
            assert len(decoded) == 3

    asyncio.run(run())


@SIZES
def test_without_native_rows_nothing_is_kept(
    build: Build, decoded: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An installation without the library answers all the same, by the pipeline."""
    monkeypatch.setattr(binding, "AVAILABLE", False)

    async def body(server: Server) -> None:
        assert await count_decoded(server, "Evaluate", build, decoded) == 3

    run_with_server(body)


def test_losses_of_others_take_the_pipeline(decoded: list[str]) -> None:
    """A loss that a package of its own brings is computed by its own function each time."""

    async def run() -> None:
        async with handlers_alone() as (gate, _, handlers):
            for number in (1.0, 2.0, 3.0):
                await handlers.one(request_of(numbered(number)), no_deadline)
            assert gate.computed == [1.0, 2.0, 3.0]
            assert decoded == ["gate"] * 3

    asyncio.run(run())


@pytest.mark.parametrize("offset", range(8))
def test_tensors_at_odd_addresses(offset: int) -> None:
    """Wherever elements begin, they are read as they are."""

    def build(seed: int) -> bytes:
        unknown = b"\x7a" + bytes([offset]) + b"x" * offset
        message = classes(seed, 33, 17, dtype=np.float64, weight=np.float64).SerializeToString()
        return b"\x0a" + varint(len(unknown) + len(message)) + unknown + message

    async def body(server: Server) -> None:
        for seed in (1, 1, 2):
            parsed = loss_service_pb2.EvaluateRequest.FromString(build(seed)).evaluation
            expected = await outcome(server.app.evaluator, parsed, math.inf)
            assert bits([await raw_outcome(server, "Evaluate", build(seed))]) == bits([expected])

    run_with_server(body)
