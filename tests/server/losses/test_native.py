"""Native rows: the same bits wherever and with whomever, near the formula, torch's in corners."""

import ctypes
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from losswire.server.catalogue.record import Reduction
from losswire.server.compute.dispatch import Outcome, compute
from losswire.server.compute.native import binding
from losswire.server.compute.native.binding import AVAILABLE
from losswire.server.compute.native.softmax import CROSS_ENTROPY
from losswire.server.compute.paths import native_form
from losswire.server.compute.work import Work
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
    exact,
    reduced,
    run,
    variants,
)
from tests.support.rounding import STATISTICAL_MARGIN, rms
from tests.support.sampling import NUMPY, convert, generator

needs_library = pytest.mark.skipif(not AVAILABLE, reason="compiled where there was no compiler")

_RECORD = builtin_registry().find("cross_entropy")
_CPU = torch.device("cpu")
_HALVES = ("bfloat16", "float16")
_DTYPES = ("float32", "float64", *_HALVES)
_PAIRS = [
    *((dtype, dtype) for dtype in _DTYPES),
    *((dtype, "float32") for dtype in _HALVES),
]
_CLASSES = [*range(1, 71), 127, 128, 129, 1000, 4099]
"""Everything up to a few vectors, and some that are longer."""


def _work(ask: Ask) -> Work:
    return validate(decode(ask.message()), _RECORD)


def _evaluate(ask: Ask) -> Outcome:
    return compute(_work(ask), _CPU)


def _ask(logits: Array, target: Array, **fields: object) -> Ask:
    ask = Ask(
        loss="cross_entropy",
        inputs={"input": logits, "target": target},
        gradients_for=("input",),
        engine="auto",
    )
    return replace(ask, **fields)  # type: ignore[arg-type]


def _corners(rows: Rows) -> Rows:
    """Write infinite, NaN and huge numbers into some rows."""
    logits = rows.logits.copy()
    for row, value in enumerate((np.inf, -np.inf, np.nan, 1e-42, -0.0, 6e4)):
        logits[3 + row, row % logits.shape[1]] = value
    logits[9] = -np.inf
    target = rows.target.copy()
    target[3] = IGNORED
    return replace(rows, logits=logits, target=target)


def test_the_library_is_here_where_it_is_required() -> None:
    """A run that requires it does not pass by leaving its tests out."""
    assert AVAILABLE or os.environ.get("LOSSWIRE_REQUIRE_NATIVE", "0") == "0"


@needs_library
@pytest.mark.parametrize(("dtype", "gradient_dtype"), _PAIRS)
def test_registers_of_all_widths_give_the_same_bits(dtype: str, gradient_dtype: str) -> None:
    """Values, gradients, factors and the sum, with corners, for every number of classes."""
    rng = generator("widths", dtype, gradient_dtype)
    for classes in _CLASSES:
        drawn = draw_rows(rng, 10, classes, dtype, gradient_dtype=gradient_dtype)
        for rows in variants(rng, _corners(drawn)):
            first, *others = [run(rows, width) for width in WIDTHS]
            for other in others:
                assert all(map(same_bits, other.arrays, first.arrays)), (classes, rows)
                np.testing.assert_equal(other.total, first.total)


@needs_library
@pytest.mark.parametrize(("dtype", "gradient_dtype"), _PAIRS)
def test_a_row_has_its_bits_beside_any_rows_at_any_address(dtype: str, gradient_dtype: str) -> None:
    """Alone or among others, and 1 to 15 bytes beside where a vector would begin."""
    rng = generator("company", dtype, gradient_dtype)
    for classes in (1, 5, 16, 31, 70, 129):
        drawn = draw_rows(rng, 10, classes, dtype, gradient_dtype=gradient_dtype)
        for rows in variants(rng, _corners(drawn)):
            together = run(rows)
            for row in range(10):
                one = rows.part(slice(row, row + 1))
                offset = 1 + (row + classes) % 15
                place = Guarded(one.logits.shape, one.logits.dtype, offset)
                place.array[...] = one.logits
                alone = run(replace(one, logits=place.array), offset=offset)
                assert same_bits(alone.values, together.values[row : row + 1])
                assert same_bits(alone.gradient, together.gradient[row : row + 1])
                assert same_bits(alone.factors, together.factors[:, row : row + 1])


