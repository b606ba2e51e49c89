"""Native losses of single elements: the same bits wherever, exact, torch's in corners."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch

from losswire.server.catalogue.record import Reduction
from losswire.server.compute import thresholds
from losswire.server.compute.dispatch import Outcome, compute
from losswire.server.compute.native import binding
from losswire.server.compute.native.binding import AVAILABLE
from losswire.server.compute.native.rows import compute_rows
from losswire.server.compute.paths import native_form
from losswire.server.compute.work import Work
from losswire.server.losses import builtin_registry
from losswire.server.pipeline.decode import decode
from losswire.server.pipeline.validate import validate
from tests.support.caller import Array, Ask
from tests.support.elements import (
    OPTIONS,
    PROBABILITIES,
    Elements,
    block_of,
    draw,
    exact,
    rows_of,
    run,
    spoilt,
)
from tests.support.exact import epsilon, same_bits
from tests.support.limits import limited, without_limits
from tests.support.native import WIDTHS, Guarded, reduced
from tests.support.rounding import STATISTICAL_MARGIN, rms
from tests.support.sampling import convert, generator

needs_library = pytest.mark.skipif(not AVAILABLE, reason="compiled where there was no compiler")

_REGISTRY = builtin_registry()
_CPU = torch.device("cpu")
_HALVES = ("bfloat16", "float16")
_DTYPES = ("float32", "float64", *_HALVES)
_PAIRS = [
    *((dtype, dtype) for dtype in _DTYPES),
    *((dtype, "float32") for dtype in _HALVES),
]
_COUNTS = [*range(1, 70), 255, 256, 257, 511, 512, 513, 1536, 4099]
"""Counts of up to a few steps, of a block, and more."""

_each_loss = pytest.mark.parametrize("loss", OPTIONS)
_each_pair = pytest.mark.parametrize(("dtype", "gradient_dtype"), _PAIRS)


def _work(ask: Ask) -> Work:
    return validate(decode(ask.message()), _REGISTRY.find(ask.loss))


def _evaluate(ask: Ask) -> Outcome:
    return compute(_work(ask), _CPU)


def _ask(elements: Elements, **fields: object) -> Ask:
    """Return a request for the gradients of drawn elements."""
    ask = Ask(
        loss=elements.loss,
        inputs=elements.inputs,
        options=elements.options,
        gradients_for=elements.gradients,
        engine="auto",
    )
    return replace(ask, **fields)  # type: ignore[arg-type]


@needs_library
@_each_loss
@_each_pair
def test_registers_of_all_widths_give_the_same_bits(
    loss: str, dtype: str, gradient_dtype: str
) -> None:
    """Values, gradients and the sum, with corners, for every number of elements."""
    rng = generator("widths", loss, dtype, gradient_dtype)
    for count in _COUNTS:
        for drawn in draw(rng, loss, count, dtype, gradient_dtype):
            elements = spoilt(drawn) if count % 2 else drawn
            first, *others = [run(elements, width) for width in WIDTHS]
            for other in others:
                assert all(map(same_bits, other.arrays, first.arrays)), (count, elements)
                np.testing.assert_equal(other.total, first.total)


@needs_library
@_each_loss
@_each_pair
def test_an_element_has_its_bits_beside_any_elements_at_any_address(
    loss: str, dtype: str, gradient_dtype: str
) -> None:
    """Alone or among others, and 1 to 15 bytes beside where a vector would begin."""
    rng = generator("company", loss, dtype, gradient_dtype)
    for count in (1, 17, 40, 129):
        for drawn in draw(rng, loss, count, dtype, gradient_dtype):
            elements = spoilt(drawn)
            together = run(elements)
            for start in range(0, count, 5):
                part = slice(start, start + 1 + start % 7)
                one, offset = elements.part(part), 1 + (start + count) % 15
                place = Guarded(one.inputs["input"].shape, one.inputs["input"].dtype, offset)
                place.array[...] = one.inputs["input"]
                if any(len(each) < count for each in elements.inputs.values()):
                    continue  # what repeats would begin elsewhere
                alone = run(replace(one, inputs={**one.inputs, "input": place.array}), 64, offset)
                for found, whole in zip(alone.arrays, together.arrays, strict=True):
                    assert same_bits(found, whole[part])


@needs_library
@_each_loss
@_each_pair
def test_all_numbers_of_elements_follow_the_formula(
    loss: str, dtype: str, gradient_dtype: str
) -> None:
    """Within a few units in the last place, and nothing is written beside the gradients."""
    rng = generator("formula", loss, dtype, gradient_dtype)
    own = 8 * epsilon("float64" if dtype == "float64" else "float32")
    slack = own + (epsilon(gradient_dtype) if gradient_dtype in _HALVES else 0.0)
    for count in _COUNTS:
        for elements in draw(rng, loss, count, dtype, gradient_dtype):
            found = run(elements, WIDTHS[count % 3])
            values, gradients = exact(elements)
            np.testing.assert_allclose(found.values, values, own, own)
            for name, gradient in gradients.items():
                assert found.gradients[name].dtype.name == gradient_dtype
                # Those of binary_cross_entropy near 0 and 1 are too large for float16.
                with np.errstate(over="ignore"):
                    expected = gradient.astype(found.gradients[name].dtype).astype(np.float64)
                np.testing.assert_allclose(
                    found.gradients[name].astype(np.float64), expected, slack, slack
                )
            assert found.total == pytest.approx(found.values.sum(dtype=np.float64), rel=1e-14)
            if elements.removed is not None:
                gone = elements.removed != 0
                assert not any(each[gone].any() for each in found.arrays)


@needs_library
@_each_loss
@pytest.mark.parametrize("dtype", _DTYPES)
@pytest.mark.parametrize("spread", [0.1, 3.0, 30.0])
def test_elements_err_no_more_than_torch(loss: str, dtype: str, spread: float) -> None:
    """Values and gradients, in root-mean-square error, near 0 and far from it."""
    kind = np.longdouble if dtype == "float64" else np.float64
    if np.finfo(kind).eps >= epsilon(dtype):
        pytest.skip("nothing wider is at hand")
    rng = generator("error", loss, dtype)
    for drawn in draw(rng, loss, 30003, dtype):
        inputs = dict(drawn.inputs)
        if loss != "binary_cross_entropy":
            given = rng.standard_normal(30003) * spread
            inputs["input"] = convert(-abs(given) if loss == "kl_div" else given, dtype)
        coefficients = rng.standard_normal(30003).astype(drawn.dtype)
        elements = replace(drawn, inputs=inputs, removed=None, coefficients=coefficients)
        ask = _ask(
            elements,
            inputs={name: np.resize(array, 30003) for name, array in inputs.items()},
            reduction=Reduction.NONE,
            grad_output=coefficients,
            gradient_dtype="float32" if dtype in _HALVES else None,
        )
        values, gradients = exact(elements, kind)
        native, plain = _evaluate(ask), _evaluate(without_limits(replace(ask, engine="autograd")))
        assert (native.engine, plain.engine) == ("closed_form", "autograd")
        assert rms(native.loss, values) <= rms(plain.loss, values) * STATISTICAL_MARGIN
        for name, gradient in gradients.items():
            errors = [rms(each.gradients[name], gradient) for each in (native, plain)]
            assert errors[0] <= errors[1] * STATISTICAL_MARGIN, name


_SPECIALS = (np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-42, -1e-42, 1.0, -1.0, 0.3, -5.0, 100.0, 3e38)


def _probabilities(numbers: Array) -> Array:
    return np.clip(np.nan_to_num(numbers.astype(np.float64)), 0, 1).astype(numbers.dtype)


def _cells(loss: str, dtype: str) -> Iterator[Ask]:
    """Evaluations of all pairs of special numbers, in every way to ask for them."""
    rng = generator("corners", loss, dtype)
    with np.errstate(over="ignore"):
        pairs = np.array(list(product(_SPECIALS, _SPECIALS))).astype(np.float64)
        given, target = (convert(each.copy(), dtype) for each in pairs.T)
    if loss in PROBABILITIES:
        target = _probabilities(target)
    if loss == "mse_loss":
        # Twice the largest would overflow in torch, which doubles before it divides.
        with np.errstate(over="ignore"):
            most = np.array(3e37, np.float64).astype(given.dtype)
        given, target = (np.where(np.isfinite(x), np.minimum(x, most), x) for x in (given, target))
    if loss == "binary_cross_entropy":
        given = _probabilities(given)
    shape = (len(_SPECIALS), len(_SPECIALS))
    weight = rng.uniform(0.5, 2.0, len(_SPECIALS)).astype(np.float32)
    weight[4] = 0
    for drawn in draw(rng, loss, given.size, dtype):
        inputs = {
            name: np.resize(array, shape)
            for name, array in {**drawn.inputs, "input": given, "target": target}.items()
        }
        ask = replace(_ask(drawn), inputs=inputs)
        yield from reduced(ask, _REGISTRY.find(loss), weight, shape, rng)


@needs_library
@_each_loss
@pytest.mark.parametrize("dtype", _DTYPES)
@pytest.mark.parametrize("gradient_dtype", [None, *_DTYPES])
def test_corners_are_torchs(loss: str, dtype: str, gradient_dtype: str | None) -> None:
    """Infinite, subnormal and missing numbers, removed rows, all types of gradients."""
    for plain in _cells(loss, dtype):
        ask = replace(plain, gradient_dtype=gradient_dtype)
        found, torchs = _evaluate(ask), _evaluate(without_limits(replace(ask, engine="autograd")))
        assert (found.engine, torchs.engine) == ("closed_form", "autograd")
        assert found.count == torchs.count
        assert found.mean_denominator == pytest.approx(torchs.mean_denominator, rel=1e-15)
        slack = 1e-6 + 2 * epsilon(next(iter(found.gradients.values())).dtype.name)
        # torch subtracts logits from each other, which leaves errors of their size.
        absolute = slack if loss.startswith("binary") else slack * 1e-30
        unreduced = ask.reduction is Reduction.NONE
        pairs = [(found.loss, limited(ask, torchs.loss) if unreduced else torchs.loss)]
        pairs += [(each, torchs.gradients[name]) for name, each in found.gradients.items()]
        for one, other in pairs:
            assert one.dtype == other.dtype
            np.testing.assert_allclose(
                one.astype(np.float64), other.astype(np.float64), slack, absolute
            )


@needs_library
@_each_loss
@pytest.mark.parametrize("dtype", _DTYPES)
def test_fewer_outputs_have_the_same_bits(loss: str, dtype: str) -> None:
    """Each gradient by itself, and values or their sum only."""
    rng = generator("alone", loss, dtype)
    for drawn in draw(rng, loss, 1041, dtype):
        elements = spoilt(drawn)
        found, compute_elements = run(elements), rows_of(loss)
        values = np.empty_like(found.values)
        totals = [compute_elements(block_of(elements, {}, values))]
        assert same_bits(values, found.values)
        totals.append(compute_elements(block_of(elements, {})))
        for name, gradient in found.gradients.items():
            place = np.empty_like(gradient)
            totals.append(compute_elements(block_of(elements, {name: place})))
            assert same_bits(place, gradient)
        np.testing.assert_equal(totals, [found.total] * len(totals))


@needs_library
@_each_loss
def test_sums_are_exact_to_the_last_place(loss: str) -> None:
    """However many values there are, and however far apart."""
    rng = generator("sums", loss)
    for dtype in ("float32", "float64"):
        for drawn in draw(rng, loss, 100_003, dtype):
            scale = 10 ** rng.uniform(-6, 6, 100_003)
            given = (drawn.inputs["input"] * scale).astype(drawn.dtype)
            found = run(replace(drawn, inputs={**drawn.inputs, "input": given}))
            expected = float(found.values.astype(np.longdouble).sum())
            assert found.total == pytest.approx(expected, rel=4 * epsilon("float64"))


@needs_library
@pytest.mark.parametrize("weight", [(7,), (5, 7), (1, 5, 7), (1,), (1, 1, 1), (6, 5, 7), ()])
@pytest.mark.parametrize("positive", [(7,), (5, 7), (1, 7), (1, 1), (6, 5, 7), (600, 5, 7)])
def test_weights_repeat_as_they_broadcast(
    weight: tuple[int, ...], positive: tuple[int, ...]
) -> None:
    """Each by itself, whatever the other does, in rows that are cut and in rows that are not."""
    rng = generator("repeat", str(weight), str(positive))
    shape = (600, 5, 7) if positive[:1] == (600,) else (6, 5, 7)
    if 6 in weight and shape != (6, 5, 7):
        weight = shape
    drawn = {
        "input": rng.standard_normal(shape),
        "target": rng.random(shape),
        "weight": rng.uniform(0.5, 2.0, weight),
        "pos_weight": rng.uniform(0.5, 2.0, positive),
    }
    inputs = {name: convert(np.asarray(array), "float32") for name, array in drawn.items()}
    ask = Ask(
        loss="binary_cross_entropy_with_logits",
        inputs=inputs,
        gradients_for=("input",),
        engine="auto",
    )
    assert native_form(_work(ask)) is not None
    laid = {name: np.broadcast_to(each, shape).copy() for name, each in inputs.items()}
    for one in (ask, replace(ask, sample_weight=rng.random(shape[0]).astype(np.float32))):
        found, full = _evaluate(one), _evaluate(replace(one, inputs=laid))
        assert same_bits(found.gradients["input"], full.gradients["input"])
        assert found.sum == pytest.approx(full.sum, rel=1e-14)


@needs_library
@_each_loss
@pytest.mark.parametrize("shape", [(53,), (1, 257), (3, 5, 7)])
def test_the_number_of_threads_changes_no_bit(
    loss: str, shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Values and gradients, elements removed, one row or many; sums to the last place."""
    monkeypatch.setattr(thresholds, "THREAD_BYTES", 1)
    monkeypatch.setattr(thresholds, "SMALL_BYTES", 1)
    monkeypatch.setattr(thresholds, "WEIGHTED_VALUES", 11)
    rng = generator("threads", loss)
    count = int(np.prod(shape))
    for drawn in draw(rng, loss, count, "float32"):
        inputs = {name: np.resize(array, shape) for name, array in drawn.inputs.items()}
        weights = [rng.uniform(0.5, 2.0, each).astype(np.float32) for each in (shape, shape[:1])]
        for each in weights:
            each.reshape(-1)[::5] = 0
        for given, reduction in product([None, *weights], [Reduction.MEAN, Reduction.NONE]):
            none = reduction is Reduction.NONE
            output = np.asarray(rng.standard_normal(shape if none else ()), np.float32)
            ask = _ask(
                drawn,
                inputs=inputs,
                reduction=reduction,
                sample_weight=given,
                grad_output=output,
            )
            work = _work(ask)
            form = native_form(work)
            assert form is not None
            alone = compute_rows(form, work, 1)
            for threads in (2, 3, 60):
                found = compute_rows(form, work, threads)
                assert found.loss.shape == alone.loss.shape
                np.testing.assert_allclose(found.loss, alone.loss, 0 if none else 1e-7)
                assert found.sum == pytest.approx(alone.sum, rel=1e-14)
                for name, gradient in alone.gradients.items():
                    assert same_bits(found.gradients[name], gradient)


