"""Evaluations in which torch meets the limits of a formula, and gives NaN for them."""

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from tests.support.caller import Array, Ask

_FAR = 1e4
"""A number whose exponential is infinite, and that of its negative 0."""


def without_limits(ask: Ask) -> Ask:
    """Return the evaluation with finite numbers from which torch computes the very limits."""
    change = _CHANGES.get(ask.loss)
    return ask if change is None else replace(ask, inputs={**ask.inputs, **change(ask)})


def _classes(ask: Ask) -> Mapping[str, Array]:
    """An ignored row adds nothing, whatever it holds; a class of probability 0 neither."""
    logits, target = ask.inputs["input"], ask.inputs["target"]
    if target.dtype.kind != "i":
        return {"input": np.where((target == 0) & np.isneginf(logits), -_FAR, logits)}
    ignored = np.expand_dims(target == ask.options.get("ignore_index", -100), 1)
    return {"input": np.where(ignored, np.zeros((), logits.dtype), logits)}


def _bce_with_logits(ask: Ask) -> Mapping[str, Array]:
    """An infinite logit has the loss 0 if the target is the one that it stands for."""
    logits, target = ask.inputs["input"], ask.inputs["target"]
    # As float64: bfloat16 warns of NaN in comparisons.
    agrees = np.isinf(logits) & (target == (logits.astype(np.float64) > 0))
    return {"input": np.where(agrees, np.copysign(_FAR, logits), logits).astype(logits.dtype)}


def _kl_div(ask: Ask) -> Mapping[str, Array]:
    """A probability of 0 adds nothing."""
    inputs, target = ask.inputs["input"], ask.inputs["target"]
    if not ask.options.get("log_target"):
        none = (target == 0) & np.isinf(inputs)
        return {"input": np.where(none, np.zeros((), inputs.dtype), inputs)}
    none = np.isneginf(target)
    return {
        "input": np.where(none, np.zeros((), inputs.dtype), inputs),
        "target": np.where(none, -_FAR, target).astype(target.dtype),
    }


def limited(ask: Ask, values: Array) -> Array:
    """Return torch's unreduced values of `without_limits(ask)`, with the limits that are infinite.

    No finite number has them.
    """
    if ask.loss != "binary_cross_entropy_with_logits":
        return values
    logits, target = (ask.inputs[name].astype(np.float64) for name in ("input", "target"))
    share = np.where(logits > 0, 1 - target, target)
    infinite = np.isinf(logits) & (share > 0)
    if ask.sample_weight is not None:
        infinite &= ask.sample_weight != 0
    return np.where(infinite, np.full((), np.inf, values.dtype), values)


_CHANGES: Mapping[str, Callable[[Ask], Mapping[str, Array]]] = {
    "binary_cross_entropy_with_logits": _bce_with_logits,
    "cross_entropy": _classes,
    "kl_div": _kl_div,
    "nll_loss": _classes,
}