@needs_library
@pytest.mark.parametrize(("dtype", "gradient_dtype"), _PAIRS)
def test_all_numbers_of_classes_follow_the_formula(dtype: str, gradient_dtype: str) -> None:
    """Within a few units in the last place, and nothing is written beside the gradient."""
    rng = generator("formula", dtype, gradient_dtype)
    own = 8 * epsilon("float64" if dtype == "float64" else "float32")
    slack = own + (epsilon(gradient_dtype) if gradient_dtype in _HALVES else 0.0)
    for classes in _CLASSES:
        drawn = draw_rows(rng, 1 + classes % 5, classes, dtype, gradient_dtype=gradient_dtype)
        for rows in variants(rng, drawn):
            found = run(rows)
            values, gradient = exact(rows)
            np.testing.assert_allclose(found.values, values, own, own * 10)
            np.testing.assert_allclose(found.gradient.astype(np.float64), gradient, slack, slack)
            assert found.total == pytest.approx(found.values.sum(dtype=np.float64), rel=1e-14)
            lse, scale, tail = found.factors
            rebuilt = np.exp(rows.logits.astype(np.float64) - lse[:, None] - tail[:, None])
            kept = np.isfinite(lse)
            np.testing.assert_allclose(rebuilt[kept].sum(1), 1.0, 2e-7)
            assert not scale[~kept].any()


@needs_library
@pytest.mark.parametrize("dtype", _DTYPES)
@pytest.mark.parametrize("spread", [0.1, 3.0, 50.0])
def test_rows_err_no_more_than_torch(dtype: str, spread: float) -> None:
    """Values and gradients, in root-mean-square error, flat rows and peaked ones."""
    kind = np.longdouble if dtype == "float64" else np.float64
    if np.finfo(kind).eps >= epsilon(dtype):
        pytest.skip("nothing wider is at hand")
    rng = generator("error", dtype)
    drawn = draw_rows(rng, 3001, 37, dtype)
    drawn = replace(drawn, logits=convert(rng.standard_normal((3001, 37)) * spread, dtype))
    for rows in list(variants(rng, drawn))[:3]:
        weight = {} if rows.weight is None else {"weight": convert(rows.weight, dtype)}
        ask = _ask(
            rows.logits,
            rows.target,
            inputs={"input": rows.logits, "target": rows.target, **weight},
            options={"label_smoothing": rows.smoothing},
            reduction=Reduction.NONE,
            grad_output=rows.coefficients.astype(rows.dtype),
            gradient_dtype="float32" if dtype in _HALVES else None,
        )
        rounded = replace(
            rows,
            coefficients=rows.coefficients.astype(rows.dtype),
            weight=weight["weight"].astype(rows.dtype) if weight else None,
        )
        values, gradient = exact(rounded, kind)
        native, plain = _evaluate(ask), _evaluate(without_limits(replace(ask, engine="autograd")))
        assert (native.engine, plain.engine) == ("closed_form", "autograd")
        assert rms(native.loss, values) <= rms(plain.loss, values) * STATISTICAL_MARGIN
        errors = [rms(each.gradients["input"], gradient) for each in (native, plain)]
        assert errors[0] <= errors[1] * STATISTICAL_MARGIN


