"""Evaluations in regions: which are prepared, what they cost, and how long they keep a region."""

import asyncio
import math
from typing import Any

import grpc
import numpy as np
import pytest

from losswire.server.app import App
from losswire.server.pipeline.admit import peak_bytes, reply_bytes
from losswire.server.prepared.envelope import one_evaluation
from losswire.v1 import (
    evaluation_pb2,
    loss_service_pb2,
    loss_service_pb2_grpc,
)
from losswire.wire import decode_tensor, encode_tensor
from tests.support.encodings import field
from tests.support.exact import same_bits
from tests.support.harness import Child
from tests.support.inside import CLOSED, PATIENCE, Gate, outcome, until
from tests.support.regions import region, relocate
from tests.support.requests import Stub, by_call, evaluation, f32
from tests.support.sharing import SIZE, fetch_from, freed, reserved, sharing


def _is_prepared(app: App, request: bytes) -> bool:
    """Return whether the cache holds the evaluation of a request."""
    sent = one_evaluation(request)
    return sent is not None and app.handlers.prepared.find(sent) is not None


def test_a_known_form_keeps_no_region() -> None:
    """A prepared evaluation in a region does not keep the region when its lease ends."""
    item = evaluation(
        "cross_entropy",
        {"input": np.zeros((300, 500), np.float32), "target": np.arange(300)},
        gradients_for=["input"],
    )

    async def body(app: App, channel: grpc.aio.Channel) -> None:
        stub = loss_service_pb2_grpc.LossServiceStub(channel)
        held = await fetch_from(channel, 2 << 20)
        item.inputs["input"].CopyFrom(held.tensor(held.array((300, 500))))
        item.gradient_destinations["input"].CopyFrom(held.place(held.array((300, 500))))
        for _ in range(3):
            await stub.Evaluate(loss_service_pb2.EvaluateRequest(evaluation=item))
        assert app.evaluator.regions.held_bytes == 2 << 20
        held.close()
        await freed(app)
        assert not app.evaluator.regions.held_bytes

    sharing(body)


@pytest.mark.parametrize(("unknown", "kept"), [(100, True), (100_000, False)])
def test_a_form_is_kept_by_few_bytes(unknown: int, *, kept: bool) -> None:
    """A tensor in a region is no part of its message, the rest of which has to be short."""
    item = evaluation(
        "cross_entropy",
        {"input": np.zeros((300, 500), np.float32), "target": np.arange(300)},
        gradients_for=["input"],
    )

    async def body(app: App, channel: grpc.aio.Channel) -> None:
        held = await fetch_from(channel, 2 << 20)
        item.inputs["input"].CopyFrom(held.tensor(held.array((300, 500))))
        message = item.SerializeToString() + field(15, bytes(unknown))
        call: Any = channel.unary_unary("/losswire.v1.LossService/Evaluate")
        request = field(1, message)
        await call(request, timeout=PATIENCE)
        assert _is_prepared(app, request) == kept
        held.close()

    sharing(body)


@pytest.mark.parametrize(("loss", "kept"), [("mse_loss", True), ("binary_cross_entropy", False)])
def test_what_is_checked_is_not_read_where_its_caller_can_change_it(
    loss: str, *, kept: bool
) -> None:
    """Unchecked elements are prepared in a region; probabilities are copied each time."""
    names = ["input", "target"] if loss == "mse_loss" else ["input"]
    item = evaluation(loss, {}, gradients_for=names)
    draw = np.random.default_rng(3)

    async def body(app: App, channel: grpc.aio.Channel) -> None:
        stub = loss_service_pb2_grpc.LossServiceStub(channel)
        held = await fetch_from(channel, 4 << 20)
        inputs = {name: held.array((300, 500)) for name in ("input", "target")}
        gradients = {name: held.array((300, 500)) for name in names}
        for name, array in inputs.items():
            item.inputs[name].CopyFrom(held.tensor(array))
        for name, array in gradients.items():
            item.gradient_destinations[name].CopyFrom(held.place(array))
        plain = evaluation(loss, {}, gradients_for=names)
        for _ in range(3):
            for name, array in inputs.items():
                array[...] = draw.random((300, 500))
                plain.inputs[name].CopyFrom(encode_tensor(array))
            expected = await outcome(app.evaluator, plain, math.inf)
            found = await stub.Evaluate(loss_service_pb2.EvaluateRequest(evaluation=item))
            assert found.result.loss == expected.result.loss
            for name, array in gradients.items():
                assert same_bits(array, decode_tensor(expected.result.gradients[name]))
        request = loss_service_pb2.EvaluateRequest(evaluation=item).SerializeToString()
        assert _is_prepared(app, request) == kept
        held.close()

    sharing(body)


def test_an_evaluation_goes_on_without_the_lease() -> None:
    """Memory that is released while it is read stays until the evaluation ends."""
    gate = Gate()

    async def body(app: App, channel: grpc.aio.Channel) -> None:
        held = await fetch_from(channel)
        numbers = held.array((2,))
        numbers[1] = 5
        item = evaluation("gate", {"input": held.tensor(numbers)}, reduction=3)
        running = asyncio.ensure_future(app.evaluator.evaluate(item, float("inf")))
        await until(gate.reached.is_set)
        held.lease.close()
        await until(lambda: not app.evaluator.regions.leased)
        assert reserved(app) > SIZE
        gate.open.set()
        assert (await running).message.sum == CLOSED + 5
        held.close()
        await freed(app)

    sharing(body, gate)


def test_the_same_evaluation_before_and_after(child: Child) -> None:
    """Regions that come and go leave the server as it was."""
    with child.channel() as channel:
        stub = Stub(channel)
        for _ in range(50):
            with region(channel) as held:
                numbers = held.array((4,))
                numbers[...] = 2
                inputs: dict[str, Any] = {"input": held.tensor(numbers), "target": f32(0, 0, 0, 0)}
                item = evaluation("mse_loss", inputs)
                assert by_call(stub, item).result.sum == 16


def test_what_lies_in_regions_is_not_paid_for_again() -> None:
    """The peak leaves out tensors that are read or written in place, and counts copies."""
    inputs = {"input": np.zeros((600, 500), "f4"), "target": np.zeros(600, np.int64)}
    item = evaluation("cross_entropy", inputs, gradients_for=["input"])

    async def body(app: App, channel: grpc.aio.Channel) -> None:
        held = await fetch_from(channel)
        moved, gradients = relocate(item, held)
        plain, shared = [await app.evaluator.check(each) for each in (item, moved)]
        in_place = inputs["input"].nbytes + gradients["input"].nbytes
        assert peak_bytes(shared) == peak_bytes(plain) - in_place
        assert reply_bytes(shared) == reply_bytes(plain) - gradients["input"].nbytes
        moved.engine = evaluation_pb2.ENGINE_AUTOGRAD
        # Autograd makes a gradient of its own, which is copied.
        copied = await app.evaluator.check(moved)
        assert peak_bytes(copied) == peak_bytes(plain) - inputs["input"].nbytes
        held.close()

    sharing(body)
