"""Properties of every loss, for all shapes and values."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from losswire.server.catalogue.record import Kind, Reduction
from losswire.server.catalogue.value_rules import Context
from losswire.server.losses import builtin_registry
from tests.support.caller import Array, Ask, Caller, Result
from tests.support.exact import MEANS, Cell, differences, same_bits
from tests.support.extras import DENOMINATOR_INPUTS, WHILE_WEIGHTED
from tests.support.rows import batchmean_denominator, broadcasts_over_rows, take_rows
from tests.support.sampling import (
    Ground,
    doubles,
    draw_ground,
    draw_inputs,
    gradient_choices,
    option_variants,
    presences,
)

RECORDS = {record.name: record for record in builtin_registry()}
LOSSES = [record.name for record in RECORDS.values() if record.kind is Kind.LOSS]
SEPARABLE = [name for name in LOSSES if RECORDS[name].separable]

# The same examples every time, and as many as take a few seconds over all losses.
few = settings(max_examples=12, deadline=None, derandomize=True, database=None)

seeds = st.integers(0, 2**32 - 1)
rows = st.integers(0, 5)
each_record = pytest.mark.parametrize("name", RECORDS)
each_loss = pytest.mark.parametrize("name", LOSSES)
each_separable = pytest.mark.parametrize("name", SEPARABLE)


def _draw(
    name: str, rows: int, seed: int, *, shortest: int = 1
) -> tuple[Ground, dict[Reduction, Ask], np.random.Generator]:
    """Draw an evaluation in float64 for each reduction, all with the same inputs."""
    record, rng = RECORDS[name], np.random.default_rng(seed)
    layout = record.layouts[int(rng.integers(len(record.layouts)))]
    ground = draw_ground(record, layout, rng, rows=rows, shortest=shortest)
    names = presences(ground)[int(rng.integers(len(presences(ground))))]
    variants = option_variants(ground, rng)
    options = variants[int(rng.integers(len(variants)))]
    dtypes = doubles(ground, names)
    inputs = draw_inputs(ground, dtypes, options, rng)
    asks = {}
    for reduction in record.reductions:
        shape = ground.values_shape if reduction is Reduction.NONE else ()
        asks[reduction] = Ask(
            loss=record.name,
            inputs=inputs,
            options=options,
            reduction=reduction,
            gradients_for=gradient_choices(ground, dtypes)[-1],
            grad_output=np.asarray(rng.standard_normal(shape)),
        )
    return ground, asks, rng


def _same(found: Result, expected: Result) -> Iterator[str]:
    """Return in which fields two results differ in their bits."""
    if not same_bits(found.loss, expected.loss):
        yield f"loss {found.loss}, expected {expected.loss}"
    if not same_bits(np.array(found.sum), np.array(expected.sum)):
        yield f"sum {found.sum}, expected {expected.sum}"
    for name, gradient in expected.gradients.items():
        if not same_bits(found.gradients[name], gradient):
            yield f"gradient of {name} {found.gradients[name]}, expected {gradient}"


def _close(found: Array | float, expected: Array | float, scale: float = 1.0) -> bool:
    """Return whether float64 numbers differ by a few roundings of numbers of a size."""
    size = max(scale, float(np.abs(np.nan_to_num(expected, posinf=0, neginf=0)).max(initial=0.0)))
    return np.allclose(found, expected, rtol=1e-13, atol=1e-13 * size, equal_nan=True)


def _unlike(found: Result, expected: Result) -> Iterator[str]:
    """Return in which fields two results in float64 differ by more than a few roundings."""
    if not _close(found.loss, expected.loss):
        yield f"loss {found.loss}, expected {expected.loss}"
    if not _close(found.sum, expected.sum):
        yield f"sum {found.sum}, expected {expected.sum}"
    for name, gradient in expected.gradients.items():
        if not _close(found.gradients[name], gradient):
            yield f"gradient of {name} {found.gradients[name]}, expected {gradient}"


@each_record
@few
@given(rows=rows, seed=seeds)
def test_any_shape_equals_torch(caller: Caller, name: str, rows: int, seed: int) -> None:
    """Empty batches, scalars, single elements and all other shapes give torch's results."""
    ground, asks, _ = _draw(name, rows, seed, shortest=0)
    cells = [Cell(ground=ground, ask=ask) for ask in asks.values()]
    results = caller.results([cell.ask for cell in cells])
    wrong = [
        f"{cell.ask}: {difference}"
        for cell, result in zip(cells, results, strict=True)
        for difference in differences(cell, result)
    ]
    assert not wrong, "\n".join(wrong)


