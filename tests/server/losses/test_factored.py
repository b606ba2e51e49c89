"""Factored gradients, rebuilt, are at least as exact as torch's dense gradient."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch

from losswire.client import Evaluation
from losswire.client._messages.factored import rebuild_of
from losswire.server.catalogue.record import Reduction
from losswire.server.compute.dispatch import Outcome, compute
from losswire.server.compute.work import Work
from losswire.server.losses import builtin_registry
from losswire.server.pipeline.decode import decode
from losswire.server.pipeline.encode import encode
from losswire.server.pipeline.validate import validate
from losswire.v1 import evaluation_pb2
from tests.support.caller import Array, Ask
from tests.support.factored import dense_gradient, rebuilt
from tests.support.limits import without_limits
from tests.support.sampling import (
    NUMPY,
    draw_ground,
    draw_inputs,
    generator,
    option_variants,
)

_REGISTRY = builtin_registry()
_RECORD = _REGISTRY.find("cross_entropy")
_CPU = torch.device("cpu")
_FLOATS = ("float32", "float64", "bfloat16", "float16")
_LAYOUTS = [each.name for each in _RECORD.layouts]

_MARGINS = {"float64": 1.5}
"""The factor by which the rebuilt gradient may err more: for float64 no wider type can form it,
and it goes through more roundings than torch's, where weights and smoothing are taken apart."""

_NOTHING = 1e-25
"""An error that no type shows: of distributions that are a class each."""


def _work(ask: Ask, *, factored: bool = True) -> Work:
    message = ask.message()
    if factored:
        message.gradient_form = evaluation_pb2.GRADIENT_FORM_FACTORED
    return validate(decode(message), _REGISTRY.find(ask.loss))


def _evaluate(ask: Ask, *, factored: bool = True) -> Outcome:
    """Evaluate here, without a server between."""
    return compute(_work(ask, factored=factored), _CPU)


def _rebuild(ask: Ask, outcome: Outcome, step: int = 97) -> Array:
    """Rebuild as the SDK does, in parts of a few rows."""
    logits = ask.inputs["input"]
    evaluation = Evaluation(
        ask.loss,
        ask.inputs,
        ask.options,
        gradients=ask.gradients_for,
        compute_dtype=ask.compute_dtype,
        gradient_form="factored",
    )
    rebuild = rebuild_of(evaluation, ask.inputs)
    assert rebuild is not None
    factors = outcome.factors["input"]
    assert {each.shape for each in factors} == {spec.shape for spec in rebuild.specs}
    assert len(factors) == len(rebuild.specs)
    dtype = logits.dtype if ask.gradient_dtype is None else NUMPY[ask.gradient_dtype]
    out = np.full(logits.shape, 7, dtype)
    if logits.ndim == 1:
        rebuild.rows(out, factors)
        return out
    for start in range(0, len(logits), step):
        rebuild.rows(out, [each[start : start + step] for each in factors], start)
    return out


def _rms(found: Array, exact: Array) -> float:
    """Return the root-mean-square error, relative to the largest exact number."""
    difference = found.astype(np.longdouble) - exact
    return float(np.sqrt(np.mean(difference**2)) / np.abs(exact).max())


_FEW = ({"N": 13, "C": 7}, {"N": 5, "C": 300})
_MANY = ({"N": 211, "C": 23}, {"N": 67, "C": 300})


def _asks(layout: str, dtype: str, sizes: Sequence[Mapping[str, int]] = _MANY) -> Iterator[Ask]:
    """Draw evaluations in one layout: every variant of the options, all inputs and fewest."""
    rng = generator("factored", layout, dtype)
    spec = next(each for each in _RECORD.layouts if each.name == layout)
    for lengths in sizes:
        ground = draw_ground(_RECORD, spec, rng, groups=(3,))
        ground.bindings.axes.update({k: v for k, v in lengths.items() if k in ground.bindings.axes})
        for position, options in enumerate(option_variants(ground, rng)):
            names = spec.inputs if position % 2 else sorted(_RECORD.required_inputs)
            dtypes = {
                each: dtype if spec.inputs[each].is_float else "int64"
                for each in _RECORD.inputs
                if each in names
            }
            inputs = draw_inputs(ground, dtypes, options, rng)
            if "weight" in inputs:
                inputs["weight"] = np.abs(inputs["weight"])
            shape = inputs["target"].shape if layout in _LAYOUTS[:2] else _over(inputs["input"])
            yield Ask(
                loss="cross_entropy",
                inputs=inputs,
                options=options,
                reduction=Reduction.NONE,
                gradients_for=("input",),
                grad_output=rng.standard_normal(shape),
                engine="auto",
            )


