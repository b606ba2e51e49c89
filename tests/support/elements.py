"""Calls of the native losses of single elements, and their results by the formula."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from losswire.server.catalogue.closed_form import RowBlock
from losswire.server.losses import builtin_registry
from tests.support.caller import Array
from tests.support.native import Guarded
from tests.support.sampling import NUMPY, convert

Kind = type[np.floating[Any]]


@dataclass(frozen=True, kw_only=True)
class Elements:
    """Some elements, and how their loss is asked for."""

    loss: str
    inputs: Mapping[str, Array]
    coefficients: Array
    """One for each, or one for all (shape ())."""
    options: Mapping[str, Any] = field(default_factory=dict)
    removed: Array | None = None
    gradient_dtype: str | None = None

    @property
    def dtype(self) -> npt.DTypeLike:
        """The type computed in."""
        return np.float64 if self.inputs["input"].dtype == np.float64 else np.float32

    @property
    def gradients(self) -> tuple[str, ...]:
        """The inputs that native code differentiates."""
        return builtin_registry().find(self.loss).closed_forms["elementwise"].gradients

    def part(self, rows: slice) -> "Elements":
        """Return some of the elements; a weight that repeats stays whole."""
        count = len(self.inputs["input"])
        return replace(
            self,
            inputs={
                name: array[rows] if len(array) == count else array
                for name, array in self.inputs.items()
            },
            coefficients=self.coefficients[rows] if self.coefficients.ndim else self.coefficients,
            removed=None if self.removed is None else self.removed[rows],
        )


@dataclass(frozen=True, kw_only=True)
class Found:
    """The results of a call."""

    total: float
    values: Array
    gradients: Mapping[str, Array]

    @property
    def arrays(self) -> tuple[Array, ...]:
        """All that there is of each element."""
        return self.values, *self.gradients.values()


OPTIONS: Mapping[str, tuple[Mapping[str, float | bool], ...]] = {
    "mse_loss": ({},),
    "l1_loss": ({},),
    "smooth_l1_loss": ({"beta": 1.0}, {"beta": 0.3}, {"beta": 0.0}),
    "huber_loss": ({"delta": 1.0}, {"delta": 0.7}),
    "binary_cross_entropy_with_logits": ({},),
    "binary_cross_entropy": ({},),
    "kl_div": ({"log_target": False}, {"log_target": True}),
}
"""The losses of single elements, each with some options."""

PROBABILITIES = ("binary_cross_entropy_with_logits", "binary_cross_entropy", "kl_div")
"""The losses whose targets are probabilities."""

_WEIGHTS: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "mse_loss": ((), ("weight",)),
    "l1_loss": ((), ("weight",)),
    "smooth_l1_loss": ((),),
    "huber_loss": ((), ("weight",)),
    "binary_cross_entropy_with_logits": (
        (),
        ("weight",),
        ("pos_weight",),
        ("weight", "pos_weight"),
    ),
    "binary_cross_entropy": ((), ("weight",), ("weight",)),
    "kl_div": ((),),
}
"""The weights that each may have."""


def draw(
    rng: np.random.Generator, loss: str, count: int, dtype: str, gradient_dtype: str | None = None
) -> Iterator[Elements]:
    """Draw elements in every variant of the options and weights; every other one has removed ones.

    A weight that may repeat does so every third time.
    """
    position = 0
    for options in OPTIONS[loss]:
        for weights in _WEIGHTS[loss]:
            inputs = _numbers(rng, loss, options, count)
            for name in weights:
                repeats = loss.startswith("binary") and position % 3 == 2 and count % 3 == 0
                inputs[name] = rng.uniform(0.5, 2.0, count // 3 if repeats else count)
            removed = np.zeros(count, np.uint8)
            removed[1::3] = 1
            yield Elements(
                loss=loss,
                inputs={name: convert(array, dtype) for name, array in inputs.items()},
                coefficients=np.asarray(rng.standard_normal(count if position % 2 else ())),
                options=options,
                removed=removed if position % 2 else None,
                gradient_dtype=gradient_dtype,
            )
            position += 1


def _numbers(
    rng: np.random.Generator, loss: str, options: Mapping[str, Any], count: int
) -> dict[str, Array]:
    """Draw inputs and targets that a loss is made for."""
    given = rng.standard_normal(count) * 3
    target = rng.random(count) if loss in PROBABILITIES else rng.standard_normal(count)
    if loss == "binary_cross_entropy":
        given = np.where(rng.random(count) < 0.5, rng.random(count), 10.0 ** (-abs(given) * 4))
    if loss == "kl_div":
        given = -abs(given)
        target = -abs(rng.standard_normal(count)) if options["log_target"] else target
    return {"input": given, "target": target}


def spoilt(elements: Elements) -> Elements:
    """Write infinite, NaN and huge numbers into some elements."""
    specials = np.array([np.inf, -np.inf, np.nan, 1e-42, -0.0, 6e4, 0.0])
    if elements.loss == "binary_cross_entropy":
        specials = np.array([1.0, 0.0, -0.0, 1e-42, 1e-44, 1 - 1e-7, 1e-30])
    inputs = {name: array.copy() for name, array in elements.inputs.items()}
    for step, name in enumerate(("input", "target")):
        places = inputs[name][step :: step + 2][: len(specials)]
        places[...] = specials[: len(places)].astype(places.dtype)
    return replace(elements, inputs=inputs)


def run(elements: Elements, width: int = 64, offset: int = 0) -> Found:
    """Compute all results, written `offset` bytes after aligned addresses."""
    given = elements.inputs["input"]
    kind = NUMPY[elements.gradient_dtype or given.dtype.name]
    places = {name: Guarded(given.shape, kind, offset) for name in elements.gradients}
    values = Guarded(given.shape, elements.dtype, offset)
    block = block_of(elements, {name: place.array for name, place in places.items()}, values.array)
    total = rows_of(elements.loss)(block, width)
    assert values.intact
    assert all(place.intact for place in places.values())
    return Found(
        total=total,
        values=values.array.copy(),
        gradients={name: place.array.copy() for name, place in places.items()},
    )


def rows_of(loss: str) -> Callable[..., float]:
    """Return the function that computes a loss, by registers of a width."""
    native = builtin_registry().find(loss).closed_forms["elementwise"].native
    assert native is not None
    return native.rows


def block_of(
    elements: Elements, gradients: Mapping[str, Array], values: Array | None = None
) -> RowBlock:
    """Return the block that the driver would make."""
    return RowBlock(
        inputs=elements.inputs,
        options=elements.options,
        coefficients=elements.coefficients if gradients else None,
        removed=elements.removed,
        gradients=gradients,
        factors=None,
        values=values,
        small=False,
    )


def _mse(x: Array, y: Array, options: Mapping[str, Any]) -> tuple[Array, Array]:
    del options
    return (x - y) ** 2, 2 * (x - y)


def _l1(x: Array, y: Array, options: Mapping[str, Any]) -> tuple[Array, Array]:
    del options
    return abs(x - y), np.sign(x - y)


def _smooth_l1(x: Array, y: Array, options: Mapping[str, Any]) -> tuple[Array, Array]:
    beta = options["beta"]
    if not beta:
        return _l1(x, y, options)
    size = abs(x - y)
    near = size < beta
    values = np.where(near, size**2 / (2 * beta), size - beta / 2)
    return values, np.clip((x - y) / beta, -1, 1)


def _huber(x: Array, y: Array, options: Mapping[str, Any]) -> tuple[Array, Array]:
    delta = options["delta"]
    size = abs(x - y)
    values = np.where(size <= delta, size**2 / 2, delta * (size - delta / 2))
    return values, np.clip(x - y, -delta, delta)


def _bce_with_logits(x: Array, y: Array, positive: Array) -> tuple[Array, Array]:
    power = np.exp(-abs(x))
    above, below = np.log1p(power) + np.maximum(-x, 0), np.log1p(power) + np.maximum(x, 0)
    sigmoid = np.where(x >= 0, 1 / (1 + power), power / (1 + power))
    opposite = np.where(x >= 0, power / (1 + power), 1 / (1 + power))
    return (
        positive * y * above + (1 - y) * below,
        (1 - y) * sigmoid - positive * y * opposite,
    )


def _bce(x: Array, y: Array, options: Mapping[str, Any]) -> tuple[Array, Array]:
    del options
    with np.errstate(divide="ignore"):
        above, below = np.maximum(np.log(x), -100), np.maximum(np.log1p(-x), -100)
    return -(y * above + (1 - y) * below), (x - y) / np.maximum(x * (1 - x), 1e-12)


def _kl_div(x: Array, y: Array, options: Mapping[str, Any]) -> tuple[Array, Array]:
    if options["log_target"]:
        return np.exp(y) * (y - x), -np.exp(y)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(y == 0, -y * x, y * (np.log(y) - x)), -y


_FORMULAS: Mapping[str, Callable[[Array, Array, Mapping[str, Any]], tuple[Array, Array]]] = {
    "mse_loss": _mse,
    "l1_loss": _l1,
    "smooth_l1_loss": _smooth_l1,
    "huber_loss": _huber,
    "binary_cross_entropy": _bce,
    "kl_div": _kl_div,
}


def exact(elements: Elements, kind: Kind = np.float64) -> tuple[Array, dict[str, Array]]:
    """Return values and gradients by the formula, in another dtype than the compute dtype."""
    count = len(elements.inputs["input"])
    inputs = {name: np.resize(array.astype(kind), count) for name, array in elements.inputs.items()}
    x, y, one = inputs["input"], inputs["target"], np.ones(count, kind)
    if elements.loss in _FORMULAS:
        values, derivatives = _FORMULAS[elements.loss](x, y, elements.options)
    else:
        values, derivatives = _bce_with_logits(x, y, inputs.get("pos_weight", one))
    weight = inputs.get("weight", one)
    kept = one if elements.removed is None else 1 - elements.removed.astype(kind)
    derivatives = derivatives * weight * elements.coefficients.astype(kind) * kept
    gradients = {"input": derivatives, "target": -derivatives}
    return values * weight * kept, {name: gradients[name] for name in elements.gradients}