@each_separable
@few
@given(rows=rows, seed=seeds, share=st.floats(0, 1))
def test_shards_add_up_to_the_whole(
    caller: Caller, name: str, rows: int, seed: int, share: float
) -> None:
    """Sums, numerators, denominators and counts of two shards add up to those of the batch."""
    ground, asks, _ = _draw(name, rows, seed)
    ask = asks[Reduction.MEAN]
    if not ground.values_shape or broadcasts_over_rows(ground, ask.inputs):
        return
    rows = ground.values_shape[0]
    cut = round(share * rows)
    parts = [take_rows(ground, ask, np.arange(cut)), take_rows(ground, ask, np.arange(cut, rows))]
    whole, first, second = caller.results([ask, *parts])
    scale = max(map(abs, (whole.sum, first.sum, second.sum, whole.mean_denominator)))
    assert first.count + second.count == whole.count
    assert _close(first.sum + second.sum, whole.sum, scale)
    assert _close(first.mean_numerator + second.mean_numerator, whole.mean_numerator, scale)
    assert _close(first.mean_denominator + second.mean_denominator, whole.mean_denominator, scale)


@each_separable
@few
@given(rows=rows, seed=seeds, share=st.floats(0, 1))
def test_normalized_shards_give_the_loss_and_gradient_of_the_whole(
    caller: Caller, name: str, rows: int, seed: int, share: float
) -> None:
    """Shards that are given the whole's denominator have losses and gradients that add up."""
    ground, asks, _ = _draw(name, rows, seed)
    ask = replace(asks[Reduction.MEAN], normalizer=7.5)
    if not ground.values_shape or broadcasts_over_rows(ground, ask.inputs):
        return
    rows = ground.values_shape[0]
    cut = round(share * rows)
    parts = [take_rows(ground, ask, np.arange(cut)), take_rows(ground, ask, np.arange(cut, rows))]
    whole, first, second = caller.results([ask, *parts])
    scale = max(abs(float(each.loss)) for each in (whole, first, second))
    assert _close(first.loss + second.loss, whole.loss, scale)
    axes = batchmean_denominator(ground, ask.inputs)
    for each, expected in whole.gradients.items():
        both = [first.gradients[each], second.gradients[each]]
        found = np.concatenate(both, axes[each]) if each in axes else both[0] + both[1]
        assert _close(found, expected), each


@each_separable
@few
@given(rows=rows, seed=seeds)
def test_permuted_rows_have_permuted_values(
    caller: Caller, name: str, rows: int, seed: int
) -> None:
    """Rows in another order have the same values and gradients in that order."""
    ground, asks, rng = _draw(name, rows, seed)
    ask = asks[Reduction.NONE]
    if not ground.values_shape or broadcasts_over_rows(ground, ask.inputs):
        return
    order = rng.permutation(ground.values_shape[0])
    straight, permuted = caller.results([ask, take_rows(ground, ask, order)])
    assert _close(permuted.loss, np.take(straight.loss, order, 0))
    axes = batchmean_denominator(ground, ask.inputs)
    for each, gradient in straight.gradients.items():
        expected = np.take(gradient, order, axes[each]) if each in axes else gradient
        assert _close(permuted.gradients[each], expected), each


def _poisoned(ground: Ground, ask: Ask, removed: Array, poison: float) -> Ask:
    """Write infinities or NaN into removed rows, wherever the record accepts them."""
    axes = batchmean_denominator(ground, ask.inputs)
    options = {n: f.default for n, f in ground.record.option_fields.items()} | dict(ask.options)
    inputs = dict(ask.inputs)
    for name, axis in axes.items():
        if not ground.layout.inputs[name].is_float:
            continue
        place = [1] * inputs[name].ndim
        place[axis] = -1
        changed = np.where(removed.reshape(place), poison, inputs[name])
        rule = ground.record.inputs[name].rule_for(is_float=True)
        context = Context(ground.bindings, options, inputs)
        if rule.violation(changed, context) is None:
            inputs[name] = changed
    return replace(ask, inputs=inputs)


