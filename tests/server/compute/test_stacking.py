"""Stacks of small evaluations, as a GPU computes them: torch's bits, whatever shares the stack.

The operators are torch's own on every device, so that most of this runs on a CPU.
"""

import asyncio
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch

from losswire.server.catalogue.record import LossRecord, Reduction
from losswire.server.compute.autograd import compute_autograd
from losswire.server.compute.dispatch import Outcome, compute, compute_together
from losswire.server.compute.paths import Path, path_of, stackable, stacked_form
from losswire.server.compute.reduce import Computed
from losswire.server.compute.stacking.stack import compute_stack
from losswire.server.compute.stacking.stacks import stacks
from losswire.server.compute.thresholds import SMALL_BYTES
from losswire.server.compute.work import Work
from losswire.server.losses import builtin_registry
from losswire.server.pipeline import worker as worker_module
from losswire.server.pipeline.decode import decode
from losswire.server.pipeline.validation_cache import ValidationCache
from losswire.server.pipeline.worker import ComputeWorker
from losswire.v1 import evaluation_pb2
from tests.support.caller import Array, Ask
from tests.support.exact import same_bits
from tests.support.inside import PATIENCE, Gate, outcomes, running_evaluator
from tests.support.requests import evaluation, f32
from tests.support.sampling import draw_ground, draw_inputs, generator, option_variants

_NEVER = float("inf")
_REGISTRY = builtin_registry()
_CPU = torch.device("cpu")
_STACKED = [
    pytest.param(record, name, id=f"{record.name}-{name}")
    for record in _REGISTRY
    for name, form in record.closed_forms.items()
    if form.stacked is not None
]
_CLASSES = [_REGISTRY.find(name) for name in ("cross_entropy", "nll_loss")]
"""Their rows have the same bits in every stack on a CPU, too; the place of a single element in a
vector may change its last bit there."""
_STACKS = 200


def _work(ask: Ask, forms: ValidationCache) -> Work:
    return forms.validate(decode(ask.message()), _REGISTRY.find(ask.loss))


def _stack(works: Sequence[Work]) -> list[Computed]:
    """Compute works as one stack."""
    form = stacked_form(works[0])
    assert form is not None
    return compute_stack(form, works, _CPU)


def _asks(record: LossRecord, name: str, dtype: str) -> Iterator[Ask]:
    """Draw small evaluations: shapes, options, optional inputs, reductions."""
    rng = generator("small", record.name, name, dtype)
    layout = next(each for each in record.layouts if each.name == name)
    form = record.closed_forms[name]
    for group in ((), (5,), (2, 3)):
        ground = draw_ground(record, layout, rng, groups=group)
        if "S" in layout.values.text:
            ground = draw_ground(record, layout, rng, groups=group or (1,))
        for position, options in enumerate(option_variants(ground, rng)):
            names = layout.inputs if position % 2 else sorted(record.required_inputs)
            dtypes = {
                each: dtype if layout.inputs[each].is_float else "int64"
                for each in record.inputs
                if each in names
            }
            inputs = draw_inputs(ground, dtypes, options, rng)
            wanted = tuple(each for each in form.gradients if each in inputs)
            ask = Ask(
                loss=record.name,
                inputs=inputs,
                options=options,
                gradients_for=wanted,
                engine="auto",
            )
            for reduction in record.reductions:
                none = reduction is Reduction.NONE
                shape = ground.values_shape if none else ()
                output = np.array(rng.standard_normal(shape), np.float32)
                yield replace(ask, reduction=reduction, grad_output=output)
                if not none:
                    yield replace(ask, reduction=reduction)
            yield replace(ask, reduction=Reduction.MEAN, normalizer=7.5, gradient_dtype="bfloat16")


@pytest.mark.parametrize(("record", "name"), _STACKED)
@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16", "float16"])
def test_stacked_operators_have_the_bits_of_autograd(
    record: LossRecord, name: str, dtype: str
) -> None:
    """Values and gradients of each loss, option, reduction and dtype; sums to the last place."""
    taken = 0
    forms = ValidationCache()
    for ask in _asks(record, name, dtype):
        work = _work(ask, forms)
        if stacked_form(work) is None:
            continue
        taken += 1
        [found] = _stack([work])
        # With the reduction of the server, which torch's own differs from in the last place.
        exact = compute_autograd(work, _CPU)
        assert found.count == exact.count
        assert found.mean_denominator == exact.mean_denominator
        assert found.sum == pytest.approx(exact.sum, rel=1e-14, nan_ok=True)
        assert found.loss.dtype == exact.loss.dtype
        if ask.reduction is Reduction.NONE:
            assert same_bits(found.loss, exact.loss), ask
        else:
            assert found.loss.shape == exact.loss.shape == ()
            assert float(found.loss) == pytest.approx(
                float(exact.loss), rel=1.2e-7, abs=1e-300, nan_ok=True
            )
        assert set(found.gradients) == set(exact.gradients)
        for each, gradient in exact.gradients.items():
            assert same_bits(found.gradients[each], gradient), (each, ask)
    assert taken > 0


