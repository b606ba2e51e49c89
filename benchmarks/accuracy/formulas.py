"""The losses by their formulas, in a type wider than the one measured.

Written for exactness alone: in float64 or long double, each step errs so little that the result is
exact to all digits of float32 (float64). A formula returns the values and the derivative of each
with respect to the input; with respect to the target it is the negative, where there is one.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Inputs = Mapping[str, Array]
Options = Mapping[str, Any]


class Exact(NamedTuple):
    """The results of a formula."""

    values: Array
    derivatives: Array
    """Of the shape of the input; over classes, of the value of the element's row."""
    denominator: float
    """Of the mean."""


Formula = Callable[[Inputs, Options], Exact]


def mse(inputs: Inputs, options: Options) -> Exact:
    """Return those of mse_loss."""
    del options
    difference = inputs["input"] - inputs["target"]
    return _weighted(inputs, difference**2, 2 * difference)


def l1(inputs: Inputs, options: Options) -> Exact:
    """Return those of l1_loss."""
    del options
    difference = inputs["input"] - inputs["target"]
    return _weighted(inputs, abs(difference), np.sign(difference))


def smooth_l1(inputs: Inputs, options: Options) -> Exact:
    """Return those of smooth_l1_loss."""
    difference, beta = inputs["input"] - inputs["target"], options["beta"]
    size = abs(difference)
    values = np.where(size < beta, size**2 / (2 * beta), size - beta / 2)
    return _weighted(inputs, values, np.clip(difference / beta, -1, 1))


def huber(inputs: Inputs, options: Options) -> Exact:
    """Return those of huber_loss."""
    difference, delta = inputs["input"] - inputs["target"], options["delta"]
    size = abs(difference)
    values = np.where(size <= delta, size**2 / 2, delta * (size - delta / 2))
    return _weighted(inputs, values, np.clip(difference, -delta, delta))


def bce(inputs: Inputs, options: Options) -> Exact:
    """Return those of binary_cross_entropy, with the bounds that torch has."""
    del options
    share, target = inputs["input"], inputs["target"]
    with np.errstate(divide="ignore"):
        yes, no = np.maximum(np.log(share), -100), np.maximum(np.log1p(-share), -100)
    spread = np.maximum(share * (1 - share), 1e-12)
    return _weighted(inputs, -target * yes - (1 - target) * no, (share - target) / spread)


def bce_with_logits(inputs: Inputs, options: Options) -> Exact:
    """Return those of binary_cross_entropy_with_logits."""
    del options
    logit, target = inputs["input"], inputs["target"]
    yes, no = inputs.get("pos_weight", 1) * target, 1 - target
    power = np.exp(-abs(logit))
    log, least = np.log1p(power), power / (1 + power)
    values = (yes + no) * log + np.where(logit < 0, yes, no) * abs(logit)
    return _weighted(
        inputs, values, np.where(logit < 0, (yes + no) * least - yes, no - (yes + no) * least)
    )


def kl_div(inputs: Inputs, options: Options) -> Exact:
    """Return those of kl_div."""
    given, target = inputs["input"], inputs["target"]
    if options["log_target"]:
        share = np.exp(target)
        return _weighted(inputs, share * (target - given), -share)
    log = np.log(np.where(target > 0, target, 1))
    return _weighted(inputs, target * (log - given), -target)


def cross_entropy(inputs: Inputs, options: Options) -> Exact:
    """Return those of cross_entropy, with class indices or probabilities."""
    logits, target = inputs["input"], inputs["target"]
    rows, classes = logits.shape
    smoothing = logits.dtype.type(options["label_smoothing"])
    below = logits - logits.max(1, keepdims=True)
    power = np.exp(below)
    total = power.sum(1, keepdims=True)
    weight = inputs.get("weight", np.ones(classes, logits.dtype))
    share = target
    denominator = float(rows)
    if target.dtype.kind == "i":
        share = np.zeros_like(logits)
        share[np.arange(rows), target] = 1
        denominator = float(weight[target].sum())
    share = (share * (1 - smoothing) + smoothing / classes) * weight
    values = (share * (np.log(total) - below)).sum(1)
    return Exact(values, power / total * share.sum(1, keepdims=True) - share, denominator)


def nll(inputs: Inputs, options: Options) -> Exact:
    """Return those of nll_loss."""
    del options
    given, target = inputs["input"], inputs["target"]
    weight = inputs.get("weight", np.ones(given.shape[1], given.dtype))[target]
    places = np.arange(len(target)), target
    derivatives = np.zeros_like(given)
    derivatives[places] = -weight
    return Exact(-weight * given[places], derivatives, float(weight.sum()))


def weighed_mean(formula: Formula) -> Formula:
    """Return the formula of a loss whose mean is divided by the sum of the weights."""

    def weighed(inputs: Inputs, options: Options) -> Exact:
        found = formula(inputs, options)
        return found._replace(denominator=float(inputs["weight"].sum()))

    return weighed


def _weighted(inputs: Inputs, values: Array, derivatives: Array) -> Exact:
    """Multiply by the weight of each element, if there is one."""
    weight = inputs.get("weight", 1)
    return Exact(values * weight, derivatives * weight, float(values.size))
