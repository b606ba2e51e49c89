"""Closed forms against torch's own path, and both against float64."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch

from losswire.server.catalogue.record import LossRecord, Reduction
from losswire.server.compute.dispatch import Outcome, compute
from losswire.server.losses import builtin_registry
from losswire.server.pipeline.decode import decode
from losswire.server.pipeline.validate import validate
from tests.support.caller import Array, Ask, Caller
from tests.support.limits import without_limits
from tests.support.rounding import STATISTICAL_MARGIN, in_double, rms
from tests.support.sampling import draw_ground, draw_inputs, generator, option_variants

_REGISTRY = builtin_registry()
_CPU = torch.device("cpu")
_DTYPES = ("float32", "float64", "bfloat16", "float16")
_HALVES = ("bfloat16", "float16")
_GROUPS = {"D": (3,), "S": (410, 1601)}
"""Axes that make more than one block of every loss, with a last block that is smaller."""
_CLASSES = 23
_ROWS = 7919

_FORMS = [
    pytest.param(record, name, id=f"{record.name}-{name}")
    for record in _REGISTRY
    for name in record.closed_forms
]


@pytest.fixture(params=["native", "torch"])
def _both_kinds(request: pytest.FixtureRequest) -> None:
    """Compute by native code, and then by its substitute in torch."""
    if request.param == "torch":
        request.getfixturevalue("by_torch")


def _evaluate(ask: Ask) -> Outcome:
    """Evaluate here, without a server between."""
    return compute(validate(decode(ask.message()), _REGISTRY.find(ask.loss)), _CPU)


def _asks(record: LossRecord, name: str, dtype: str) -> Iterator[Ask]:
    """Draw large evaluations in one layout: every variant of the options, all inputs and fewest."""
    rng = generator("closed", record.name, name, dtype)
    layout = next(each for each in record.layouts if each.name == name)
    group = "S" if "*S" in layout.values.tokens else "D"
    ground = draw_ground(record, layout, rng, groups=_GROUPS[group])
    if group == "D":
        ground.bindings.axes.update(N=_ROWS, C=_CLASSES)
    for position, options in enumerate(option_variants(ground, rng)):
        names = layout.inputs if position % 2 else sorted(record.required_inputs)
        dtypes = {
            each: dtype if layout.inputs[each].is_float else "int64"
            for each in record.inputs
            if each in names
        }
        inputs = draw_inputs(ground, dtypes, options, rng)
        form = record.closed_forms[name]
        yield Ask(
            loss=record.name,
            inputs=inputs,
            options=options,
            gradients_for=tuple(each for each in form.gradients if each in inputs),
            gradient_dtype="float32" if dtype in _HALVES else None,
            engine="auto",
        )


@pytest.mark.usefixtures("_both_kinds")
@pytest.mark.parametrize(("record", "name"), _FORMS)
@pytest.mark.parametrize("dtype", [each for each in _DTYPES if each != "float64"])
def test_closed_forms_are_as_close_to_float64_as_torch(
    record: LossRecord, name: str, dtype: str
) -> None:
    """Values and gradients err no more than torch's, by comparison with float64."""
    for ask in _asks(record, name, dtype):
        unreduced = replace(ask, reduction=Reduction.NONE, gradients_for=())
        for one in (unreduced, ask):
            closed, autograd = _evaluate(one), _evaluate(replace(one, engine="autograd"))
            exact = _evaluate(
                replace(one, inputs=in_double(one.inputs), gradient_dtype=None, engine="autograd")
            )
            assert (closed.engine, autograd.engine) == ("closed_form", "autograd")
            if one is unreduced:
                pairs = [(closed.loss, autograd.loss, exact.loss)]
            else:
                pairs = [
                    (closed.gradients[each], autograd.gradients[each], exact.gradients[each])
                    for each in ask.gradients_for
                ]
            for found, torchs, truth in pairs:
                assert found.dtype == torchs.dtype
                assert rms(found, truth) <= rms(torchs, truth) * STATISTICAL_MARGIN, one


@pytest.mark.usefixtures("_both_kinds")
@pytest.mark.parametrize(("record", "name"), _FORMS)
@pytest.mark.parametrize("dtype", _DTYPES)
def test_closed_forms_agree_with_torch_in_everything_else(
    record: LossRecord, name: str, dtype: str
) -> None:
    """Sums, counts, means and their denominators, for every reduction, agree with torch's path."""
    rng = generator("reductions", record.name, name, dtype)
    tolerance = 1e-12 if dtype == "float64" else 2e-6
    for ask in _asks(record, name, dtype):
        rows = next(iter(ask.inputs.values())).shape[:1]
        weight = rng.uniform(0.5, 2.0, rows).astype(np.float32)
        for reduction in record.reductions:
            for given in (None, weight):
                one = replace(ask, reduction=reduction, sample_weight=given)
                if reduction is Reduction.NONE:
                    one = replace(one, gradients_for=())
                closed, autograd = _evaluate(one), _evaluate(replace(one, engine="autograd"))
                assert (closed.engine, autograd.engine) == ("closed_form", "autograd")
                assert closed.count == autograd.count
                for field in ("sum", "mean_numerator", "mean_denominator"):
                    assert getattr(closed, field) == pytest.approx(
                        getattr(autograd, field), rel=tolerance
                    )
                np.testing.assert_allclose(closed.loss, autograd.loss, tolerance, tolerance * 10)
                for each, gradient in closed.gradients.items():
                    largest = np.abs(autograd.gradients[each]).max()
                    np.testing.assert_allclose(
                        gradient, autograd.gradients[each], tolerance * 10, tolerance * largest
                    )


