"""Factored gradients, written plainly: the formulas of the contract in extended precision."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from losswire.v1 import evaluation_pb2
from losswire.wire import OptionScalar, decode_tensor

Array = npt.NDArray[Any]


def rows_first(array: Array, rank: int) -> Array:
    """Reshape logits or probabilities to a matrix, and arrays of the values' shape to a vector."""
    if array.ndim == rank:
        moved = array[np.newaxis] if rank == 1 else np.moveaxis(array, 1, -1)
        return moved.reshape(-1, moved.shape[-1])
    return array.reshape(-1)


def target_masses(
    inputs: Mapping[str, Array], options: Mapping[str, OptionScalar]
) -> npt.NDArray[np.longdouble]:
    """Return u of each value and class; an ignored row is 0."""
    logits, target = inputs["input"], inputs["target"]
    classes = logits.shape[0 if logits.ndim == 1 else 1]
    weight = inputs.get("weight", np.ones(classes)).astype(np.longdouble)
    smoothing = np.longdouble(options.get("label_smoothing", 0.0))
    if target.dtype.kind not in "iu":
        shares = rows_first(target.astype(np.longdouble), logits.ndim)
        return np.asarray(weight * ((1 - smoothing) * shares + smoothing / classes))
    flat = target.reshape(-1).astype(np.int64)
    masses = np.zeros((flat.size, classes), np.longdouble)
    for row, index in enumerate(flat):
        if index != options.get("ignore_index", -100):
            masses[row] = smoothing / classes * weight
            masses[row, index] += (1 - smoothing) * weight[index]
    return masses


def rebuilt(
    factors: evaluation_pb2.FactoredGradient,
    inputs: Mapping[str, Array],
    options: Mapping[str, OptionScalar],
) -> npt.NDArray[np.longdouble]:
    """Rebuild the dense gradient from factors as the contract says, one row after another."""
    logits = inputs["input"]
    rank = logits.ndim
    x = rows_first(logits.astype(np.longdouble), rank)
    masses = target_masses(inputs, options)
    parts = (factors.lse, factors.scale, factors.lse_tail)
    lse, scale, tail = (decode_tensor(each).reshape(-1) for each in parts)
    dense = np.zeros_like(x)
    with np.errstate(all="ignore"):
        for row in range(len(x)):
            if np.isposinf(lse[row]):
                continue
            dense[row] = scale[row] * np.exp((x[row] - lse[row]) - tail[row])
            if scale[row] != 0:
                dense[row] -= scale[row] * masses[row] / masses[row].sum()
    if rank == 1:
        return dense.reshape(logits.shape)
    shape = (*logits.shape[:1], *logits.shape[2:], logits.shape[1])
    return np.asarray(np.moveaxis(dense.reshape(shape), -1, 1))


def dense_gradient(
    inputs: Mapping[str, Array],
    options: Mapping[str, OptionScalar],
    coefficients: Array,
) -> npt.NDArray[np.longdouble]:
    """Return the gradient in extended precision; `coefficients` are those of the values."""
    logits = inputs["input"]
    x = rows_first(logits.astype(np.longdouble), logits.ndim)
    masses = target_masses(inputs, options)
    with np.errstate(all="ignore"):
        powers = np.exp(x - x.max(axis=1, keepdims=True))
        softmax = powers / powers.sum(axis=1, keepdims=True)
        total = masses.sum(axis=1, keepdims=True)
        dense = coefficients.reshape(-1, 1).astype(np.longdouble) * (total * softmax - masses)
    if logits.ndim == 1:
        return np.asarray(dense.reshape(logits.shape))
    shape = (*logits.shape[:1], *logits.shape[2:], logits.shape[1])
    return np.asarray(np.moveaxis(dense.reshape(shape), -1, 1))
