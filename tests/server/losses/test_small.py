"""Small evaluations by torch's operators have torch's bits, alone and in company.

Where native rows could be compiled, they compute some of these instead (test_native.py).
"""

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch

from losswire.server.catalogue.record import LossRecord, Reduction
from losswire.server.compute.dispatch import Outcome, compute, compute_together
from losswire.server.compute.work import SMALL_BYTES, Work
from losswire.server.losses import builtin_registry
from losswire.server.pipeline.decode import decode
from losswire.server.pipeline.validation_cache import ValidationCache
from tests.support.caller import Array, Ask
from tests.support.exact import same_bits
from tests.support.sampling import draw_ground, draw_inputs, generator, option_variants

pytestmark = pytest.mark.usefixtures("by_torch")

_REGISTRY = builtin_registry()
_CPU = torch.device("cpu")
_PATHS = [
    (record, name, form)
    for record in _REGISTRY
    for name, form in record.closed_forms.items()
    if form.small is not None
]
_SMALL = [pytest.param(record, name, id=f"{record.name}-{name}") for record, name, _ in _PATHS]
_STACKED = [
    pytest.param(record, name, id=f"{record.name}-{name}")
    for record, name, form in _PATHS
    if "cpu" in form.row_stable_on
]
_COMPANIES = 200


def _work(ask: Ask, forms: ValidationCache) -> Work:
    return forms.validate(decode(ask.message()), _REGISTRY.find(ask.loss))


def _asks(record: LossRecord, name: str, dtype: str) -> Iterator[Ask]:
    """Draw small evaluations: shapes, options, optional inputs, reductions, factors."""
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
                each: dtype if layout.inputs[each].real else "int64"
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


@pytest.mark.parametrize(("record", "name"), _SMALL)
@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16", "float16"])
def test_small_evaluations_have_the_bits_of_autograd(
    record: LossRecord, name: str, dtype: str
) -> None:
    """Values and gradients of each form, option, reduction and type; sums to the last place."""
    taken = 0
    forms = ValidationCache()
    for ask in _asks(record, name, dtype):
        work = _work(ask, forms)
        taken += work.small_form is not None
        found = compute(work, _CPU)
        exact = compute(_work(replace(ask, engine="autograd"), forms), _CPU)
        assert exact.engine == "autograd"
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


@pytest.mark.parametrize(("record", "name"), _STACKED)
def test_company_changes_no_bit(record: LossRecord, name: str) -> None:
    """Evaluations computed as one give each what it gets alone, infinite and NaN rows beside it."""
    rng = generator("company", record.name, name)
    layout = next(each for each in record.layouts if each.name == name)
    forms = ValidationCache()
    for company in range(_COMPANIES):
        ground = draw_ground(record, layout, rng, groups=())
        ground.bindings.axes.update(N=int(rng.integers(1, 40)), C=int(rng.integers(1, 70)))
        dtype = ("float32", "float64", "bfloat16")[company % 3]
        dtypes = {"input": dtype, "target": "int64"}
        asks = []
        for position in range(int(rng.integers(2, 9))):
            inputs = dict(draw_inputs(ground, dtypes, {}, rng))
            if position == 1:
                inputs["input"] = inputs["input"] * np.array(np.inf, inputs["input"].dtype)
            reduction = record.reductions[company % len(record.reductions)]
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
        assert all(each.stackable_on("cpu") for each in works)
        for alone, together in zip(works, compute_together(works, _CPU), strict=True):
            _assert_same(together, compute(alone, _CPU))


def _assert_same(found: Outcome, expected: Outcome) -> None:
    for field in ("sum", "mean_numerator", "mean_denominator", "count", "engine"):
        np.testing.assert_equal(getattr(found, field), getattr(expected, field))
    assert same_bits(found.loss, expected.loss)
    for name, gradient in expected.gradients.items():
        assert same_bits(found.gradients[name], gradient)


def _classes(rows: int, **fields: object) -> Ask:
    logits = np.linspace(-2, 2, rows * 5, dtype=np.float32).reshape(rows, 5)
    inputs: dict[str, Array] = {"input": logits, "target": np.arange(rows) % 5}
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
}


@pytest.mark.parametrize("change", _ELSEWHERE.values(), ids=_ELSEWHERE.keys())
def test_what_the_small_path_cannot_do_it_does_not_take(change: Callable[[Ask], Ask]) -> None:
    """Such evaluations go by autograd, as large ones go by blocks."""
    ask = _classes(6)
    assert _work(ask, ValidationCache()).small_form is not None
    changed = _work(change(ask), ValidationCache())
    assert changed.small_form is None
    assert compute(changed, _CPU).engine == "autograd"


def test_small_ends_at_a_number_of_bytes() -> None:
    """A row more, and an evaluation is not small."""
    rows = SMALL_BYTES // (5 * 4 + 8)
    assert _work(_classes(rows), ValidationCache()).small_form is not None
    assert _work(_classes(rows + 1), ValidationCache()).small_form is None