@needs_library
@_each_loss
def test_types_that_do_not_go_together_are_an_error(loss: str) -> None:
    """Types and losses that there are not; nothing is written then."""
    [elements, *_] = draw(generator("types", loss), loss, 57, "float32")
    for dtype in (np.float64, np.int32):
        gradient = Guarded((57,), dtype)
        with pytest.raises(TypeError):
            rows_of(loss)(block_of(elements, {"input": gradient.array}))
        assert gradient.untouched
    for number in (-1, 99):
        call = binding.Elements(count=1, line=1, loss=number, read_type=9, gradient_type=9)
        with pytest.raises(TypeError, match="no such loss"):
            binding.compute(call, small=True)


def _pair(shape: tuple[int, ...], dtype: str = "float32", **more: Array) -> dict[str, Array]:
    return {"input": convert(np.ones(shape), dtype), "target": convert(np.ones(shape), dtype)} | {
        name: convert(array, dtype) for name, array in more.items()
    }


def test_torchs_own_path_is_never_replaced() -> None:
    """ENGINE_AUTOGRAD, mixed types, scalars, odd weights and other gradients go by torch."""
    bce = Ask(
        loss="binary_cross_entropy_with_logits",
        inputs=_pair((4, 3)),
        gradients_for=("input",),
        engine="auto",
    )
    mse = replace(bce, loss="mse_loss", gradients_for=("input", "target"))
    assert (native_form(_work(bce)) is not None) is AVAILABLE
    assert (native_form(_work(mse)) is not None) is AVAILABLE
    others = [
        replace(mse, engine="autograd"),
        replace(mse, compute_dtype="float64"),
        replace(mse, inputs=_pair((4, 3), "float16"), compute_dtype="float16"),
        replace(mse, inputs=_pair(())),
        replace(mse, inputs=_pair((0, 3))),
        replace(mse, inputs={**_pair((4, 3)), "target": np.ones((4, 3))}, gradients_for=("input",)),
        replace(mse, inputs=_pair((4, 3), weight=np.ones((4, 3))), gradients_for=("weight",)),
        replace(bce, gradients_for=("target",)),
        replace(bce, inputs=_pair((4, 3), weight=np.ones((4, 1)))),
        replace(bce, inputs=_pair((4, 3), pos_weight=np.ones((4, 1)))),
    ]
    assert [native_form(_work(each)) for each in others] == [None] * len(others)
