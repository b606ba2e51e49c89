"""What waits for the engine is computed together where nobody can tell, and never waits for it."""

import asyncio
from collections.abc import Sequence

import numpy as np
import pytest
import torch

from losswire.server.compute.dispatch import Outcome, compute_together
from losswire.server.compute.work import Work
from losswire.server.losses import builtin_registry
from losswire.server.pipeline import worker as engine_module
from losswire.server.pipeline.batch import stacks
from losswire.server.pipeline.decode import decode
from losswire.server.pipeline.validation_cache import ValidationCache
from losswire.v1 import evaluation_pb2
from tests.support.inside import CLOSED, Gate, numbered, outcomes, running_evaluator, until
from tests.support.requests import Array, evaluation, f32

_NEVER = float("inf")
_REGISTRY = builtin_registry()


def _classes(rows: int, seed: int = 0, **options: float) -> evaluation_pb2.Evaluation:
    rng = np.random.default_rng(seed)
    logits = rng.standard_normal((rows, 10)).astype(np.float32)
    inputs: dict[str, Array] = {"input": logits, "target": rng.integers(0, 10, rows)}
    return evaluation("cross_entropy", inputs, options, gradients_for=["input"])


def _pair() -> evaluation_pb2.Evaluation:
    return evaluation("mse_loss", {"input": f32(1, 2), "target": f32(3, 4)})


def _works(items: Sequence[evaluation_pb2.Evaluation]) -> list[Work]:
    forms = ValidationCache()
    return [forms.validate(decode(each), _REGISTRY.find(each.loss)) for each in items]


_A, _B = _classes(3), _classes(4)
_LARGEST = _classes(1300)
_TABLE: dict[str, tuple[list[evaluation_pb2.Evaluation], str, list[list[int]]]] = {
    "nothing": ([], "cpu", []),
    "one form": ([_A] * 4, "cpu", [[0, 1, 2, 3]]),
    "two forms in turn": ([_A, _B, _A, _B, _A], "cpu", [[0, 2, 4], [1, 3]]),
    "elements of vectors": ([_pair(), _pair()], "cpu", [[0], [1]]),
    "elements of vectors on a GPU": ([_pair(), _pair()], "cuda", [[0, 1]]),
    "what has no such function": (
        [_classes(3, label_smoothing=0.1)] * 2,
        "cpu",
        [[0], [1]],
    ),
    "at most so many bytes": ([_LARGEST] * 5, "cpu", [[0, 1, 2, 3], [4]]),
}


@pytest.mark.parametrize(("items", "device", "expected"), _TABLE.values(), ids=_TABLE.keys())
def test_what_is_joined(
    items: list[evaluation_pb2.Evaluation], device: str, expected: list[list[int]]
) -> None:
    """Evaluations of one form whose rows do not care for company, up to a size, in order."""
    assert stacks(_works(items), device) == expected


def test_what_waits_is_computed_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """While the engine is busy calls pile up; then those of one form are one computation."""
    sizes: list[int] = []

    def spy(works: Sequence[Work], device: torch.device) -> list[Outcome]:
        sizes.append(len(works))
        return compute_together(works, device)

    monkeypatch.setattr(engine_module, "compute_together", spy)
    gate = Gate()
    calls = [[_classes(3, seed) for seed in range(first, first + 10)] for first in (0, 10, 20)]

    async def run() -> None:
        busy = asyncio.create_task(work.evaluate(numbered(CLOSED), _NEVER))
        await until(gate.reached.is_set)
        waiting = [asyncio.create_task(outcomes(work, each, _NEVER)) for each in calls]
        await until(lambda: work.worker.waiting_jobs == len(calls))
        gate.open.set()
        together = [each.result for task in waiting for each in await task]
        await busy
        assert sizes == [30]
        for item, result in zip([one for call in calls for one in call], together, strict=True):
            alone = (await work.evaluate(item, _NEVER)).message
            assert alone.loss == result.loss
            assert alone.gradients == result.gradients
            assert (alone.sum, alone.count) == (result.sum, result.count)

    with running_evaluator(gate) as work:
        asyncio.run(run())


def test_a_failing_stack_is_computed_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Company must not cost anybody a result."""

    def fail(works: Sequence[Work], device: torch.device) -> list[Outcome]:
        del works, device
        raise MemoryError

    monkeypatch.setattr(engine_module, "compute_together", fail)

    async def run() -> None:
        items = [_classes(3, seed) for seed in range(12)]
        found = await outcomes(work, items, _NEVER)
        assert [each.result.count for each in found] == [3] * 12

    with running_evaluator(Gate()) as work:
        asyncio.run(run())
