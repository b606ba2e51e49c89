"""Central differences of a loss that a server computes."""

import argparse
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from losswire.client import Evaluation, EvaluationResult
from losswire.wire import OptionScalar

Array = npt.NDArray[Any]

_COMPOSED = {("ctc_loss", "log_probs")}
"""Inputs whose gradient is right only once it was passed through the log_softmax before them."""

_ROUNDINGS = 16
"""How many roundings of the loss to allow for; they grow by division by the step."""

Evaluate = Callable[[Iterator[Evaluation], str, int], Iterator[EvaluationResult]]
"""Evaluates points in order: (points, their label, their number)."""


@dataclass(slots=True)
class Objective:
    """A function of the inputs, with one value: the loss, times `grad_output` and added up."""

    loss: str
    inputs: Mapping[str, Array]
    options: Mapping[str, OptionScalar]
    fields: Mapping[str, Any]
    grad_output: Array | None = None

    def at(self, moved: Mapping[str, Array]) -> Evaluation:
        """Return the evaluation at a point: the inputs, some of them replaced."""
        inputs = {
            name: log_softmax(array) if (self.loss, name) in _COMPOSED else array
            for name, array in {**self.inputs, **moved}.items()
        }
        return Evaluation(self.loss, inputs, self.options, **self.fields)

    def with_gradients(self, names: Sequence[str]) -> Evaluation:
        """Return the evaluation at the inputs, with gradients."""
        point = self.at({})
        return Evaluation(
            self.loss,
            point.inputs,
            self.options,
            gradients=list(names),
            grad_output=self.grad_output,
            **self.fields,
        )

    def gradient(self, name: str, answer: Array) -> Array:
        """Convert the server's gradient to that of this function."""
        if (self.loss, name) not in _COMPOSED:
            return answer
        probabilities = np.exp(log_softmax(self.inputs[name]))
        composed: Array = answer - probabilities * answer.sum(axis=-1, keepdims=True)
        return composed


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """A gradient compared with differences, at the element where they differ most."""

    name: str
    composed: bool
    elements: int
    checked: int
    difference: float
    relative: float
    """The difference over the largest gradient of the input; 0 where both are 0."""
    allowed: float
    where: tuple[int, ...]
    server: float
    numeric: float

    @property
    def passed(self) -> bool:
        """Whether the largest difference is allowed; NaN never is."""
        return bool(self.difference <= self.allowed)

    def facts(self) -> dict[str, object]:
        """Return all fields, for JSON."""
        return {
            "name": self.name,
            "passed": self.passed,
            "through_log_softmax": self.composed,
            "elements": self.elements,
            "checked": self.checked,
            "largest_difference": self.difference,
            "relative_difference": self.relative,
            "allowed_difference": self.allowed,
            "index": list(self.where),
            "server": self.server,
            "differences": self.numeric,
        }


def log_softmax(array: Array) -> Array:
    """Return the logarithm of softmax along the last axis."""
    shifted = array - array.max(axis=-1, keepdims=True)
    normalized: Array = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return normalized


def compare(
    objective: Objective,
    name: str,
    answer: Array,
    evaluate: Evaluate,
    settings: argparse.Namespace,
) -> Comparison:
    """Compare the gradient of one input with differences at some or all of its elements."""
    gradient = objective.gradient(name, answer).reshape(-1)
    places = _places(gradient.size, settings.elements)
    numeric, noise = _differences(objective, name, places, evaluate, settings.step)
    difference = np.abs(gradient[places] - numeric)
    # NaN counts as the largest difference of all.
    worst = int(np.argmax(np.where(np.isnan(difference), np.inf, difference))) if len(places) else 0
    scale = max((float(np.abs(each).max()) for each in (gradient, numeric) if each.size), default=0)
    largest = float(difference[worst]) if len(places) else 0.0
    where = np.unravel_index(places[worst], answer.shape) if len(places) else ()
    return Comparison(
        name=name,
        composed=(objective.loss, name) in _COMPOSED,
        elements=gradient.size,
        checked=len(places),
        difference=largest,
        relative=largest / scale if scale else largest,
        allowed=settings.tolerance * scale + noise,
        where=tuple(map(int, where)),
        server=float(gradient[places[worst]]) if len(places) else 0.0,
        numeric=float(numeric[worst]) if len(places) else 0.0,
    )


def _places(size: int, most: int) -> npt.NDArray[np.int64]:
    """Choose the elements to check, the same ones for the same size."""
    if most <= 0 or size <= most:
        return np.arange(size)
    return np.sort(np.random.default_rng(0).choice(size, most, replace=False))


def _differences(
    objective: Objective,
    name: str,
    places: npt.NDArray[np.int64],
    evaluate: Evaluate,
    step: float,
) -> tuple[Array, float]:
    """Return the central difference at each place, and the error that rounding may cause."""
    array = objective.inputs[name]
    flat = array.reshape(-1)
    steps = step * np.maximum(1.0, np.abs(flat[places]))
    above, below = flat[places] + steps, flat[places] - steps

    def points() -> Iterator[Evaluation]:
        for place, *pair in zip(places, above, below, strict=True):
            for value in pair:
                moved = flat.copy()
                moved[place] = value
                yield objective.at({name: moved.reshape(array.shape)})

    outcomes = evaluate(points(), name, 2 * len(places))
    weights = 1.0 if objective.grad_output is None else objective.grad_output
    numeric = np.zeros(len(places))
    noise = 0.0
    with np.errstate(invalid="ignore"):
        for i, (high, low) in enumerate(zip(outcomes, outcomes, strict=True)):
            change = weights * (high.loss - low.loss)
            # The steps really taken, which rounding makes a little different.
            numeric[i] = change.sum() / (above[i] - below[i])
            moved = np.where(change == 0, 0.0, weights * high.loss)
            size = float(np.abs(moved).sum()) / (above[i] - below[i])
            noise = max(noise, size) if math.isfinite(size) else noise
    return numeric, _ROUNDINGS * float(np.finfo(np.float64).eps) * noise
