"""The cache of prepared evaluations: what is kept, of how many forms, and in how many bytes."""

import asyncio
import gc
import math
import weakref
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

import pytest

from losswire.server.compute.dispatch import no_pause
from losswire.server.compute.work import Work
from losswire.server.pipeline.encode import Encoded
from losswire.server.pipeline.evaluator import Evaluator
from losswire.server.prepared.cache import PreparedCache, PreparedEvaluation
from losswire.server.prepared.envelope import Slice, one_evaluation
from losswire.server.settings import MIB
from losswire.v1 import evaluation_pb2, loss_service_pb2
from tests.support.inside import Gate, running_evaluator
from tests.support.prepared_forms import CUT, LARGE, NEEDS_NATIVE, SMALL, WEIGHTED, Build, classes
from tests.support.prepared_server import handlers_alone, no_deadline, request_of

Evaluation = evaluation_pb2.Evaluation

pytestmark = NEEDS_NATIVE


class _Cached:
    """The pipeline and a cache of its own."""

    def __init__(self, evaluator: Evaluator, **limits: int) -> None:
        self._evaluator = evaluator
        self.cache = PreparedCache(2, evaluator.regions.map_region, no_pause, **limits)
        self.arrays: list[weakref.ref[Any]] = []
        """The inputs that the cache could learn from."""
        self.result = evaluation_pb2.EvaluationResult()
        """The last result."""

    async def evaluate(self, item: Evaluation) -> bool:
        """Evaluate as the handlers do; returns whether that took the pipeline."""
        sent = self._slice(item)
        prepared = self.cache.find(sent)
        if prepared is not None:
            small = prepared.small
            answer = prepared.answer_of(sent) if small else prepared.large_answer_of(sent, 0)
            assert answer is not None
            self.result = loss_service_pb2.EvaluateResponse.FromString(answer).result
            return False

        def learn(_: int, work: Work, result: Encoded) -> None:
            self.arrays.extend(weakref.ref(each) for each in work.inputs.values())
            self.cache.learn(sent, item, work, result)

        encoded = await self._evaluator.evaluate(item, math.inf, learn)
        self.result = encoded.whole()
        return True

    def kept(self, items: Iterable[Evaluation]) -> list[PreparedEvaluation]:
        """Find those that are kept of some evaluations."""
        found = [self.cache.find(self._slice(item)) for item in items]
        return list({id(each): each for each in found if each is not None}.values())

    @staticmethod
    def _slice(item: Evaluation) -> Slice:
        sent = one_evaluation(request_of(item))
        assert sent is not None
        return sent


def _run(body: Callable[[_Cached], Coroutine[Any, Any, None]], **limits: int) -> None:
    with running_evaluator(Gate(), memory_budget_bytes=256 * MIB) as evaluator:
        asyncio.run(body(_Cached(evaluator, **limits)))


@pytest.mark.parametrize("limits", [{"max_entries": 8}, {"max_bytes": 10_000}], ids=str)
def test_forms_are_bounded(limits: dict[str, int]) -> None:
    """Callers who change forms all the time make the server forget some, not grow."""
    items = [classes(rows, rows) for rows in range(1, 60)]

    async def body(cached: _Cached) -> None:
        for item in [*items, *items]:
            await cached.evaluate(item)
            kept = cached.kept(items)
            assert len(kept) == len(cached.cache) <= limits.get("max_entries", 60)
            kept_bytes = sum(each.kept_bytes for each in kept)
            assert kept_bytes == cached.cache.kept_bytes <= limits.get("max_bytes", MIB)
        assert 1 < len(cached.cache) < len(items)

    _run(body, **limits)


def test_forms_of_one_size_are_bounded() -> None:
    """A number that changes with each step is a form of its own, of which few are kept."""

    async def body(cached: _Cached) -> None:
        steps = [classes(step, normalizer=float(step)) for step in range(1, 103)]
        made = 0
        for step, item in enumerate(steps, 1):
            assert await cached.evaluate(item)
            assert cached.result.mean_denominator == step
            made += len(cached.kept([item]))
        kept = cached.kept(steps)
        assert len(kept) == len(cached.cache) == 4
        assert sum(each.kept_bytes for each in kept) == cached.cache.kept_bytes
        assert made == 4 + (102 - 4) // 17
        # One that comes often enough has its turn, whatever comes between.
        taken = 0
        for step in range(200, 300):
            taken += await cached.evaluate(classes(step, normalizer=0.5))
            taken += await cached.evaluate(classes(step, normalizer=float(step)))
        assert taken < 2 * 100 - 50

    _run(body)


def test_one_call_teaches_few_forms(decoded: list[str]) -> None:
    """A call of very many forms does not hold the event loop to keep them all."""
    items = [classes(1, rows) for rows in range(1, 61)]
    request = loss_service_pb2.EvaluateManyRequest(evaluations=items).SerializeToString()

    async def known_after(calls: int) -> int:
        async with handlers_alone() as (_, _, handlers):
            for _ in range(calls):
                await handlers.many(request, no_deadline)
            decoded.clear()
            for item in items:
                await handlers.one(request_of(item), no_deadline)
            return len(items) - len(decoded)

    assert asyncio.run(known_after(1)) == 16
    assert asyncio.run(known_after(5)) == 60


@pytest.mark.parametrize("build", [SMALL, WEIGHTED, LARGE, CUT])
def test_numbers_are_not_kept(build: Build) -> None:
    """Of a form a few kilobytes are kept and, of a small one, a response; but no array."""

    async def body(cached: _Cached) -> None:
        for _ in range(2):
            await cached.evaluate(build(1))
        [prepared] = cached.kept([build(1)])
        assert prepared.template.constant_bytes + prepared.answer.constant_bytes < 1000
        assert bool(prepared.kept_bytes) == prepared.small
        gc.collect()
        assert cached.arrays
        assert [each() for each in cached.arrays] == [None] * len(cached.arrays)

    _run(body)