def _over(logits: Array) -> tuple[int, ...]:
    return logits.shape[:1] + logits.shape[2:] if logits.ndim > 1 else ()


def _exact(ask: Ask) -> Array:
    assert ask.grad_output is not None
    return dense_gradient(ask.inputs, ask.options, ask.grad_output)


@pytest.mark.parametrize("layout", _LAYOUTS)
@pytest.mark.parametrize("dtype", _FLOATS)
def test_the_formulas_of_the_contract(layout: str, dtype: str) -> None:
    """Rebuilt plainly, by the contract alone, the gradient is right in every layout and option."""
    tolerance = 1e-14 if dtype == "float64" else 3e-6
    for ask in _asks(layout, dtype, _FEW):
        outcome = _evaluate(ask)
        message = encode(outcome, 0).factored_gradients["input"]
        found, exact = rebuilt(message, ask.inputs, ask.options), _exact(ask)
        np.testing.assert_allclose(
            found.astype(np.float64),
            exact.astype(np.float64),
            tolerance,
            tolerance * float(np.abs(exact).max()),
            err_msg=str(ask),
        )
        assert outcome.gradients == {}


_SCALES = (1.0, 3.0, 10.0, 100.0, 1e4)


def _class_asks(classes: int, scale: float, dtype: str) -> Ask:
    rng = generator("exact", str(classes), str(scale), dtype)
    count = 40_000 // classes + 60
    logits = (rng.standard_normal((count, classes)) * scale).astype(NUMPY[dtype])
    target = rng.integers(0, classes, count)
    target[::17] = -100
    return Ask(
        loss="cross_entropy",
        inputs={"input": logits, "target": target},
        reduction=Reduction.SUM,
        gradients_for=("input",),
        engine="auto",
    )


@pytest.mark.parametrize("dtype", _FLOATS)
@pytest.mark.parametrize("classes", [2, 23, 255, 256, 1000, 32000])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_as_close_to_the_exact_gradient_as_torch(
    dtype: str, classes: int, smoothing: float
) -> None:
    """For flat and peaked distributions, and for logits of 1e4, it errs no more than torch does."""
    for scale in _SCALES:
        ask = replace(
            _class_asks(classes, scale, dtype),
            options={"label_smoothing": smoothing},
            gradient_dtype="float32" if dtype in ("bfloat16", "float16") else None,
        )
        found = _rebuild(ask, _evaluate(ask))
        torchs = _evaluate(replace(ask, engine="autograd"), factored=False).gradients["input"]
        counted = ask.inputs["target"] != -100
        exact = dense_gradient(ask.inputs, ask.options, np.ones(len(counted)))
        assert found.dtype == torchs.dtype
        assert _rms(found, exact) <= _rms(torchs, exact) * _MARGINS.get(dtype, 1.0) + _NOTHING, (
            scale
        )
        assert not found[~counted].any()


