"""What is measured: the losses that have a closed form, with their inputs and options."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import torch
import torch.nn.functional as F

from benchmarks.accuracy import formulas
from benchmarks.accuracy.formulas import Array, Formula

Draw = Callable[[np.random.Generator, int, str], dict[str, Array]]
"""Returns inputs of about so many elements, in a distribution."""

DISTRIBUTIONS: Final = ("normal", "large", "one-hot", "tiny")
"""Standard normal logits; logits of +-30; targets and predictions near one-hot; tiny numbers."""

_NUMBERS: Final = {"none": 0, "mean": 1, "sum": 2}
"""torch's numbers for the reductions."""

_LIKELY: Final = 0.9
"""The share of one-hot rows whose class is the likely one."""

_CLASSES: Final = 300
"""The most classes of a row; fewer elements are one row."""


@dataclass(frozen=True, kw_only=True)
class Form:
    """One closed form with the inputs and options that it is measured with."""

    name: str
    loss: str
    draw: Draw
    formula: Formula
    options: Mapping[str, Any] = field(default_factory=dict)
    weights: tuple[str, ...] = ()
    """Inputs of uniform factors: for each element, or over classes for each class."""
    gradients: tuple[str, ...] = ("input",)

    def inputs(
        self, rng: np.random.Generator, count: int, distribution: str, dtype: str
    ) -> dict[str, torch.Tensor]:
        """Draw inputs, rounded to a floating type."""
        drawn = self.draw(rng, count, distribution)
        shape = drawn["input"].shape
        over = shape[1:] if self.loss in ("cross_entropy", "nll_loss") else shape
        for name in self.weights:
            drawn[name] = rng.uniform(0.5, 2.0, over)
        wanted: torch.dtype = getattr(torch, dtype)
        tensors = {name: torch.from_numpy(array) for name, array in drawn.items()}
        return {
            name: tensor.to(wanted) if tensor.is_floating_point() else tensor
            for name, tensor in tensors.items()
        }

    def by_torch(self, inputs: Mapping[str, torch.Tensor], reduction: str) -> torch.Tensor:
        """Compute it by torch's function."""
        function: Any = getattr(F, self.loss)
        chosen: Any = reduction
        if self.loss == "kl_div":
            # F.kl_div warns of the name of the mean before it calls this.
            function, chosen = torch.kl_div, _NUMBERS[reduction]
        found: torch.Tensor = function(**inputs, **self.options, reduction=chosen)
        return found


def _sigmoid(logits: Array) -> Array:
    found: Array = np.exp(-np.logaddexp(0, -logits))
    return found


def _log_softmax(logits: Array) -> Array:
    below: Array = logits - logits.max(1, keepdims=True)
    found: Array = below - np.log(np.exp(below).sum(1, keepdims=True))
    return found


def _logits(rng: np.random.Generator, shape: tuple[int, ...], distribution: str) -> Array:
    """Draw logits."""
    drawn: Array = rng.standard_normal(shape)
    match distribution:
        case "large":
            return rng.uniform(-30, 30, shape)
        case "one-hot":
            drawn[..., 0] += 12
        case "tiny":
            return drawn * 10 ** rng.uniform(-6, 0, shape)
    return drawn


def _real(rng: np.random.Generator, count: int, distribution: str) -> dict[str, Array]:
    target: Array = rng.standard_normal(count)
    match distribution:
        case "large":
            return {"input": rng.uniform(-30, 30, count), "target": target}
        case "one-hot":  # predictions near their targets
            return {"input": target + 1e-3 * rng.standard_normal(count), "target": target}
        case "tiny":
            scale = 10 ** rng.uniform(-6, 0, count)
            return {"input": rng.standard_normal(count) * scale, "target": target * scale}
    return {"input": rng.standard_normal(count), "target": target}


def _answers(rng: np.random.Generator, count: int, distribution: str) -> Array:
    """Draw the probability of each answer yes."""
    if distribution == "one-hot":
        return np.round(rng.random(count))
    if distribution == "tiny":
        return 10 ** rng.uniform(-8, 0, count)
    return rng.random(count)


def _yes_no(rng: np.random.Generator, count: int, distribution: str) -> dict[str, Array]:
    target = _answers(rng, count, distribution)
    given: Array = rng.standard_normal(count)
    match distribution:
        case "large":
            given = rng.uniform(-30, 30, count)
        case "one-hot":
            given += np.where(target > 0, 8, -8)
        case "tiny":
            given -= 8
    return {"input": given, "target": target}


def _probabilities(rng: np.random.Generator, count: int, distribution: str) -> dict[str, Array]:
    drawn = _yes_no(rng, count, distribution)
    return {"input": _sigmoid(drawn["input"]), "target": drawn["target"]}


def _shape(count: int) -> tuple[int, int]:
    classes = min(count, _CLASSES)
    return count // classes, classes