@needs_library
@pytest.mark.parametrize("dtype", _HALVES)
@pytest.mark.parametrize("width", WIDTHS)
def test_types_of_16_bits_are_read_and_rounded_as_numpy_does(dtype: str, width: int) -> None:
    """All of them as logits; gradients halfway between two, too small, too large and NaN."""
    kind = NUMPY[dtype]
    every = np.arange(1 << 16, dtype=np.uint16).view(kind)
    bits = np.random.default_rng(3).integers(0, 1 << 32, 1 << 16, dtype=np.uint32)
    with np.errstate(all="ignore"):
        logits = every.astype(np.float64)
        near = every.astype(np.float32).view(np.uint32)
        near = np.concatenate([bits, near + 0xFFF, near + 0x1000, near + 0x8000]).astype(np.uint32)
        wanted = near.view(np.float32)
        expected = wanted.astype(kind)
        # Two classes that are as probable share the coefficient; NaN keeps its bits on the way.
        coefficients = wanted.astype(np.float64) * 2

    rows = Rows(logits=every[:, None], target=np.zeros(1 << 16, int), coefficients=np.ones(1 << 16))
    finite = np.isfinite(logits)
    found = run(rows, width)
    assert np.array_equal(found.factors[0][finite], logits[finite])
    assert np.isnan(found.values[~finite]).all()

    rows = Rows(
        logits=np.zeros((len(wanted), 2), kind),
        target=np.ones(len(wanted), int),
        coefficients=coefficients,
    )
    assert same_bits(run(rows, width).gradient[:, 0], expected)


def _cells(dtype: str) -> Iterator[Ask]:
    """Evaluations with corners, in every way to ask for them."""
    rng = generator("corners", dtype)
    rows = _corners(draw_rows(rng, 12, 9, dtype))
    weight = convert(rng.uniform(0.5, 2.0, 9), dtype)
    sample_weight = rng.uniform(0.5, 2.0, 12).astype(np.float32)
    sample_weight[4] = 0
    for smoothing in (0.0, 0.2):
        for extra in ({}, {"weight": weight}):
            ask = _ask(
                rows.logits,
                rows.target,
                inputs={"input": rows.logits, "target": rows.target, **extra},
                options={"label_smoothing": smoothing},
            )
            yield from reduced(ask, _RECORD, sample_weight, (12,), rng)


@needs_library
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
        assert gradient.dtype == expected.dtype
        slack = 1e-6 + 2 * epsilon(gradient.dtype.name)
        for one, other in ((found.loss, torchs.loss), (gradient, expected)):
            assert one.dtype == other.dtype
            np.testing.assert_allclose(
                one.astype(np.float64), other.astype(np.float64), slack, slack
            )


@needs_library
def test_numbers_too_large_for_their_dtype_are_infinite() -> None:
    """A sum of float32 values, and gradients in float16: no error, and no warning."""
    ask = _ask(
        np.array([[0.0, 3e38], [3e38, 0.0]], np.float32),
        np.array([0, 1]),
        reduction=Reduction.SUM,
        grad_output=np.array(1e6, np.float32),
        gradient_dtype="float16",
    )
    for one in (ask, replace(ask, sample_weight=np.full(2, 1e308))):
        found, torchs = _evaluate(one), _evaluate(without_limits(replace(one, engine="autograd")))
        assert np.isposinf(found.loss)
        assert found.loss == torchs.loss
        assert np.isinf(found.gradients["input"]).any()
        assert same_bits(found.gradients["input"], torchs.gradients["input"])


@needs_library
def test_weights_of_other_classes_tell_only_with_smoothing() -> None:
    """Without it, a class that is no row's target may have any weight, as in torch."""
    inputs = {
        "input": np.zeros((2, 3), np.float32),
        "target": np.array([0, 1]),
        "weight": np.array([1.0, 2.0, np.inf], np.float32),
    }
    ask = _ask(inputs["input"], inputs["target"], inputs=inputs)
    found, torchs = _evaluate(ask), _evaluate(without_limits(replace(ask, engine="autograd")))
    assert np.isfinite(found.gradients["input"]).all()
    np.testing.assert_allclose(found.gradients["input"], torchs.gradients["input"], 1e-6)


