"""The memory of resident tensors: who uses it, when it is evicted, and when it is free."""

import asyncio
import threading
from typing import Any

import numpy as np
import pytest

from losswire.server.compute.tensors import to_tensor
from losswire.server.errors import OverLimitError, OverloadedError
from losswire.server.memory.residents import TENANT, Key, Resident, ResidentStore
from losswire.server.pipeline.admit import peak_bytes
from losswire.server.pipeline.decode import decode
from losswire.server.pipeline.evaluator import Evaluator
from losswire.server.settings import MIB
from losswire.v1 import (
    evaluation_pb2,
    loss_service_pb2_grpc,
    tensor_pb2,
    tensor_service_pb2_grpc,
)
from losswire.wire import DATA_TYPES, TensorSpec
from tests.support.chunks import parts_of
from tests.support.inside import CLOSED, Gate, outcomes, running_evaluator, serving_app, until
from tests.support.requests import Array, evaluation, f32
from tests.support.resident import identity, named, noise, parts
from tests.support.uploading import receive_parts

_F32 = DATA_TYPES[tensor_pb2.DATA_TYPE_FLOAT32]


_NEVER = float("inf")


_SUM = evaluation_pb2.REDUCTION_SUM


def _resident(*numbers: float) -> Resident:
    data = np.array(numbers, np.float32).view(np.uint8)
    return Resident(TensorSpec(_F32, (len(numbers),)), data)


def _key(name: str) -> Key:
    return TENANT, name.encode()


def _stored(store: ResidentStore, names: str) -> str:
    return "".join(name for name in names if store.spec(_key(name)))


def test_a_loan_is_read_only_and_ends_with_its_last_view() -> None:
    """A slice, or a tensor of torch's over one, keeps a tensor in use and is read-only."""
    one = _resident(1, 2, 3)
    lent = one.lend()
    with pytest.raises(ValueError, match="WRITEABLE"):
        lent.setflags(write=True)
    part = lent[1:].reshape(2, 1)
    del lent
    assert one.in_use
    view = to_tensor(part)[:1]
    del part
    assert one.in_use
    assert view.item() == 2
    other = one.lend()
    del view
    assert one.in_use
    del other
    assert not one.in_use


def test_what_is_in_use_is_not_displaced_and_still_counts() -> None:
    """The next oldest is evicted instead; none when that would not be enough."""
    store = ResidentStore(quota_bytes=12)
    for name in "abc":
        assert not store.add(_key(name), _resident(1))
    used = store.lend(_key("a"))
    store.lend(_key("b"))
    store.lend(_key("c"))
    assert not store.add(_key("d"), _resident(4))
    assert (_stored(store, "abcd"), store.held_bytes) == ("acd", 12)
    with pytest.raises(OverloadedError) as refused:
        store.add(_key("e"), _resident(5, 6, 7))
    assert refused.value.retry_after_ms == 200
    assert _stored(store, "abcde") == "acd"
    del used
    store.add(_key("e"), _resident(5, 6, 7))
    assert (_stored(store, "abcde"), store.held_bytes) == ("e", 12)


def test_what_is_forgotten_in_use_counts_until_it_is_not() -> None:
    """It can no longer be found; its values stay, and its bytes count until the last use ends."""
    store = ResidentStore(quota_bytes=8)
    store.add(_key("a"), _resident(1, 2))
    used = store.lend(_key("a"))
    assert used is not None
    assert store.discard(_key("a"))
    assert store.lend(_key("a")) is None
    assert store.held_bytes == 8
    with pytest.raises(OverloadedError):
        store.add(_key("b"), _resident(3))
    assert used.tolist() == [1, 2]
    del used
    assert store.held_bytes == 0
    assert not store.add(_key("b"), _resident(3))


def test_tensors_without_a_byte_are_counted() -> None:
    """There are never more tensors than may be kept, however small."""
    store = ResidentStore(quota_bytes=1, max_tensors=3)
    for name in "abcde":
        store.add(_key(name), _resident())
    assert _stored(store, "abcde") == "cde"


def test_tenants_do_not_see_each_other() -> None:
    """The same tensor of another tenant is another entry."""
    store = ResidentStore(quota_bytes=8)
    store.add(("one", b"a"), _resident(1))
    assert store.lend(("two", b"a")) is None
    assert not store.discard(("two", b"a"))
    assert not store.add(("two", b"a"), _resident(1))
    assert store.held_bytes == 8