@pytest.mark.parametrize("record", _CLASSES, ids=lambda record: record.name)
def test_the_rest_of_a_stack_changes_no_bit(record: LossRecord) -> None:
    """Each evaluation of a stack gets its own bits, beside infinite and NaN rows, too."""
    rng = generator("company", record.name, "batched")
    layout = next(each for each in record.layouts if each.name == "batched")
    forms = ValidationCache()
    for stack in range(_STACKS):
        ground = draw_ground(record, layout, rng, groups=())
        ground.bindings.axes.update(N=int(rng.integers(1, 40)), C=int(rng.integers(1, 70)))
        dtype = ("float32", "float64", "bfloat16")[stack % 3]
        dtypes = {"input": dtype, "target": "int64"}
        asks = []
        for position in range(int(rng.integers(2, 9))):
            inputs = dict(draw_inputs(ground, dtypes, {}, rng))
            if position == 1:
                inputs["input"] = inputs["input"] * np.array(np.inf, inputs["input"].dtype)
            reduction = record.reductions[stack % len(record.reductions)]
            none = reduction is Reduction.NONE
            output = rng.standard_normal(ground.values_shape if none else ())
            asks.append(
                Ask(
                    loss=record.name,
                    inputs=inputs,
                    gradients_for=("input",),
                    reduction=reduction,
                    grad_output=np.array(output, np.float32),
                    engine="auto",
                )
            )
        works = [_work(each, forms) for each in asks]
        assert all(stackable(each) for each in works)
        for work, together in zip(works, _stack(works), strict=True):
            [alone] = _stack([work])
            for field in ("sum", "mean_numerator", "mean_denominator", "count"):
                np.testing.assert_equal(getattr(together, field), getattr(alone, field))
            assert same_bits(together.loss, alone.loss)
            for name, gradient in alone.gradients.items():
                assert same_bits(together.gradients[name], gradient)


def _classes(rows: int, seed: int = 0, **fields: object) -> Ask:
    rng = np.random.default_rng(seed)
    logits = rng.standard_normal((rows, 10)).astype(np.float32)
    inputs: dict[str, Array] = {"input": logits, "target": rng.integers(0, 10, rows)}
    ask = Ask(loss="cross_entropy", inputs=inputs, gradients_for=("input",), engine="auto")
    return replace(ask, **fields)  # type: ignore[arg-type]


