"""The numbers that are sent, and the right answers, in float64 numpy."""

from dataclasses import dataclass
from functools import cache
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt

from benchmarks.worker import Spec, WrongResultError

Array = npt.NDArray[Any]

_BLOCK_ROWS = 256
_SEED = 20240607

TOLERANCES = {"float32": 1e-5, "bfloat16": 2.0**-8}
"""The allowed error of a gradient, relative to its largest number, by the type of the logits."""

_LOSS_TOLERANCE = 1e-5
"""The allowed error of a loss, relative to it."""


@cache
def logits(rows: int, columns: int, dtype: str = "float32") -> Array:
    """Make the model's outputs (rows, columns)."""
    made = np.random.default_rng(_SEED).standard_normal((rows, columns), dtype=np.float32)
    return made.astype(ml_dtypes.bfloat16) if dtype == "bfloat16" else made


@cache
def classes(rows: int, columns: int) -> npt.NDArray[np.int64]:
    """Make class indices (rows)."""
    return np.random.default_rng(_SEED + 1).integers(0, columns, rows, dtype=np.int64)


@cache
def numbers(rows: int, columns: int) -> npt.NDArray[np.float32]:
    """Make targets of a regression (rows, columns)."""
    return np.random.default_rng(_SEED + 2).standard_normal((rows, columns), dtype=np.float32)


def target(loss: str, rows: int, columns: int) -> Array:
    """Return the targets of a loss."""
    return classes(rows, columns) if loss == "cross_entropy" else numbers(rows, columns)


@dataclass(frozen=True, slots=True)
class Errors:
    """How far a result is from the right one; each relative."""

    loss: float
    gradient: float | None


def check(spec: Spec, loss: float, gradient: Array | None) -> str:
    """Compare a mean loss and its gradient with float64; return the errors, or raise."""
    return _judge(_errors(spec, loss, gradient), TOLERANCES[spec.dtype])


def _judge(errors: Errors, allowed: float) -> str:
    text = f"loss within {errors.loss:.0e}"
    if errors.gradient is not None:
        text += f", gradient {errors.gradient:.0e}"
    # Written so that NaN is wrong.
    if errors.loss <= _LOSS_TOLERANCE and (errors.gradient or 0.0) <= allowed:
        return text
    raise WrongResultError(text)


def _errors(spec: Spec, loss: float, gradient: Array | None) -> Errors:
    x = logits(spec.rows, spec.columns, spec.dtype)
    t = target(spec.loss, spec.rows, spec.columns)
    divisor = len(x) if spec.loss == "cross_entropy" else x.size
    if gradient is not None and gradient.shape != x.shape:
        message = f"the gradient has the shape {gradient.shape} instead of {x.shape}"
        raise WrongResultError(message)
    total, worst, largest = 0.0, 0.0, 0.0
    for start in range(0, spec.rows, _BLOCK_ROWS):
        part = slice(start, start + _BLOCK_ROWS)
        values, expected = _REFERENCES[spec.loss](x[part].astype(np.float64), t[part])
        total += values
        if gradient is not None:
            expected /= divisor
            difference = np.abs(gradient[part].astype(np.float64) - expected).max()
            worst = max(worst, np.inf if np.isnan(difference) else difference)
            largest = max(largest, np.abs(expected).max())
    right = total / divisor
    return Errors(
        abs(loss - right) / abs(right), None if gradient is None else float(worst / largest)
    )


@cache
def head(classes: int, features: int) -> Array:
    """Make a projection head (classes, features), whose logits are of the size of 1."""
    return logits(classes, features) / np.float32(features**0.5)


def check_projected(spec: Spec, loss: float, gradient: Array) -> str:
    """Compare a `linear_cross_entropy` and the gradient of its features, likewise."""
    weight = head(spec.classes, spec.columns).astype(np.float64)
    x = logits(spec.rows, spec.columns).astype(np.float64) @ weight.T
    total, expected = _cross_entropy(x, classes(spec.rows, spec.classes))
    right, expected = total / spec.rows, expected @ weight / spec.rows
    worst = np.abs(gradient - expected).max() / np.abs(expected).max()
    errors = Errors(abs(loss - right) / abs(right), float(worst))
    return _judge(errors, TOLERANCES[spec.dtype])


def _cross_entropy(x: Array, t: Array) -> tuple[float, Array]:
    """Return the sum of the values of some rows, and its gradient."""
    at = np.arange(len(x)), t
    shifted = x - x.max(axis=1, keepdims=True)
    exponentials = np.exp(shifted)
    sums = exponentials.sum(axis=1, keepdims=True)
    gradient = exponentials / sums
    gradient[at] -= 1
    return float((np.log(sums[:, 0]) - shifted[at]).sum()), gradient


def _mse(x: Array, t: Array) -> tuple[float, Array]:
    difference = x - t
    return float((difference * difference).sum()), 2 * difference


_REFERENCES = {"cross_entropy": _cross_entropy, "mse_loss": _mse}