@pytest.mark.usefixtures("_both_kinds")
@pytest.mark.parametrize(("record", "name"), _FORMS)
def test_removed_rows_are_exactly_zero(record: LossRecord, name: str) -> None:
    """A row of sample weight 0 gives exactly 0, whatever it holds; the others keep their bits."""
    for ask in _asks(record, name, "float32"):
        rows = len(next(iter(ask.inputs.values())))
        weight = np.ones(rows, np.float32)
        weight[::3] = 0
        weighted = replace(ask, sample_weight=weight)
        clean = _evaluate(weighted)
        spoilt = {
            each: array
            if array.dtype.kind in "iu" or array.shape[:1] != (rows,) or _is_checked(record, each)
            else np.where((weight != 0).reshape(-1, *[1] * (array.ndim - 1)), array, np.nan)
            for each, array in ask.inputs.items()
        }
        found = _evaluate(replace(weighted, inputs=spoilt))
        assert found.engine == "closed_form"
        assert (found.sum, found.mean_numerator, found.count) == (
            clean.sum,
            clean.mean_numerator,
            clean.count,
        )
        for each, gradient in found.gradients.items():
            assert not gradient[::3].any()
            assert np.array_equal(gradient, clean.gradients[each])


def _is_checked(record: LossRecord, name: str) -> bool:
    """Return whether NaN in an input is refused."""
    return record.inputs[name].rule_for(is_float=True).enforced


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.usefixtures("by_torch")
def test_extreme_logits_give_torchs_results(smoothing: float, *, weighted: bool) -> None:
    """Infinite and huge logits agree with torch, in rows that are ignored and in others."""
    rng = generator("extremes")
    logits = rng.standard_normal((20000, 11)).astype(np.float32)
    extremes = (np.inf, -np.inf, np.nan, 1e30, -1e30, 88.0, 1000.0)
    for row, value in enumerate(extremes):
        logits[row, row] = logits[row + 100, 3] = value
    logits[50] = -np.inf
    logits[51] = 1e30
    target = rng.integers(0, 11, 20000)
    target[100:110] = -100
    target[:7] = np.arange(7)
    inputs: dict[str, Array] = {"input": logits, "target": target}
    if weighted:
        inputs["weight"] = rng.uniform(0.5, 2.0, 11).astype(np.float32)
    ask = Ask(
        loss="cross_entropy",
        inputs=inputs,
        options={"label_smoothing": smoothing},
        reduction=Reduction.NONE,
        gradients_for=("input",),
        grad_output=np.ones(20000, np.float32),
        engine="auto",
    )
    closed, autograd = _evaluate(ask), _evaluate(without_limits(replace(ask, engine="autograd")))
    assert (closed.engine, autograd.engine) == ("closed_form", "autograd")
    np.testing.assert_allclose(closed.loss, autograd.loss, 1e-5, 1e-6)
    np.testing.assert_allclose(closed.gradients["input"], autograd.gradients["input"], 1e-5, 1e-6)


@pytest.mark.parametrize("loss", ["cross_entropy", "nll_loss"])
def test_no_class_of_uint8_is_taken_for_the_default_ignore_index(loss: str) -> None:
    """-100 wraps to 156 in uint8, which is a class like any other."""
    rng = generator("uint8", loss)
    ask = Ask(
        loss=loss,
        inputs={
            "input": -rng.random((1000, 200)).astype(np.float32),
            "target": np.full(1000, 156, np.uint8),
        },
        gradients_for=("input",),
        engine="auto",
    )
    closed, plain = _evaluate(ask), _evaluate(replace(ask, engine="autograd"))
    assert (closed.engine, plain.engine) == ("closed_form", "autograd")
    assert closed.count == plain.count == 1000
    np.testing.assert_allclose(closed.loss, plain.loss, rtol=1e-6)
    np.testing.assert_allclose(closed.gradients["input"], plain.gradients["input"], rtol=1e-4)


def test_the_receipt_names_the_path(caller: Caller) -> None:
    """AUTO takes torch's closed forms for large evaluations, AUTOGRAD for none."""
    # Native code does not take elements of several types.
    large: dict[str, Array] = {
        "input": np.zeros((1 << 18,), np.float32),
        "target": np.ones((1 << 18,)),
    }
    asked = [
        Ask(
            loss="mse_loss",
            inputs={name: array[:length] for name, array in large.items()},
            engine=engine,
        )
        for length in (1 << 18, 1 << 14, 10)
        for engine in ("auto", "autograd")
    ]
    found = [caller.evaluate(each).engine for each in asked]
    assert found[::2] == ["closed_form", "autograd", "autograd"]
    assert found[1::2] == ["autograd"] * 3
