"""The event loop computes small evaluations only, and answers health meanwhile."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from grpc_health.v1 import health_pb2, health_pb2_grpc
from torch.utils._python_dispatch import TorchDispatchMode

from losswire.server.compute.dispatch import Outcome, Pause, compute
from losswire.server.compute.native.binding import AVAILABLE
from losswire.server.compute.work import Work
from losswire.server.pipeline import worker
from losswire.server.pipeline.decode import decode
from losswire.v1 import evaluation_pb2, loss_service_pb2
from tests.support.harness import Child
from tests.support.inside import PATIENCE, AsyncStub, Gate, in_server, numbered
from tests.support.mistakes_in_form import IN_FORM
from tests.support.requests import (
    GOLDEN,
    TIMEOUT,
    Stub,
    evaluation,
    is_golden,
    stream_requests,
)


class _Calls(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Records every torch operation of this thread."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen: list[str] = []

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401 (the operation's result)
        """Record one operation and run it."""
        del types
        self.seen.append(str(func))
        return func(*args, **(kwargs or {}))


def test_torch_calls_of_a_thread_are_seen() -> None:
    """The recorder of the next test works, on its own thread only."""
    with _Calls() as calls:
        torch.ones(1)
        other = threading.Thread(target=lambda: torch.zeros(1))
        other.start()
        other.join()
    assert calls.seen == ["aten.ones.default"]


def _small(
    loss: str,
    elements: int,
    **fields: Any,  # noqa: ANN401 (any field of Evaluation)
) -> evaluation_pb2.Evaluation:
    pair = {"input": np.zeros(elements, np.float32), "target": np.ones(elements, np.float32)}
    return evaluation(loss, pair, gradients_for=["input"], **fields)


@pytest.mark.parametrize(
    ("items", "on_the_loop"),
    [
        ([_small("mse_loss", 10)], True),
        ([_small("mse_loss", 10)] * 8, True),
        ([_small("mse_loss", 10)] * 9, False),
        ([_small("mse_loss", 10_000)], False),
        ([_small("mse_loss", 10, engine=evaluation_pb2.ENGINE_AUTOGRAD)], False),
        ([_small("poisson_nll_loss", 10)], False),
        ([_small("mse_loss", 10), _small("mse_loss", 10_000)], False),
    ],
    ids=["one", "a few", "many", "large", "autograd", "no closed form", "one of them large"],
)
@pytest.mark.skipif(not AVAILABLE, reason="compiled where there was no compiler")
def test_only_a_few_small_evaluations_run_on_the_event_loop(
    items: list[evaluation_pb2.Evaluation], monkeypatch: pytest.MonkeyPatch, *, on_the_loop: bool
) -> None:
    """Those that native rows compute; the worker's thread computes all others."""
    threads: set[int] = set()

    def spy(work: Work, device: torch.device, pause: Pause) -> Outcome:
        threads.add(threading.get_ident())
        return compute(work, device, pause)

    async def run(stub: AsyncStub) -> None:
        calls.seen.clear()  # the server has checked itself before
        threads.clear()
        many = loss_service_pb2.EvaluateManyRequest(evaluations=items)
        outcomes = (await stub.EvaluateMany(many, timeout=PATIENCE)).outcomes
        assert {each.result.count for each in outcomes} <= {10, 10_000}

    monkeypatch.setattr(worker, "compute", spy)
    with _Calls() as calls:
        in_server(Gate(), run)
    assert calls.seen == []
    assert (threading.get_ident() in threads) is on_the_loop


def test_other_torch_calls_run_in_one_thread() -> None:
    """Calls, many and streams, right and wrong ones: one thread that is not the event loop's."""
    gate = Gate()
    items = [numbered(1.0), GOLDEN, *(each.item for each in IN_FORM)]

    async def run(stub: AsyncStub) -> None:
        many = loss_service_pb2.EvaluateManyRequest(evaluations=items)
        outcomes = (await stub.EvaluateMany(many, timeout=PATIENCE)).outcomes
        assert is_golden(outcomes[1].result)
        requests = stream_requests(enumerate(items))
        stream = stub.EvaluateStream(requests, timeout=PATIENCE)
        assert len([each async for each in stream]) == len(items)
        request = loss_service_pb2.EvaluateRequest(evaluation=numbered(2.0))
        assert (await stub.Evaluate(request, timeout=PATIENCE)).result.sum == 2.0

    in_server(gate, run)
    assert len(gate.threads) == 1
    assert gate.threads.isdisjoint({threading.get_ident()})


