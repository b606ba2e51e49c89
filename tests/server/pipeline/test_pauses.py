"""Brief evaluations are computed between two slices of a long one, which can be ended there."""

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from functools import partial

import numpy as np
import numpy.typing as npt
import pytest
import torch

from losswire.server import thresholds
from losswire.server.compute import thresholds as compute_thresholds
from losswire.server.compute.dispatch import compute
from losswire.server.compute.work import Work
from losswire.server.losses import builtin_registry
from losswire.server.memory.regions.places import Place
from losswire.server.pipeline.decode import decode
from losswire.server.pipeline.encode import Encoded
from losswire.server.pipeline.jobs import Job, Turns
from losswire.server.pipeline.validate import validate
from losswire.server.pipeline.worker import ComputeWorker
from losswire.v1.evaluation_pb2 import ENGINE_AUTOGRAD
from tests.support.inside import CLOSED, Gate, numbered, until
from tests.support.projection import ask_for, take, work_of
from tests.support.requests import evaluation

_CPU = torch.device("cpu")
_NEVER = float("inf")


async def _answers(worker: ComputeWorker, items: Mapping[str, Work]) -> list[str]:
    """Let a worker compute what was queued before it started; returns the order of the answers."""
    answered: list[str] = []

    def note(name: str, _: object) -> None:
        answered.append(name)

    futures = []
    for name, item in items.items():
        future = worker.submit([item], _NEVER)
        assert isinstance(future, asyncio.Future)
        future.add_done_callback(partial(note, name))
        futures.append(future)
    worker.start()
    await asyncio.gather(*futures)
    assert all(isinstance(each.result()[0], Encoded) for each in futures)
    return answered


def test_brief_evaluations_are_served_between_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that came later is answered first; another long one keeps its turn."""
    take("classes", monkeypatch)
    monkeypatch.setattr(thresholds, "BRIEF_STEPS", 10)
    long = work_of(ask_for("batched"))
    brief = validate(decode(numbered(1.0)), Gate().record)
    worker = ComputeWorker(_CPU, 1)
    items = {"long": long, "longer": long, "brief": brief, "also": brief}
    assert asyncio.run(_answers(worker, items)) == ["brief", "also", "long", "longer"]
    worker.stop()


def test_gradients_in_shared_memory_keep_their_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """A brief evaluation with a destination is not computed before an earlier one."""
    take("classes", monkeypatch)
    monkeypatch.setattr(thresholds, "BRIEF_STEPS", 10)
    brief = validate(decode(numbered(1.0)), Gate().record)
    place = Place(np.zeros(1, np.float32))
    placed = replace(brief, gradients_for=("input",)).written_to({"input": place})
    worker = ComputeWorker(_CPU, 1)
    items = {"long": work_of(ask_for("batched")), "placed": placed, "brief": brief}
    assert asyncio.run(_answers(worker, items)) == ["brief", "long", "placed"]
    assert place.array == 1
    worker.stop()


def test_a_long_evaluation_ends_when_nobody_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cancelled between two tiles, it computes no further one, and the next is served."""
    take("classes", monkeypatch)
    worker, gate = ComputeWorker(_CPU, 1), Gate()
    pauses, pause = [0], worker.pause

    def counted() -> None:
        pauses[0] += 1
        pause()

    monkeypatch.setattr(worker, "pause", counted)

    async def run() -> None:
        long = worker.submit([work_of(ask_for("batched"))], _NEVER)
        # It is computed in the first pause, and blocks the thread there.
        brief = worker.submit([validate(decode(numbered(CLOSED)), gate.record)], _NEVER)
        assert isinstance(long, asyncio.Future)
        worker.start()
        await until(gate.reached.is_set)
        long.cancel()
        await asyncio.sleep(0)
        gate.open.set()
        await brief
        await until(lambda: worker.is_idle)

    asyncio.run(run())
    worker.stop()
    stopped_in_the_second = 2
    assert pauses == [stopped_in_the_second]


def test_parts_of_native_rows_make_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """A long evaluation by native rows lets brief ones pass between two slices, with equal bits."""
    monkeypatch.setattr(compute_thresholds, "SLICE_BYTES", 64 << 10)
    monkeypatch.setattr(thresholds, "BRIEF_BYTES", 128 << 10)
    generator = np.random.default_rng(2)
    inputs: dict[str, npt.ArrayLike] = {
        "input": generator.standard_normal((4096, 16)).astype(np.float32),
        "target": generator.integers(0, 16, 4096),
    }
    item = evaluation("cross_entropy", inputs, gradients_for=["input"])
    long = validate(decode(item), builtin_registry().find("cross_entropy"))
    worker = ComputeWorker(_CPU, 1)
    brief = validate(decode(numbered(1.0)), Gate().record)
    items = {"long": long, "longer": long, "brief": brief}
    assert asyncio.run(_answers(worker, items)) == ["brief", "long", "longer"]
    worker.stop()
    whole, cut = compute(long, _CPU), compute(long, _CPU, lambda: None)
    assert whole.loss == cut.loss
    assert np.array_equal(whole.gradients["input"], cut.gradients["input"])


def test_gradients_are_computed_in_a_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """One by autograd is computed in a pause of one that needs no gradients of torch."""
    take("classes", monkeypatch)
    monkeypatch.setattr(thresholds, "BRIEF_STEPS", 10)
    item = evaluation(
        "mse_loss",
        {"input": np.array([1.0, 3.0]), "target": np.zeros(2)},
        gradients_for=["input"],
        engine=ENGINE_AUTOGRAD,
    )
    brief = validate(decode(item), builtin_registry().find("mse_loss"))
    worker = ComputeWorker(_CPU, 1)
    assert asyncio.run(_answers(worker, {"long": work_of(ask_for("batched")), "brief": brief})) == [
        "brief",
        "long",
    ]
    worker.stop()


def test_brief_ones_that_belong_together_keep_their_order() -> None:
    """Tasks such as the parts of one call are never computed in pauses of each other."""
    worker = ComputeWorker(_CPU, 1)
    order: list[str] = []

    def task(name: str, waited: int) -> None:
        del waited
        order.append(name)
        worker.pause()
        order.append(name)

    async def run() -> None:
        futures = [
            worker.start_task(partial(task, name), _NEVER, is_brief=True) for name in ("1", "2")
        ]
        worker.start()
        await asyncio.gather(*futures)

    asyncio.run(run())
    worker.stop()
    assert order == ["1", "1", "2", "2"]


def test_brief_ones_leave_a_long_one_its_time() -> None:
    """What passes an older one in one go has an end: then that one goes on."""
    turns = Turns()
    loop = asyncio.new_event_loop()

    def stack(*, is_brief: bool) -> list[tuple[Job, int]]:
        job = Job(
            parts=[lambda _: None],
            future=loop.create_future(),
            deadline=_NEVER,
            queued=0,
            is_brief=is_brief,
        )
        return [(job, 0)]

    long, first, second = stack(is_brief=False), stack(is_brief=True), stack(is_brief=True)
    turns.begin_with(long)
    turns.add([first, second])
    assert turns.next_brief() is first
    turns.passed(round(thresholds.PASSING_SECONDS * 1e9))
    assert turns.next_brief() is None
    assert turns.next() is long
    turns.begin()
    turns.end()
    assert turns.next_brief() is second
    assert not turns
    loop.close()