@needs_library
@pytest.mark.parametrize("dtype", _DTYPES)
def test_the_loss_alone_has_the_same_bits(dtype: str) -> None:
    """With a gradient, with factors or without either, and with values or their sum only."""
    rng = generator("alone", dtype)
    for rows in variants(rng, _corners(draw_rows(rng, 10, 41, dtype))):
        found = run(rows)
        values = np.empty_like(found.values)
        total = CROSS_ENTROPY.rows(block_of(rows, None, values))
        assert same_bits(values, found.values)
        totals = [total, CROSS_ENTROPY.rows(block_of(rows, None))]
        np.testing.assert_equal(totals, [found.total] * 2)


@needs_library
@pytest.mark.parametrize("target", [7, 8, -1, -101, 2**62, -(2**63)])
@pytest.mark.parametrize("row", [0, 2, 4])
def test_a_wrong_class_is_an_error_and_writes_nothing_of_its_row(target: int, row: int) -> None:
    """Validation refuses it long before; who gets past that still reaches no other memory."""
    rows = draw_rows(generator("wrong"), 5, 7, "float32")
    rows.target[row] = target
    gradient = Guarded((5, 7), np.float32)
    with pytest.raises(IndexError):
        CROSS_ENTROPY.rows(block_of(rows, gradient.array))
    assert gradient.intact
    part = Guarded((1, 7), np.float32)
    with pytest.raises(IndexError):
        CROSS_ENTROPY.rows(block_of(rows.part(slice(row, row + 1)), part.array))
    assert part.untouched


@needs_library
def test_types_that_do_not_go_together_are_an_error() -> None:
    """Nothing is written then."""
    rows = draw_rows(generator("types"), 5, 7, "float32")
    for dtype in (np.float64, np.int32):
        gradient = Guarded((5, 7), dtype)
        with pytest.raises(TypeError):
            CROSS_ENTROPY.rows(block_of(rows, gradient.array))
        assert gradient.untouched


def test_torchs_own_path_is_never_replaced() -> None:
    """ENGINE_AUTOGRAD, half precision and classes of several axes go by torch."""
    logits, target = np.zeros((4, 3), np.float32), np.arange(4) % 3
    ask = _ask(logits, target)
    assert (native_form(_work(ask)) is not None) is AVAILABLE
    others = [
        replace(ask, engine="autograd"),
        replace(ask, compute_dtype="float64"),
        replace(
            ask,
            inputs={"input": logits.astype(np.float16), "target": target},
            compute_dtype="float16",
        ),
        replace(
            ask,
            inputs={"input": np.zeros((4, 3, 2), np.float32), "target": np.zeros((4, 2), np.int64)},
        ),
        replace(ask, inputs={"input": np.zeros(3, np.float32), "target": np.array(1)}),
        replace(
            ask, inputs={"input": np.zeros((0, 3), np.float32), "target": np.zeros(0, np.int64)}
        ),
    ]
    assert [native_form(_work(each)) for each in others] == [None] * len(others)


@pytest.mark.parametrize(
    ("rows", "path"), [(4, "autograd"), (3000, "autograd"), (20000, "closed_form")]
)
@pytest.mark.usefixtures("by_torch")
def test_without_the_library_torch_computes_and_the_receipt_says_how(rows: int, path: str) -> None:
    """Large evaluations by closed forms in torch, others by autograd."""
    rng = generator("without")
    ask = _ask(rng.standard_normal((rows, 10)).astype(np.float32), rng.integers(0, 10, rows))
    assert native_form(_work(ask)) is None
    found, torchs = _evaluate(ask), _evaluate(without_limits(replace(ask, engine="autograd")))
    assert (found.engine, torchs.engine) == (path, "autograd")
    np.testing.assert_allclose(found.loss, torchs.loss, 1e-6)
    np.testing.assert_allclose(found.gradients["input"], torchs.gradients["input"], 1e-5, 1e-9)


def test_a_missing_library_is_not_called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Loading returns none, and a call raises."""
    assert binding.load(ctypes.CDLL, tmp_path / "librows.so") is None
    monkeypatch.setattr(binding, "RELEASING", None)
    with pytest.raises(RuntimeError, match="no native rows"):
        binding.compute(binding.SoftmaxRows(), small=False)