@pytest.fixture
def large() -> loss_service_pb2.EvaluateRequest:
    """An evaluation just below the message limit, with a gradient."""
    logits = np.zeros((1900, 1000), np.float32)
    item = evaluation(
        "cross_entropy",
        {"input": logits, "target": np.zeros(1900, np.int64)},
        gradients_for=["input"],
    )
    return loss_service_pb2.EvaluateRequest(evaluation=item)


@pytest.fixture
def small() -> loss_service_pb2.EvaluateManyRequest:
    """As many evaluations as one call may hold."""
    item = evaluation("mse_loss", {"input": np.zeros(8), "target": np.zeros(8)})
    return loss_service_pb2.EvaluateManyRequest(evaluations=[item] * 4096)


def _health_while(child: Child, work: Callable[[Stub], Any]) -> None:
    """Check health twenty times while four threads work, who stop only afterwards."""
    begun, over = threading.Semaphore(0), threading.Event()

    def repeat(stub: Stub) -> None:
        while not over.is_set():
            work(stub)
            begun.release()

    with (
        child.channel() as channel,
        child.channel() as other,
        ThreadPoolExecutor(4) as pool,
    ):
        health = health_pb2_grpc.HealthStub(other)
        tasks = [pool.submit(repeat, Stub(channel)) for _ in range(4)]
        try:
            assert begun.acquire(timeout=TIMEOUT)
            for _ in range(20):
                request = health_pb2.HealthCheckRequest()
                assert health.Check(request, timeout=TIMEOUT).status == 1
        finally:
            over.set()
        for task in tasks:
            task.result()


def test_health_answers_under_large_evaluations(
    child: Child, large: loss_service_pb2.EvaluateRequest
) -> None:
    """While four callers keep the worker busy, health waits for none of them."""

    def work(stub: Stub) -> None:
        result = stub.Evaluate(large, timeout=TIMEOUT).result
        assert result.count == 1900

    _health_while(child, work)


def test_health_answers_under_many_small_evaluations(
    child: Child, small: loss_service_pb2.EvaluateManyRequest
) -> None:
    """Checking 4096 evaluations of one call does not block the event loop either."""

    def work(stub: Stub) -> None:
        outcomes = stub.EvaluateMany(small, timeout=TIMEOUT).outcomes
        assert {each.result.count for each in outcomes} == {8}

    _health_while(child, work)


def test_many_are_judged_off_the_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """From 32 evaluations or 256 KiB on, decoding and validating run in another thread."""
    seen: dict[str, set[bool]] = {}
    loop_thread = threading.get_ident()
    sizes = {"few": [1] * 3, "many": [1] * 32, "large": [70_000]}

    async def run(stub: AsyncStub) -> None:
        for name, elements in sizes.items():
            where: set[bool] = set()
            seen[name] = where

            def spy(*arguments: Any, where: set[bool] = where, **named: Any) -> Any:  # noqa: ANN401
                where.add(threading.get_ident() == loop_thread)
                return decode(*arguments, **named)

            monkeypatch.setattr("losswire.server.pipeline.evaluator.decode", spy)
            items = [numbered(1.0, count) for count in elements]
            many = loss_service_pb2.EvaluateManyRequest(evaluations=items)
            await stub.EvaluateMany(many, timeout=PATIENCE)

    in_server(Gate(), run)
    assert seen == {"few": {True}, "many": {False}, "large": {False}}


def test_small_evaluations_do_not_wait_for_other_threads() -> None:
    """Torch splits large evaluations over its threads, and computes small ones on one."""
    gate = Gate()

    async def body(stub: AsyncStub) -> None:
        for elements in (10, 100_000, 10):
            request = loss_service_pb2.EvaluateRequest(evaluation=numbered(1.0, elements))
            await stub.Evaluate(request, timeout=TIMEOUT)

    before = torch.get_num_threads()
    in_server(gate, body, threads=2)
    torch.set_num_threads(before)
    assert gate.parallelism == [1, 2, 1]