_ELSEWHERE: dict[str, Callable[[Ask], Ask]] = {
    "autograd is asked for": lambda ask: replace(ask, engine="autograd"),
    "rows are weighted": lambda ask: replace(ask, sample_weight=np.ones(6, np.float32)),
    "labels are smoothed": lambda ask: replace(ask, options={"label_smoothing": 0.1}),
    "half precision is computed in": lambda ask: replace(
        ask,
        inputs={**ask.inputs, "input": ask.inputs["input"].astype(np.float16)},
        compute_dtype="float16",
    ),
    "a row more than is small": lambda ask: replace(_classes(SMALL_BYTES // 48 + 1), loss=ask.loss),
}


@pytest.mark.parametrize("change", _ELSEWHERE.values(), ids=_ELSEWHERE.keys())
def test_other_evaluations_are_not_stacked(change: Callable[[Ask], Ask]) -> None:
    """Such evaluations take autograd on a GPU; on a CPU nothing is stacked."""
    for taken in (_classes(6), _classes(SMALL_BYTES // 48)):
        work = _work(taken, ValidationCache())
        assert path_of(work, "cuda")[0] is Path.STACKED
        assert path_of(work, "cpu")[0] is not Path.STACKED
    changed = _work(change(_classes(6)), ValidationCache())
    assert path_of(changed, "cuda") == (Path.AUTOGRAD, None)


def test_a_weight_without_an_axis_is_not_concatenated() -> None:
    """It broadcasts to the values, and keeps its evaluation out of larger stacks."""
    ask = Ask(
        loss="binary_cross_entropy",
        inputs={
            "input": np.array([0.25, 0.5], np.float32),
            "target": np.array([0.0, 1.0], np.float32),
            "weight": np.array(2.0, np.float32),
        },
        gradients_for=("input",),
        engine="auto",
    )
    work = _work(ask, ValidationCache())
    assert path_of(work, "cuda")[0] is Path.STACKED
    assert not stackable(work)
    [found] = _stack([work])
    exact = compute_autograd(work, _CPU)
    assert same_bits(found.gradients["input"], exact.gradients["input"])


def _pair() -> evaluation_pb2.Evaluation:
    return evaluation("mse_loss", {"input": f32(1, 2), "target": f32(3, 4)})


def _works(items: Sequence[evaluation_pb2.Evaluation]) -> list[Work]:
    forms = ValidationCache()
    return [forms.validate(decode(each), _REGISTRY.find(each.loss)) for each in items]


_A, _B = _classes(3).message(), _classes(4).message()
_LARGEST = _classes(1300).message()
_SMOOTHED = _classes(3, options={"label_smoothing": 0.1}).message()
_TABLE: dict[str, tuple[list[evaluation_pb2.Evaluation], str, list[list[int]]]] = {
    "nothing": ([], "cuda", []),
    "one skeleton": ([_A] * 4, "cuda", [[0, 1, 2, 3]]),
    "two skeletons in turn": ([_A, _B, _A, _B, _A], "cuda", [[0, 2, 4], [1, 3]]),
    "single elements": ([_pair(), _pair()], "cuda", [[0, 1]]),
    "no such operators": ([_SMOOTHED] * 2, "cuda", [[0], [1]]),
    "no more than the limit": ([_LARGEST] * 5, "cuda", [[0, 1, 2, 3], [4]]),
    "a CPU": ([_A] * 3, "cpu", [[0], [1], [2]]),
}


@pytest.mark.parametrize(("items", "device", "expected"), _TABLE.values(), ids=_TABLE.keys())
def test_which_evaluations_are_stacked(
    items: list[evaluation_pb2.Evaluation], device: str, expected: list[list[int]]
) -> None:
    """On a GPU, evaluations of one skeleton, up to a size and in order."""
    assert stacks(_works(items), device) == expected


@pytest.mark.usefixtures("stacked_as_on_gpu")
def test_evaluations_that_wait_are_computed_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """While the worker is busy calls queue up; then those of one skeleton are one computation."""
    sizes: list[int] = []

    def spy(works: Sequence[Work], device: torch.device) -> list[Outcome]:
        sizes.append(len(works))
        return compute_together(works, device)

    monkeypatch.setattr(worker_module, "compute_together", spy)
    works = _works([_classes(3, seed).message() for seed in range(30)])
    opened = threading.Event()
    worker = ComputeWorker(_CPU, 1)

    async def run() -> None:
        busy = worker.start_task(lambda _: opened.wait(PATIENCE), _NEVER)
        calls = [worker.submit(works[first : first + 10], _NEVER) for first in (0, 10, 20)]
        opened.set()
        assert await worker.answer_of(busy)
        found = [each for call in calls for each in await call]
        assert sizes == [30]
        for work, answer in zip(works, found, strict=True):
            assert not isinstance(answer, Exception)
            alone = compute(work, _CPU)
            result = evaluation_pb2.EvaluationResult.FromString(b"".join(answer.parts()))
            assert (result.sum, result.count) == (alone.sum, alone.count)
            assert result.loss.data == alone.loss.tobytes()
            assert result.gradients["input"].data == alone.gradients["input"].tobytes()

    worker.start()
    try:
        asyncio.run(run())
    finally:
        opened.set()
        worker.stop()


@pytest.mark.usefixtures("stacked_as_on_gpu")
def test_a_failing_stack_is_computed_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """No evaluation loses its result to another one of its stack."""

    def fail(works: Sequence[Work], device: torch.device) -> list[Outcome]:
        del works, device
        raise MemoryError

    monkeypatch.setattr(worker_module, "compute_together", fail)

    async def run() -> None:
        items = [_classes(3, seed).message() for seed in range(12)]
        found = await outcomes(work, items, _NEVER)
        assert [each.result.count for each in found] == [3] * 12

    with running_evaluator(Gate()) as work:
        asyncio.run(run())
