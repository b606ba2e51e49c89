"""The negative log-likelihood of classes by native rows: torch's numbers, and no other memory."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch

from losswire.server.catalogue.record import Reduction
from losswire.server.compute.dispatch import Outcome, compute
from losswire.server.compute.native.binding import AVAILABLE
from losswire.server.compute.native.softmax import NLL
from losswire.server.losses import builtin_registry
from losswire.server.pipeline.decode import decode
from losswire.server.pipeline.validate import validate
from tests.support.caller import Array, Ask
from tests.support.exact import epsilon, same_bits
from tests.support.limits import without_limits
from tests.support.native import (
    IGNORED,
    WIDTHS,
    Guarded,
    Rows,
    block_of,
    draw_rows,
    reduced,
    variants,
)
from tests.support.rounding import STATISTICAL_MARGIN, rms
from tests.support.sampling import NUMPY, convert, generator

pytestmark = pytest.mark.skipif(not AVAILABLE, reason="compiled where there was no compiler")

_RECORD = builtin_registry().find("nll_loss")
_CPU = torch.device("cpu")
_DTYPES = ("float32", "float64", "bfloat16", "float16")


def _evaluate(ask: Ask) -> Outcome:
    return compute(validate(decode(ask.message()), _RECORD), _CPU)


def _exact(rows: Rows) -> tuple[Array, Array]:
    """Return values and gradient by the formula."""
    count, classes = rows.logits.shape
    kept = rows.target != IGNORED
    if rows.removed is not None:
        kept &= rows.removed == 0
    target = np.where(kept, rows.target, 0)
    weight = np.ones(classes) if rows.weight is None else rows.weight.astype(np.float64)
    share = np.where(kept, weight[target], 0)
    values = np.where(kept, -share * rows.logits.astype(np.float64)[np.arange(count), target], 0)
    gradient = np.zeros((count, classes))
    gradient[np.arange(count), target] = -share * rows.coefficients
    return values, gradient


@pytest.mark.parametrize("dtype", _DTYPES)
@pytest.mark.parametrize("gradient_dtype", [None, "float32"])
def test_all_numbers_of_classes_follow_the_formula(dtype: str, gradient_dtype: str | None) -> None:
    """Registers of all widths, at any address; nothing is written beside the gradient."""
    rng = generator("nll", dtype)
    kind = "float64" if dtype == "float64" else gradient_dtype or dtype
    for classes in [*range(1, 71), 1000]:
        drawn = draw_rows(rng, 1 + classes % 5, classes, dtype)
        for rows in (each for each in variants(rng, drawn) if each.removed is None):
            removed = np.zeros(len(rows.target), np.uint8)
            removed[1::3] = classes % 2
            part = replace(rows, smoothing=0.0, removed=removed)
            gradient = Guarded(rows.logits.shape, NUMPY[kind], classes % 16)
            values = Guarded(rows.target.shape, rows.dtype, classes % 16)
            block = block_of(part, gradient.array, values.array)
            total = NLL.rows(block, WIDTHS[classes % 3])
            assert gradient.intact
            assert values.intact
            expected = _exact(part)
            slack = 2 * epsilon("float64" if dtype == "float64" else "float32")
            np.testing.assert_allclose(values.array, expected[0], slack)
            assert total == pytest.approx(values.array.sum(dtype=np.float64), rel=1e-14)
            np.testing.assert_allclose(
                gradient.array.astype(np.float64), expected[1], slack + epsilon(kind)
            )


def _cells(dtype: str) -> Iterator[Ask]:
    """Evaluations with corners, in every way to ask for them."""
    rng = generator("nll corners", dtype)
    logits = convert(-abs(rng.standard_normal((12, 9))) * 3, dtype)
    target = rng.integers(0, 9, 12)
    for row, value in enumerate((np.inf, -np.inf, np.nan, 1e-42, -0.0)):
        logits[row, target[row] if row % 2 else 0] = value
    target[[2, 7]] = IGNORED
    weights = rng.uniform(0.5, 2.0, 12).astype(np.float32)
    weights[4] = 0
    for extra in ({}, {"weight": convert(rng.uniform(0.5, 2.0, 9), dtype)}):
        ask = Ask(
            loss="nll_loss",
            inputs={"input": logits, "target": target, **extra},
            gradients_for=("input",),
            engine="auto",
        )
        yield from reduced(ask, _RECORD, weights, (12,), rng)


@pytest.mark.parametrize("dtype", _DTYPES)
@pytest.mark.parametrize("gradient_dtype", [None, *_DTYPES])
def test_corners_are_torchs(dtype: str, gradient_dtype: str | None) -> None:
    """Infinite, subnormal and missing numbers, ignored and removed rows, all types of gradients."""
    for plain in _cells(dtype):
        ask = replace(plain, gradient_dtype=gradient_dtype)
        found, torchs = _evaluate(ask), _evaluate(without_limits(replace(ask, engine="autograd")))
        assert (found.engine, torchs.engine) == ("closed_form", "autograd")
        assert found.count == torchs.count
        assert found.mean_denominator == pytest.approx(torchs.mean_denominator, rel=1e-15)
        gradient, expected = found.gradients["input"], torchs.gradients["input"]
        slack = 1e-6 + 2 * epsilon(gradient.dtype.name)
        for one, other in ((found.loss, torchs.loss), (gradient, expected)):
            assert one.dtype == other.dtype
            np.testing.assert_allclose(
                one.astype(np.float64), other.astype(np.float64), slack, 1e-40
            )


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_rows_err_no_more_than_torch(dtype: str) -> None:
    """Values and gradients, in root-mean-square error."""
    rng = generator("nll error", dtype)
    rows = draw_rows(rng, 5001, 7, dtype)
    weight = convert(rng.uniform(0.5, 2.0, 7), dtype)
    coefficients = rng.standard_normal(5001).astype(np.float32)
    ask = Ask(
        loss="nll_loss",
        inputs={"input": rows.logits, "target": rows.target, "weight": weight},
        gradients_for=("input",),
        reduction=Reduction.NONE,
        grad_output=coefficients,
        gradient_dtype="float32",
        engine="auto",
    )
    values, gradient = _exact(replace(rows, weight=weight, coefficients=coefficients))
    native, plain = _evaluate(ask), _evaluate(without_limits(replace(ask, engine="autograd")))
    assert rms(native.loss, values) <= rms(plain.loss, values) * STATISTICAL_MARGIN
    errors = [rms(each.gradients["input"], gradient) for each in (native, plain)]
    assert errors[0] <= errors[1] * STATISTICAL_MARGIN


def test_a_row_has_its_bits_beside_any_rows() -> None:
    """Alone or among others."""
    rng = generator("nll company")
    for rows in variants(rng, draw_rows(rng, 10, 41, "float32")):
        part = replace(rows, smoothing=0.0)
        gradient = np.empty((10, 41), np.float32)
        NLL.rows(block_of(part, gradient))
        for row in range(10):
            alone = np.empty((1, 41), np.float32)
            NLL.rows(block_of(part.part(slice(row, row + 1)), alone))
            assert same_bits(alone, gradient[row : row + 1])


@pytest.mark.parametrize("target", [7, -1, -101, 2**62, -(2**63)])
def test_a_wrong_class_is_an_error_and_writes_nothing_of_its_row(target: int) -> None:
    """Validation refuses it long before; who gets past that still reaches no other memory."""
    rows = draw_rows(generator("nll wrong"), 1, 7, "float32")
    rows.target[0] = target
    gradient = Guarded((1, 7), np.float32)
    with pytest.raises(IndexError):
        NLL.rows(block_of(rows, gradient.array))
    assert gradient.untouched
