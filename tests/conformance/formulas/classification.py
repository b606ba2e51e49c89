"""Losses over classes, binary ones, and activations."""

from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import numpy as np

from tests.conformance.exact import Array, Number, objects, total
from tests.conformance.formulas.terms import Terms, as_array, where, zeros


def binary_cross_entropy(input: Array, target: Array, weight: Array | None = None) -> Terms:
    """-weight (y log x + (1 - y) log(1 - x)), for x inside of (0, 1)."""
    values = -(target * np.log(input) + (1 - target) * np.log(1 - input))
    return Terms(values=as_array(values if weight is None else values * weight))


def binary_cross_entropy_with_logits(
    input: Array, target: Array, weight: Array | None = None, pos_weight: Array | None = None
) -> Terms:
    """-weight (pos_weight y log s(x) + (1 - y) log(1 - s(x))), where s is the sigmoid."""
    yes, no = target * np.log(1 + np.exp(-input)), (1 - target) * np.log(1 + np.exp(input))
    values = (yes if pos_weight is None else pos_weight * yes) + no
    return Terms(values=as_array(values if weight is None else values * weight))


def cross_entropy(
    input: Array,
    target: Array,
    weight: Array | None = None,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
) -> Terms:
    """-weight[y] log p[y], or -sum(weight q log p) for a distribution q.

    Smoothing mixes the target with the even distribution over all classes.
    """
    logs = _classes_last(log_softmax(input, dim=0 if input.ndim == 1 else 1))
    classes = logs.shape[-1]
    weights = objects((Number(1) for _ in range(classes)), (classes,)) if weight is None else weight
    smoothing = Decimal(label_smoothing)
    if target.dtype != object:
        rows = _indexed(logs, target, weights, ignore_index)
        spread = _rows(as_array((-weights * logs).sum(axis=-1)), target.shape)
        even = where(rows.counted_array, spread, zeros(target.shape))
        values = rows.values * (1 - smoothing) + even * smoothing / classes
        return Terms(
            values=as_array(values), denominators=rows.denominators, counted=rows.counted_array
        )
    mixed = _classes_last(target) * (1 - smoothing) + smoothing / classes
    return Terms(values=_rows(as_array((-weights * mixed * logs).sum(axis=-1)), logs.shape[:-1]))


def nll_loss(
    input: Array, target: Array, weight: Array | None = None, ignore_index: int = -100
) -> Terms:
    """-weight[y] x[y]; the mean divides by the sum of weight[y] over what is not ignored."""
    logs = _classes_last(input)
    classes = logs.shape[-1]
    weights = objects((Number(1) for _ in range(classes)), (classes,)) if weight is None else weight
    rows = _indexed(logs, target, weights, ignore_index)
    return Terms(values=rows.values, denominators=rows.denominators, counted=rows.counted_array)


@dataclass(frozen=True, kw_only=True)
class _Rows:
    """The terms of a loss over class indices."""

    values: Array
    denominators: Array
    counted_array: Array


def _indexed(logs: Array, target: Array, weights: Array, ignore_index: int) -> _Rows:
    values, denominators = zeros(target.shape), zeros(target.shape)
    counted = np.asarray(target.astype(np.int64) != ignore_index)
    for place in np.ndindex(target.shape):
        if counted[place]:
            index = int(target[place])
            values[place] = -weights[index] * logs[(*place, index)]
            denominators[place] = weights[index]
    return _Rows(values=values, denominators=denominators, counted_array=counted)


def _classes_last(array: Array) -> Array:
    return array if array.ndim == 1 else np.moveaxis(array, 1, -1)


def _rows(values: Array, shape: tuple[int, ...]) -> Array:
    return objects(values.ravel(), shape)


def kl_div(input: Array, target: Array, log_target: bool = False) -> Terms:  # noqa: FBT001, FBT002
    """Y (log y - x), or exp(y) (y - x) for a target of logarithms."""
    if log_target:
        return Terms(values=as_array(np.exp(target) * (target - input)))
    return Terms(values=as_array(target * (np.log(target) - input)))


def log_softmax(input: Array, dim: int) -> Array:
    """X - log(sum(exp(x))) along an axis."""
    return as_array(input - np.log(np.exp(input).sum(axis=dim, keepdims=True)))


def softmax(input: Array, dim: int) -> Array:
    """exp(x) / sum(exp(x)) along an axis."""
    return as_array(np.exp(input) / np.exp(input).sum(axis=dim, keepdims=True))


def sigmoid(input: Array) -> Array:
    """1 / (1 + exp(-x))."""
    return as_array(1 / (1 + np.exp(-input)))


def logsigmoid(input: Array) -> Array:
    """log(1 / (1 + exp(-x)))."""
    return as_array(-np.log(1 + np.exp(-input)))


def softmin(input: Array, dim: int) -> Array:
    """exp(-x) / sum(exp(-x)) along an axis."""
    return softmax(-input, dim)


def linear_cross_entropy(
    input: Array,
    linear_weight: Array,
    target: Array,
    linear_bias: Array | None = None,
    **others: Any,  # noqa: ANN401 (cross_entropy's)
) -> Terms:
    """cross_entropy of the logits linear_weight @ input + linear_bias, for (N, F) and (C, F)."""
    products = objects(
        (total(row * column) for row in input for column in linear_weight),
        (len(input), len(linear_weight)),
    )
    return cross_entropy(
        products if linear_bias is None else products + linear_bias, target, **others
    )