def _indices(rng: np.random.Generator, count: int, distribution: str) -> dict[str, Array]:
    rows, classes = _shape(count)
    target = rng.integers(0, classes, rows)
    if distribution == "one-hot":
        target = np.where(rng.random(rows) < _LIKELY, 0, target)
    return {"input": _logits(rng, (rows, classes), distribution), "target": target}


def _log_indices(rng: np.random.Generator, count: int, distribution: str) -> dict[str, Array]:
    drawn = _indices(rng, count, distribution)
    return {**drawn, "input": _log_softmax(drawn["input"])}


def _shares(rng: np.random.Generator, count: int, distribution: str) -> dict[str, Array]:
    shape = _shape(count)
    target = _log_softmax(_logits(rng, shape, "large" if distribution == "tiny" else distribution))
    return {"input": _logits(rng, shape, distribution), "target": np.exp(target)}


def _distributions(rng: np.random.Generator, count: int, distribution: str) -> dict[str, Array]:
    drawn = _shares(rng, count, distribution)
    return {**drawn, "input": _log_softmax(drawn["input"])}


def _log_distributions(rng: np.random.Generator, count: int, distribution: str) -> dict[str, Array]:
    drawn = _distributions(rng, count, distribution)
    return {**drawn, "target": np.log(drawn["target"])}


_BOTH: Final = ("input", "target")
_CLASS_WEIGHT: Final = ("weight",)
_SMOOTHED: Final = {"label_smoothing": 0.1}
_PLAIN: Final = {"label_smoothing": 0.0}
_WEIGHED: Final = formulas.weighed_mean


def _cross_entropy(name: str, draw: Draw = _indices, **fields: Any) -> Form:  # noqa: ANN401 (a field's)
    fields = {"options": _PLAIN, **fields}
    return Form(
        name=name, loss="cross_entropy", draw=draw, formula=formulas.cross_entropy, **fields
    )


def _real_form(name: str, formula: Formula, **fields: Any) -> Form:  # noqa: ANN401 (a field's)
    loss = name.partition(",")[0]
    return Form(name=name, loss=loss, draw=_real, formula=formula, gradients=_BOTH, **fields)


def _logits_form(name: str, *weights: str) -> Form:
    loss = "binary_cross_entropy_with_logits"
    formula = formulas.bce_with_logits
    return Form(name=name, loss=loss, draw=_yes_no, formula=formula, weights=weights)


def _kl_div(name: str, draw: Draw, *, log_target: bool) -> Form:
    options = {"log_target": log_target}
    return Form(name=name, loss="kl_div", draw=draw, formula=formulas.kl_div, options=options)


def _bce(name: str, *weights: str) -> Form:
    loss, formula = "binary_cross_entropy", formulas.bce
    return Form(name=name, loss=loss, draw=_probabilities, formula=formula, weights=weights)


def _nll(name: str, *weights: str) -> Form:
    loss, formula = "nll_loss", formulas.nll
    return Form(name=name, loss=loss, draw=_log_indices, formula=formula, weights=weights)


FORMS: Final = (
    _real_form("mse_loss", formulas.mse),
    _real_form("mse_loss, weight", _WEIGHED(formulas.mse), weights=("weight",)),
    _real_form("l1_loss", formulas.l1),
    _real_form("l1_loss, weight", _WEIGHED(formulas.l1), weights=("weight",)),
    _real_form("smooth_l1_loss", formulas.smooth_l1, options={"beta": 0.7}),
    _real_form("huber_loss", formulas.huber, options={"delta": 0.7}),
    _real_form("huber_loss, weight", formulas.huber, options={"delta": 0.7}, weights=("weight",)),
    _bce("binary_cross_entropy"),
    _bce("binary_cross_entropy, weight", "weight"),
    _logits_form("binary_cross_entropy_with_logits"),
    _logits_form("binary_cross_entropy_with_logits, weight", "weight"),
    _logits_form("binary_cross_entropy_with_logits, pos_weight", "pos_weight"),
    _logits_form("binary_cross_entropy_with_logits, both", "weight", "pos_weight"),
    _kl_div("kl_div", _distributions, log_target=False),
    _kl_div("kl_div, log_target", _log_distributions, log_target=True),
    _cross_entropy("cross_entropy"),
    _cross_entropy("cross_entropy, weight", weights=_CLASS_WEIGHT),
    _cross_entropy("cross_entropy, smoothing", options=_SMOOTHED),
    _cross_entropy("cross_entropy, both", options=_SMOOTHED, weights=_CLASS_WEIGHT),
    _cross_entropy("cross_entropy, probabilities", _shares),
    _cross_entropy(
        "cross_entropy, probabilities, both", _shares, options=_SMOOTHED, weights=_CLASS_WEIGHT
    ),
    _nll("nll_loss"),
    _nll("nll_loss, weight", "weight"),
)
"""Every closed form."""