def test_an_evaluation_keeps_what_it_uses() -> None:
    """Discarded while it waits: the evaluation reads its values, and its bytes count until then."""
    array = f32(7, 8, 9)
    gate = Gate()

    async def run(evaluator: Evaluator) -> None:
        await receive_parts(evaluator, list(parts(array)))
        blocker = evaluation("gate", {"input": f32(CLOSED)}, reduction=_SUM)
        busy = asyncio.create_task(evaluator.evaluate(blocker, _NEVER))
        await until(gate.reached.is_set)
        item = evaluation("gate", {"input": named(array)}, reduction=_SUM)
        waiting = asyncio.create_task(evaluator.evaluate(item, _NEVER))
        await until(lambda: evaluator.residents.in_use((TENANT, identity(array))))
        evaluator.residents.discard((TENANT, identity(array)))
        assert evaluator.residents.held_bytes == array.nbytes
        gate.open.set()
        encoded = await waiting
        assert encoded.message.sum == 24
        await busy
        await until(lambda: evaluator.residents.held_bytes == 0)

    with running_evaluator(gate, resident_quota_bytes=MIB) as evaluator:
        asyncio.run(run(evaluator))


def test_the_price_does_not_count_resident_memory_again() -> None:
    """The peak with a resident input is less by the bytes of that input, and never below 0."""

    async def run(evaluator: Evaluator) -> None:
        array = noise(5, 100, 50)
        await receive_parts(evaluator, list(parts(array)))
        prices = [
            peak_bytes(
                await evaluator.check(evaluation("mse_loss", {"input": each, "target": array}))
            )
            for each in (array, named(array))
        ]
        assert prices[0] - prices[1] == array.nbytes
        assert evaluator.budget.reserved_bytes == 0

    with running_evaluator(Gate(), resident_quota_bytes=MIB) as evaluator:
        asyncio.run(run(evaluator))


def test_large_resident_tensors_are_judged_off_the_event_loop() -> None:
    """A small message that names a large tensor is not a small evaluation."""
    threads: set[int] = set()

    async def run(evaluator: Evaluator) -> None:
        array = noise(6, 70_000)
        await receive_parts(evaluator, list(parts(array)))
        lend = evaluator.residents.lend

        def spy(key: Key) -> Array | None:
            threads.add(threading.get_ident())
            return lend(key)

        evaluator.residents.lend = spy  # type: ignore[method-assign]
        item = evaluation("sigmoid", {"input": named(array)})
        await evaluator.evaluate(item, _NEVER)
        await outcomes(evaluator, [item], _NEVER)

    with running_evaluator(Gate(), resident_quota_bytes=MIB) as evaluator:
        asyncio.run(run(evaluator))
    assert threads
    assert threading.get_ident() not in threads


def test_checking_many_large_tensors_is_bounded_by_the_budget() -> None:
    """Naming one tensor often in one call is refused before any value is checked."""

    async def run(evaluator: Evaluator) -> None:
        array = noise(7, MIB // 8)
        await receive_parts(evaluator, list(parts(array)))
        item = evaluation("sigmoid", {"input": named(array)})
        with pytest.raises(OverLimitError):
            await outcomes(evaluator, [item] * 10, _NEVER)
        assert evaluator.budget.reserved_bytes == 0

    quotas = {"memory_budget_bytes": 8 * MIB, "resident_quota_bytes": MIB}
    with running_evaluator(Gate(), **quotas) as evaluator:
        asyncio.run(run(evaluator))


@pytest.mark.parametrize(("elements", "on_the_loop"), [(8, True), (100_000, False)])
def test_resident_inputs_of_chunked_calls_are_judged_off_the_event_loop(
    monkeypatch: pytest.MonkeyPatch, elements: int, *, on_the_loop: bool
) -> None:
    """A header is small however large the resident tensors are whose values must be checked."""
    target = np.abs(noise(12, elements)).clip(0, 1)
    item = evaluation("binary_cross_entropy", {"input": target, "target": named(target)})
    loop_thread = threading.get_ident()
    seen: list[tuple[bool, bool]] = []

    async def run() -> None:
        async with serving_app(Gate(), resident_quota_bytes=MIB) as (app, channel):

            def spy(*arguments: Any) -> Any:  # noqa: ANN401 (those of decode)
                held = app.evaluator.budget.reserved_bytes > 0
                seen.append((threading.get_ident() == loop_thread, held))
                return decode(*arguments)

            monkeypatch.setattr("losswire.server.pipeline.chunked.plan.decode", spy)
            await tensor_service_pb2_grpc.TensorServiceStub(channel).PutTensor(parts(target))
            losses = loss_service_pb2_grpc.LossServiceStub(channel)
            calls = losses.EvaluateChunked(parts_of(item, ["input"], [elements]))
            answers = [answer async for answer in calls]
            assert answers[-1].result.rows == elements

    asyncio.run(run())
    assert seen == [(on_the_loop, True)]