@pytest.mark.parametrize("layout", _LAYOUTS)
@pytest.mark.parametrize("dtype", _FLOATS)
def test_every_option_is_as_close_as_torch(layout: str, dtype: str) -> None:
    """Weights, smoothing, probabilities and axes behind the classes lose nothing either."""
    for ask in _asks(layout, dtype):
        wide = "float32" if dtype in ("bfloat16", "float16") else None
        one = replace(ask, gradient_dtype=wide)
        found = _rebuild(one, _evaluate(one))
        torchs = _evaluate(replace(one, engine="autograd"), factored=False).gradients["input"]
        if not _exact(ask).any():
            assert not found.any()
            continue
        error, allowed = _rms(found, _exact(ask)), _rms(torchs, _exact(ask))
        # A single row has too few roundings to compare; both are as good as the type.
        unit = 2 * float(np.finfo(found.dtype).eps)
        assert error <= max(allowed * _MARGINS.get(dtype, 1.0), unit if found.ndim == 1 else 0), one


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_narrow_gradients_are_rounded_once(dtype: str) -> None:
    """The gradient in the logits' own type is the wide one, rounded as torch rounds it."""
    ask = replace(_class_asks(300, 3.0, dtype), reduction=Reduction.MEAN)
    outcome = _evaluate(ask)
    wide = _rebuild(replace(ask, gradient_dtype="float32"), outcome)
    found = _rebuild(ask, outcome)
    expected = torch.from_numpy(wide).to(getattr(torch, dtype)).float().numpy()
    assert found.dtype == NUMPY[dtype]
    np.testing.assert_array_equal(found.astype(np.float32), expected)


@pytest.mark.parametrize("scale", [1e-30, 1e-6, 1.0, -3.0, 1e30])
@pytest.mark.parametrize("spread", [1.0, 12.0])
def test_each_number_is_exact_wherever_its_logits_are(scale: float, spread: float) -> None:
    """Small probabilities, too, and beside rows with far logits, ignored or removed ones."""
    rng = generator("factored numbers", str(scale), str(spread))
    ask = _class_asks(300, spread, "float32")
    logits, count = ask.inputs["input"], len(ask.inputs["input"])
    logits += rng.choice([0, 0, -1, 40, 75, 90, -90, 1e3, -1e6], (count, 1)).astype(np.float32)
    one = replace(ask, grad_output=np.asarray(scale), sample_weight=(rng.random(count) < 0.9) * 1.0)
    outcome, buffer = _evaluate(one), np.getbufsize()
    found = _rebuild(one, outcome)
    assert np.getbufsize() == buffer
    weight = one.sample_weight
    assert weight is not None
    exact = dense_gradient(ask.inputs, {}, weight * scale)
    # Below, float32 has fewer digits.
    least = max(1e-36, abs(scale) * 1e-36)
    held = np.abs(exact) > least
    size = np.abs(exact[held] / scale)
    # `x - lse` is rounded where it has to be formed.
    allowed = 4e-7 + 2.0**-24 * np.abs(np.log(size))
    assert (np.abs(found[held] - exact[held]) <= allowed * np.abs(exact[held])).all()
    assert (np.abs(found[~held]) <= 2 * least).all()
    np.testing.assert_array_equal(_rebuild(one, outcome, step=1), found)


_EXTREMES = (np.inf, -np.inf, np.nan, 1e30, -1e30, 88.0, 1000.0, 1e4)


@pytest.mark.parametrize("classes", [11, 300])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_extreme_logits_give_torchs_results(classes: int, dtype: str, smoothing: float) -> None:
    """Infinite, huge and missing logits: NaN where torch has NaN, but 0 in ignored rows."""
    rng = generator("factored extremes")
    logits = rng.standard_normal((200, classes)).astype(dtype)
    for row, value in enumerate(_EXTREMES):
        logits[row, row] = logits[row + 100, 3] = value
    logits[50], logits[51] = -np.inf, 1e30
    target = rng.integers(0, classes, 200)
    target[100:110] = -100
    target[:8] = np.arange(8)
    ask = Ask(
        loss="cross_entropy",
        inputs={"input": logits, "target": target},
        options={"label_smoothing": smoothing},
        gradients_for=("input",),
        engine="auto",
    )
    outcome = _evaluate(ask)
    plain = _evaluate(without_limits(replace(ask, engine="autograd")), factored=False)
    np.testing.assert_allclose(
        _rebuild(ask, outcome), plain.gradients["input"], rtol=2e-5, atol=1e-9
    )
    np.testing.assert_allclose(outcome.loss, plain.loss, 1e-5)