@each_separable
@few
@given(rows=rows, seed=seeds, poison=st.sampled_from([np.nan, np.inf, -np.inf]))
def test_rows_of_weight_0_contribute_nothing(
    caller: Caller, name: str, rows: int, seed: int, poison: float
) -> None:
    """The contents of removed rows, infinities and NaN too, reach neither loss nor gradient."""
    ground, asks, rng = _draw(name, rows, seed)
    shape = ground.values_shape[:1]
    weight = np.asarray(rng.uniform(0.5, 2.0, shape) * (rng.random(shape) < 0.5))
    clean = [replace(ask, sample_weight=weight) for ask in asks.values()]
    dirty = [_poisoned(ground, ask, weight == 0, poison) for ask in clean]
    for ask, found, expected in zip(
        clean, caller.results(dirty), caller.results(clean), strict=True
    ):
        assert not list(_same(found, expected)), str(ask)
        for each, axis in batchmean_denominator(ground, found.gradients).items():
            gone = np.compress(weight == 0, found.gradients[each], axis)
            assert same_bits(gone, np.zeros_like(gone)), each
        if ask.reduction is Reduction.NONE and shape:
            gone = found.loss[weight == 0]
            assert same_bits(gone, np.zeros_like(gone))


@each_separable
@few
@given(rows=rows, seed=seeds)
def test_other_rows_keep_their_bits(caller: Caller, name: str, rows: int, seed: int) -> None:
    """Removing rows leaves values and gradients of all other rows as they were, to the bit."""
    ground, asks, rng = _draw(name, rows, seed)
    ask = asks[Reduction.NONE]
    shape = ground.values_shape[:1]
    weight = np.asarray((rng.random(shape) < 0.5).astype(np.float64))
    if not shape:
        return
    plain, weighted = caller.results([ask, replace(ask, sample_weight=weight)])
    assert same_bits(weighted.loss[weight == 1], plain.loss[weight == 1])
    for each, axis in batchmean_denominator(ground, plain.gradients).items():
        kept, expected = (
            np.compress(weight == 1, result.gradients[each], axis) for result in (weighted, plain)
        )
        assert same_bits(kept, expected), each


@each_loss
@few
@given(rows=rows, seed=seeds)
def test_weights_of_1_change_nothing(caller: Caller, name: str, rows: int, seed: int) -> None:
    """A sample weight of 1 everywhere changes no more than a last bit, by either engine."""
    ground, asks, _ = _draw(name, rows, seed)
    shape = ground.values_shape
    engines = ("auto", "autograd")
    for ask in (replace(each, engine=engine) for engine in engines for each in asks.values()):
        weighted = [replace(ask, sample_weight=np.ones(each)) for each in (shape, shape[:1])]
        plain, *found = caller.results([ask, *weighted])
        for each in found:
            assert not list(_unlike(each, plain)), str(ask)
            assert each.count == plain.count
            assert _close(each.mean_denominator, plain.mean_denominator)


@each_loss
@few
@given(rows=rows, seed=seeds)
def test_own_denominator_as_normalizer_changes_nothing(
    caller: Caller, name: str, rows: int, seed: int
) -> None:
    """The mean's denominator as its normalizer changes no more than a last bit."""
    _, asks, _ = _draw(name, rows, seed)
    for ask in (each for reduction, each in asks.items() if reduction in MEANS):
        # A gradient through the denominator is what a normalizer takes away.
        own = DENOMINATOR_INPUTS.get(name, ())
        names = tuple(each for each in ask.gradients_for if each not in own)
        grad_output = ask.grad_output if names else None
        fixed = replace(ask, gradients_for=names, grad_output=grad_output)
        [plain] = caller.results([fixed])
        if not plain.mean_denominator > 0:
            continue
        [normalized] = caller.results([replace(fixed, normalizer=plain.mean_denominator)])
        assert not list(_unlike(normalized, plain)), str(ask)


@each_record
@few
@given(rows=rows, seed=seeds, power=st.integers(-3, 3))
def test_gradient_is_linear_in_grad_output(
    caller: Caller, name: str, rows: int, seed: int, power: int
) -> None:
    """A grad_output times a power of 2 gives the gradient times that power, to the bit."""
    _, asks, _ = _draw(name, rows, seed)
    scaled = [
        replace(ask, grad_output=np.asarray(ask.grad_output) * np.float64(2.0**power))
        for ask in asks.values()
        if ask.gradients_for
    ]
    plain = [ask for ask in asks.values() if ask.gradients_for]
    for found, expected in zip(caller.results(scaled), caller.results(plain), strict=True):
        assert same_bits(found.loss, expected.loss)
        for each, gradient in expected.gradients.items():
            assert same_bits(found.gradients[each], gradient * 2.0**power), each


def test_losses_with_a_row_that_may_be_infinite_are_known() -> None:
    """The table of losses that need an option to be finite names losses that exist."""
    assert set(WHILE_WEIGHTED) <= set(LOSSES)
