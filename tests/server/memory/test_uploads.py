"""Uploads: reserved from the budget until they end, and stored only when complete."""

import asyncio
import gc
import weakref
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from losswire.server import thresholds
from losswire.server.errors import ExpiredError, OverLimitError, OverloadedError
from losswire.server.memory import uploads
from losswire.server.memory.residents import TENANT
from losswire.server.pipeline.evaluator import Evaluator
from losswire.server.settings import MIB
from losswire.v1 import (
    loss_service_pb2,
    loss_service_pb2_grpc,
    tensor_pb2,
    tensor_service_pb2_grpc,
)
from losswire.wire import DATA_TYPES, MalformedTensorError
from tests.support.inside import Gate, running_evaluator, serving_app, until
from tests.support.requests import evaluation, f32
from tests.support.resident import Part, header, identity, named, noise, parts
from tests.support.uploading import arriving, receive_parts

_F32 = DATA_TYPES[tensor_pb2.DATA_TYPE_FLOAT32]


@pytest.mark.parametrize("end", ["stored", "stored before", "cancelled", "cut short", "malformed"])
def test_an_upload_holds_what_comes_until_it_ends(end: str) -> None:
    """From the header on, twice the part that may come next; every kind of end releases it."""
    array = noise(1, 1000)
    sent = list(parts(array, 1024))
    if end == "cut short":
        sent = sent[:-1]
    if end == "malformed":
        sent.append(Part(data=b"too much"))

    async def run(evaluator: Evaluator) -> None:
        if end == "stored before":
            await receive_parts(evaluator, sent)
        before = evaluator.residents.held_bytes
        going = asyncio.Event()
        task = asyncio.create_task(receive_parts(evaluator, sent[:1], going, part_bytes=1024))
        await until(lambda: evaluator.budget.reserved_bytes == 2 * 1024)
        task.cancel()
        await asyncio.wait([task])
        assert (evaluator.budget.reserved_bytes, evaluator.residents.held_bytes) == (0, before)
        if end == "cancelled":
            return
        if end in ("cut short", "malformed"):
            with pytest.raises(MalformedTensorError):
                await receive_parts(evaluator, sent)
        else:
            answer = await receive_parts(evaluator, sent)
            assert answer.existed == (end == "stored before")
        kept = array.nbytes if end.startswith("stored") else 0
        assert (evaluator.budget.reserved_bytes, evaluator.residents.held_bytes) == (0, kept)

    with running_evaluator(Gate(), resident_quota_bytes=MIB) as evaluator:
        asyncio.run(run(evaluator))


def test_an_upload_that_never_ends_displaces_nothing() -> None:
    """A stored tensor is evicted when the new one is complete."""
    old, new = noise(2, 200_000), noise(3, 200_000)

    async def run(evaluator: Evaluator) -> None:
        await receive_parts(evaluator, list(parts(old)))
        going = asyncio.Event()
        task = asyncio.create_task(receive_parts(evaluator, list(parts(new)), going))
        await until(lambda: evaluator.budget.reserved_bytes == new.nbytes)
        assert evaluator.find_resident(identity(old)) is not None
        going.set()
        await task
        assert evaluator.find_resident(identity(old)) is None
        assert evaluator.find_resident(identity(new)) is not None

    with running_evaluator(Gate(), resident_quota_bytes=MIB) as evaluator:
        asyncio.run(run(evaluator))


def test_a_slow_sender_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a part, or without one after the header: EXPIRED, and the memory is free."""
    monkeypatch.setattr(thresholds, "GRACE_SECONDS", 0.05)
    small = list(parts(f32(1)))

    async def run(evaluator: Evaluator) -> None:
        for sent in ([], small[:1], small):
            with pytest.raises(ExpiredError, match="did not arrive in time"):
                await receive_parts(evaluator, sent, asyncio.Event())
        assert (evaluator.budget.reserved_bytes, evaluator.residents.held_bytes) == (0, 0)

    with running_evaluator(Gate(), resident_quota_bytes=MIB) as evaluator:
        asyncio.run(run(evaluator))


def test_uploads_share_the_budget_of_evaluations(monkeypatch: pytest.MonkeyPatch) -> None:
    """An upload that does not fit for a while may be retried; one above the budget never fits."""
    monkeypatch.setattr(thresholds, "ADMISSION_WAIT_SECONDS", 0.05)
    array = noise(4, MIB // 8)

    async def run(evaluator: Evaluator) -> None:
        going = asyncio.Event()
        first = asyncio.create_task(receive_parts(evaluator, list(parts(array)), going))
        await until(lambda: evaluator.budget.reserved_bytes == array.nbytes)
        with pytest.raises(OverloadedError):
            await receive_parts(evaluator, list(parts(noise(5, MIB // 4 - 1))))
        with pytest.raises(OverLimitError):
            await receive_parts(evaluator, [header(_F32.data_type, MIB // 4 + 1)])
        going.set()
        await first

    quotas = {"memory_budget_bytes": MIB, "resident_quota_bytes": 4 * MIB}
    with running_evaluator(Gate(), **quotas) as evaluator:
        asyncio.run(run(evaluator))


@pytest.fixture
def without_collector() -> Iterator[None]:
    """No garbage collector: memory is freed only when nothing refers to it."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("without_collector")
