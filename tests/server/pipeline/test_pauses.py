"""Brief evaluations are computed between two tiles of a long one, which can be ended there."""

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from losswire.server import thresholds
from losswire.server.compute.work import Work
from losswire.server.memory.regions.places import Place
from losswire.server.pipeline.decode import decode
from losswire.server.pipeline.encode import Encoded
from losswire.server.pipeline.validate import validate
from losswire.server.pipeline.worker import ComputeWorker
from tests.support.inside import CLOSED, Gate, numbered, until
from tests.support.projection import ask_for, take, work_of

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