@pytest.mark.parametrize("layout", ["batched", "probabilities"])
@pytest.mark.parametrize("classes", [5, 300])
def test_removed_rows_are_exactly_zero(layout: str, classes: int) -> None:
    """A row of sample weight 0 gives exactly 0, whatever it holds; the others keep their bits."""
    rng = generator("factored removed", layout)
    logits = rng.standard_normal((90, classes)).astype(np.float32)
    target: Array = rng.integers(0, classes, 90)
    if layout == "probabilities":
        target = rng.dirichlet(np.ones(classes), 90).astype(np.float32)
    weight = rng.uniform(0.5, 2.0, 90)
    weight[::3] = 0
    ask = Ask(
        loss="cross_entropy",
        inputs={"input": logits, "target": target},
        sample_weight=weight,
        gradients_for=("input",),
        engine="auto",
    )
    clean = _rebuild(ask, _evaluate(ask))
    spoilt = {"input": logits.copy(), "target": target.copy()}
    for position, value in enumerate((np.nan, np.inf, -np.inf, 1e30)):
        spoilt["input"][3 * position] = value
        if layout == "probabilities":
            spoilt["target"][3 * position] = -value
    again = replace(ask, inputs=spoilt)
    found = _rebuild(again, _evaluate(again))
    assert not found[::3].any()
    np.testing.assert_array_equal(found, clean)
    dense = _evaluate(replace(ask, engine="autograd"), factored=False).gradients["input"]
    np.testing.assert_allclose(found, dense, 1e-4, 1e-8)


@pytest.mark.parametrize(
    ("inputs", "mean"),
    [
        ({"input": np.zeros((0, 4), np.float32), "target": np.zeros(0, np.int64)}, np.nan),
        ({"input": np.zeros((2, 0), np.float32), "target": np.full(2, -100)}, np.nan),
        ({"input": np.zeros((2, 3, 0)), "target": np.zeros((2, 0), np.int64)}, np.nan),
        ({"input": np.zeros((2, 0), np.float32), "target": np.zeros((2, 0), np.float32)}, 0.0),
    ],
)
def test_nothing_has_an_empty_gradient(inputs: Mapping[str, Array], mean: float) -> None:
    """Without rows or classes there are factors, and a gradient without an element."""
    ask = Ask(loss="cross_entropy", inputs=inputs, gradients_for=("input",), engine="auto")
    outcome = _evaluate(ask)
    assert _rebuild(ask, outcome).size == 0
    np.testing.assert_array_equal(outcome.loss, mean)


@pytest.mark.parametrize("reduction", [Reduction.SUM, Reduction.MEAN])
@pytest.mark.parametrize("normalizer", [None, 12.5])
def test_everything_that_multiplies_is_in_the_scale(
    reduction: Reduction, normalizer: float | None
) -> None:
    """Class weights, sample weights, the gradient of the loss, and the mean's denominator."""
    if normalizer and reduction is Reduction.SUM:
        return
    for layout in ("batched", "probabilities"):
        for ask in _asks(layout, "float64", _FEW):
            one = replace(
                ask,
                reduction=reduction,
                normalizer=normalizer,
                grad_output=np.asarray(-0.75),
                sample_weight=generator("scale").uniform(0, 2, ask.inputs["input"].shape[:1]),
            )
            found = _evaluate(one)
            plain = _evaluate(replace(one, engine="autograd"), factored=False)
            np.testing.assert_allclose(_rebuild(one, found), plain.gradients["input"], 1e-11, 1e-16)
            for name in ("sum", "mean_numerator", "mean_denominator", "count"):
                assert getattr(found, name) == pytest.approx(getattr(plain, name), rel=1e-12)


@pytest.mark.parametrize("name", ["target", "weight"])
def test_negative_masses_are_refused(name: str) -> None:
    """A target distribution that may cancel out has no scale: the alternative is named."""
    inputs: dict[str, Array] = {
        "input": np.zeros((2, 2), np.float32),
        "target": np.array([[0.5, 0.5], [1, 0]], np.float32),
        "weight": np.ones(2, np.float32),
    }
    inputs[name].flat[0] = -1
    ask = Ask(loss="cross_entropy", inputs=inputs, gradients_for=("input",), engine="auto")
    with pytest.raises(Exception, match=f"{name} holds negative .* ask for GRADIENT_FORM_DENSE"):
        _evaluate(ask)