def test_refused_calls_let_go_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """After refusals over gRPC no stored tensor is in use and no upload is in memory."""
    held, missing = noise(9, 100), noise(10, 100)
    refused = [
        evaluation("mse_loss", {"input": named(held), "target": named(missing)}),
        evaluation("mse_loss", {"input": named(held), "target": f32(1)}),
        evaluation("gate", {"input": named(held)}, reduction=99),
        evaluation("gate", {"input": named(held)}, gradients_for=["target"]),
        evaluation("smooth_l1_loss", {"input": named(held), "target": named(held)}, {"beta": -1.0}),
    ]
    uploaded: weakref.WeakSet[Any] = weakref.WeakSet()
    finish = uploads.Upload.finish

    def spy(upload: Any) -> Any:  # noqa: ANN401 (an upload and its result)
        uploaded.add(upload)
        return finish(upload)

    monkeypatch.setattr(uploads.Upload, "finish", spy)

    async def run() -> None:
        async with serving_app(Gate(), resident_quota_bytes=MIB) as (app, channel):
            losses = loss_service_pb2_grpc.LossServiceStub(channel)
            tensors = tensor_service_pb2_grpc.TensorServiceStub(channel)
            await tensors.PutTensor(parts(held))
            residents, key = app.evaluator.residents, (TENANT, identity(held))
            for item in refused:
                with pytest.raises(grpc.aio.AioRpcError):
                    await losses.Evaluate(loss_service_pb2.EvaluateRequest(evaluation=item))
                await until(lambda: not residents.in_use(key))
            with pytest.raises(grpc.aio.AioRpcError):
                await tensors.PutTensor(iter(list(parts(missing, 100))[:-1]))
            await until(lambda: not uploaded)

    asyncio.run(run())


@pytest.mark.parametrize("end", ["cancelled", "deadline", "too slow"])
def test_an_upload_that_stalls_on_the_way_frees_its_memory(
    monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    """Over gRPC: after each kind of end the reservation is gone, and the next upload works."""
    array = noise(11, 10_000)
    codes = {"cancelled": "CANCELLED", "deadline": "DEADLINE_EXCEEDED"}
    if end == "too slow":
        monkeypatch.setattr(thresholds, "GRACE_SECONDS", 1.0)

    async def run() -> None:
        async with serving_app(Gate(), resident_quota_bytes=MIB) as (app, channel):
            budget = app.evaluator.budget
            tensors = tensor_service_pb2_grpc.TensorServiceStub(channel)
            stalled = arriving(list(parts(array, 1024))[:9], asyncio.Event())
            call = tensors.PutTensor(stalled, timeout=1.0 if end == "deadline" else None)
            await until(lambda: budget.reserved_bytes > array.nbytes)
            if end == "cancelled":
                call.cancel()
            assert (await call.code()).name == codes.get(end, "DEADLINE_EXCEEDED")
            await until(lambda: budget.reserved_bytes == 0)
            assert app.evaluator.residents.held_bytes == 0
            answer = await tensors.PutTensor(parts(array))
            assert answer.id.sha256 == identity(array)

    asyncio.run(run())


def test_bytes_that_were_not_written_are_never_given_away() -> None:
    """A tensor of which a part is missing is not stored under any name."""

    async def run(evaluator: Evaluator) -> None:
        for sent in ([header(_F32.data_type, 100)], list(parts(noise(8, 100), 40))[:-1]):
            with pytest.raises(MalformedTensorError):
                await receive_parts(evaluator, sent)
        assert (evaluator.residents.held_bytes, evaluator.budget.reserved_bytes) == (0, 0)

    with running_evaluator(Gate(), resident_quota_bytes=MIB) as evaluator:
        asyncio.run(run(evaluator))
