"""The losses once more in plain numpy, float64, from their published formulas. No torch.

Each function takes the inputs and the options that were given by name, and
returns the values, with what they add to the mean's denominator where that is
not 1 and the factor with which they enter the mean where there is one.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from losswire.server.catalogue.record import Reduction
from tests.support.caller import Array

Inputs = Mapping[str, Array]
Options = Mapping[str, Any]

_LEAST_LOG = -100.0
_SMALL_NORM = 1e-12


@dataclass(frozen=True)
class Plain:
    """The values of a loss and how its mean is formed."""

    values: Array
    denominators: Array | None = None
    scales: Array | None = None

    def reduced(self, reduction: Reduction) -> Array | float:
        """Return the result of a reduction."""
        if reduction is Reduction.NONE:
            return self.values
        if reduction is Reduction.SUM:
            return self.sum
        return self.mean if reduction is Reduction.MEAN else self.batchmean

    @property
    def sum(self) -> float:
        """The sum of the values."""
        return float(self.values.sum())

    @property
    def mean(self) -> float:
        """The sum of the numerators over the sum of the denominators."""
        numerators = self.values if self.scales is None else self.values * self.scales
        if self.denominators is None:
            return float(numerators.sum() / np.float64(self.values.size))
        return float(numerators.sum() / self.denominators.sum())

    @property
    def batchmean(self) -> float:
        """The sum of the values over the number of rows."""
        return self.sum / (len(self.values) if self.values.ndim else 1)


def log_softmax(x: Array, axis: int) -> Array:
    """Return `x - log(sum(exp(x)))`."""
    largest = x.max(axis, keepdims=True)
    return np.asarray(x - largest - np.log(np.exp(x - largest).sum(axis, keepdims=True)))


def log_sigmoid(x: Array) -> Array:
    """Return `-log(1 + exp(-x))`."""
    return np.asarray(-np.logaddexp(0.0, -x))


def positive_part(x: Array) -> Array:
    """Return `max(0, x)`."""
    return np.maximum(0.0, x)


def distance(a: Array, b: Array, p: float, eps: float) -> Array:
    """Return the p-norm of a difference of rows, `eps` being added to each component."""
    parts = np.abs(a - b + eps)
    if p == 0:
        return np.asarray((parts != 0).sum(-1).astype(np.float64))
    if np.isinf(p):
        return np.asarray(parts.max(-1))
    return np.asarray((parts**p).sum(-1) ** (1.0 / p))


def _class_axis(x: Array) -> int:
    return 0 if x.ndim == 1 else 1


def _over_classes(weight: Array | None, x: Array) -> Array:
    """Return the class weights in a shape that broadcasts to the scores."""
    axis = _class_axis(x)
    ones = np.ones(x.shape[axis])
    shape = [1] * x.ndim
    shape[axis] = -1
    return (ones if weight is None else weight).reshape(shape)


def _cross_entropy_of(log_p: Array, target: Array, weight: Array | None, options: Options) -> Plain:
    axis, classes = _class_axis(log_p), log_p.shape[_class_axis(log_p)]
    smoothing = options.get("label_smoothing", 0.0)
    factors = _over_classes(weight, log_p)
    uniform = -(factors * log_p).sum(axis) / classes
    if target.shape == log_p.shape:
        own = -(factors * target * log_p).sum(axis)
        return Plain((1 - smoothing) * own + smoothing * uniform)
    ignored = options.get("ignore_index")
    kept = target.astype(np.int64) != (-100 if ignored is None else ignored)
    labels = np.where(kept, target, 0).astype(np.int64)
    own = -np.take_along_axis(log_p * factors, np.expand_dims(labels, axis), axis).squeeze(axis)
    denominators = np.where(kept, factors.reshape(-1)[labels], 0.0)
    values = np.where(kept, (1 - smoothing) * own + smoothing * uniform, 0.0)
    return Plain(values, denominators)


def _cross_entropy(inputs: Inputs, options: Options) -> Plain:
    x = inputs["input"]
    log_p = log_softmax(x, _class_axis(x))
    return _cross_entropy_of(log_p, inputs["target"], inputs.get("weight"), options)


def _nll_loss(inputs: Inputs, options: Options) -> Plain:
    return _cross_entropy_of(inputs["input"], inputs["target"], inputs.get("weight"), options)


def _linear_cross_entropy(inputs: Inputs, options: Options) -> Plain:
    x, matrix = inputs["input"], inputs["linear_weight"]
    logits = np.tensordot(x, matrix, axes=([-1], [-1])) + inputs.get("linear_bias", 0.0)
    log_p = log_softmax(logits, _class_axis(logits))
    return _cross_entropy_of(log_p, inputs["target"], inputs.get("weight"), options)


def _binary_cross_entropy(inputs: Inputs, options: Options) -> Plain:
    del options
    x, y = inputs["input"], inputs["target"]
    with np.errstate(divide="ignore"):
        yes, no = np.maximum(np.log(x), _LEAST_LOG), np.maximum(np.log1p(-x), _LEAST_LOG)
    return Plain(-inputs.get("weight", 1.0) * (y * yes + (1 - y) * no))


def _binary_cross_entropy_with_logits(inputs: Inputs, options: Options) -> Plain:
    del options
    x, y = inputs["input"], inputs["target"]
    yes, no = inputs.get("pos_weight", 1.0) * y * log_sigmoid(x), (1 - y) * log_sigmoid(-x)
    return Plain(-inputs.get("weight", 1.0) * (yes + no))


def _l1_loss(inputs: Inputs, options: Options) -> Plain:
    del options
    values = np.abs(inputs["input"] - inputs["target"]) * inputs.get("weight", 1.0)
    return Plain(values, inputs.get("weight"))


def _mse_loss(inputs: Inputs, options: Options) -> Plain:
    del options
    values = (inputs["input"] - inputs["target"]) ** 2 * inputs.get("weight", 1.0)
    return Plain(values, inputs.get("weight"))


def _smooth_l1_loss(inputs: Inputs, options: Options) -> Plain:
    size, beta = np.abs(inputs["input"] - inputs["target"]), options.get("beta", 1.0)
    return Plain(np.where(size < beta, size**2 / (2 * (beta or 1.0)), size - beta / 2))


def _huber_loss(inputs: Inputs, options: Options) -> Plain:
    size, delta = np.abs(inputs["input"] - inputs["target"]), options.get("delta", 1.0)
    values = np.where(size <= delta, size**2 / 2, delta * (size - delta / 2))
    return Plain(values * inputs.get("weight", 1.0))


def _kl_div(inputs: Inputs, options: Options) -> Plain:
    x, y = inputs["input"], inputs["target"]
    if options.get("log_target", False):
        return Plain(np.exp(y) * (y - x))
    return Plain(np.where(y > 0, y * (np.log(np.where(y > 0, y, 1.0)) - x), 0.0))


def _poisson_nll_loss(inputs: Inputs, options: Options) -> Plain:
    x, y = inputs["input"], inputs["target"]
    if options.get("log_input", True):
        values = np.exp(x) - y * x
    else:
        values = x - y * np.log(x + options.get("eps", 1e-8))
    if options.get("full", False):
        large = np.where(y > 1, y, 1.0)
        stirling = large * np.log(large) - large + 0.5 * np.log(2 * np.pi * large)
        values = values + np.where(y > 1, stirling, 0.0)
    return Plain(values)


def _gaussian_nll_loss(inputs: Inputs, options: Options) -> Plain:
    x, y, var = inputs["input"], inputs["target"], inputs["var"]
    if var.ndim == x.ndim - 1:
        var = var[..., np.newaxis]
    var = np.maximum(var, options.get("eps", 1e-6))
    constant = 0.5 * np.log(2 * np.pi) if options.get("full", False) else 0.0
    return Plain(0.5 * (np.log(var) + (x - y) ** 2 / var) + constant)


def _margin_ranking_loss(inputs: Inputs, options: Options) -> Plain:
    difference = inputs["input1"] - inputs["input2"]
    return Plain(positive_part(-inputs["target"] * difference + options.get("margin", 0.0)))


def _hinge_embedding_loss(inputs: Inputs, options: Options) -> Plain:
    x, y = inputs["input"], inputs["target"]
    far = np.where(y != 1, positive_part(options.get("margin", 1.0) - x), 0.0)
    return Plain(np.where(y != -1, x, 0.0) + far)


def _soft_margin_loss(inputs: Inputs, options: Options) -> Plain:
    del options
    return Plain(np.logaddexp(0.0, -inputs["target"] * inputs["input"]))


def _multilabel_margin_loss(inputs: Inputs, options: Options) -> Plain:
    del options
    x, y = np.atleast_2d(inputs["input"]), np.atleast_2d(inputs["target"])
    rows = np.zeros(len(x))
    for row, (scores, listed) in enumerate(zip(x, y, strict=True)):
        ends = np.flatnonzero(listed < 0)
        labels = listed[: ends[0]] if ends.size else listed
        others = np.delete(scores, labels)
        for label in labels:
            rows[row] += positive_part(1 - (scores[label] - others)).sum() / len(scores)
    return Plain(rows if inputs["input"].ndim > 1 else rows[0])


def _multi_margin_loss(inputs: Inputs, options: Options) -> Plain:
    x, y = np.atleast_2d(inputs["input"]), np.atleast_1d(inputs["target"]).astype(np.int64)
    own = np.take_along_axis(x, y[:, np.newaxis], 1)
    parts = positive_part(options.get("margin", 1.0) - own + x) ** options.get("p", 1)
    parts[np.arange(len(x)), y] = 0.0
    weight = inputs.get("weight")
    rows = parts.sum(1) / x.shape[1] * (1.0 if weight is None else weight[y])
    return Plain(rows if inputs["input"].ndim > 1 else rows[0])


def _multilabel_soft_margin_loss(inputs: Inputs, options: Options) -> Plain:
    del options
    x, y = inputs["input"], inputs["target"]
    parts = y * log_sigmoid(x) + (1 - y) * log_sigmoid(-x)
    return Plain(-(parts * inputs.get("weight", 1.0)).mean(-1))


def _cosine_embedding_loss(inputs: Inputs, options: Options) -> Plain:
    a, b, y = inputs["input1"], inputs["input2"], inputs["target"]
    sizes = ((a**2).sum(-1) + _SMALL_NORM) * ((b**2).sum(-1) + _SMALL_NORM)
    cosine = (a * b).sum(-1) / np.sqrt(sizes)
    apart = positive_part(cosine - options.get("margin", 0.0))
    return Plain(np.where(y == 1, 1 - cosine, 0.0) + np.where(y == -1, apart, 0.0))


def _triplet_margin_loss(inputs: Inputs, options: Options) -> Plain:
    a, p, n = inputs["anchor"], inputs["positive"], inputs["negative"]
    norm, eps = options.get("p", 2.0), options.get("eps", 1e-6)
    far = distance(a, n, norm, eps)
    if options.get("swap", False):
        far = np.minimum(far, distance(p, n, norm, eps))
    return Plain(positive_part(distance(a, p, norm, eps) - far + options.get("margin", 1.0)))


def _triplet_with_distance(inputs: Inputs, options: Options) -> Plain:
    a, p, n = inputs["anchor"], inputs["positive"], inputs["negative"]
    measure = _DISTANCES[options.get("distance_function", "euclidean")]
    far = np.minimum(measure(a, n), measure(p, n)) if options.get("swap") else measure(a, n)
    return Plain(positive_part(measure(a, p) - far + options.get("margin", 1.0)))


def _cosine_distance(a: Array, b: Array) -> Array:
    sizes = [np.maximum(np.sqrt((x**2).sum(-1)), 1e-8) for x in (a, b)]
    return np.asarray(1 - (a * b).sum(-1) / (sizes[0] * sizes[1]))


_DISTANCES: dict[str, Callable[[Array, Array], Array]] = {
    "euclidean": lambda a, b: distance(a, b, 2.0, 1e-6),
    "manhattan": lambda a, b: distance(a, b, 1.0, 1e-6),
    "squared_euclidean": lambda a, b: np.asarray(((a - b) ** 2).sum(-1)),
    "cosine": _cosine_distance,
}


def _ctc_loss(inputs: Inputs, options: Options) -> Plain:
    log_p, targets = inputs["log_probs"], inputs["targets"]
    batch = log_p if log_p.ndim > 2 else log_p[:, np.newaxis]
    lengths = np.atleast_1d(inputs["target_lengths"])
    starts = np.cumsum(lengths) - lengths
    rows = []
    for row, (steps, size) in enumerate(
        zip(np.atleast_1d(inputs["input_lengths"]), lengths, strict=True)
    ):
        own = targets[row] if targets.ndim > 1 else targets[starts[row] :]
        rows.append(_ctc_row(batch[:steps, row], own[:size], options.get("blank", 0)))
    values = np.asarray(rows, np.float64)
    if options.get("zero_infinity", False):
        values = np.where(np.isinf(values), 0.0, values)
    shape = inputs["target_lengths"].shape
    return Plain(values.reshape(shape), scales=1.0 / np.maximum(lengths, 1).reshape(shape))


def _ctc_row(log_p: Array, labels: Array, blank: int) -> float:
    """Add up, in logarithms, the probability of every alignment of one row."""
    path = np.full(2 * len(labels) + 1, blank)
    path[1::2] = labels
    reached = np.full(len(path), -np.inf)
    reached[0] = 0.0
    for time, frame in enumerate(log_p):
        before = reached
        reached = np.full(len(path), -np.inf)
        for place, label in enumerate(path):
            ways = [before[place]] if time or not place else []
            if place and (time or place == 1):
                ways.append(before[place - 1])
            if time and place > 1 and label not in (blank, path[place - 2]):
                ways.append(before[place - 2])
            if ways:
                reached[place] = np.logaddexp.reduce(ways) + frame[label]
    return float(-np.logaddexp.reduce(reached[-2:]))


def _along(function: Callable[[Array, int], Array]) -> Callable[[Inputs, Options], Plain]:
    """Turn a function along an axis into an activation; a scalar counts as one axis."""

    def activation(inputs: Inputs, options: Options) -> Plain:
        x = inputs["input"]
        return Plain(function(np.atleast_1d(x), options["dim"]).reshape(x.shape))

    return activation


PLAIN: dict[str, Callable[[Inputs, Options], Plain]] = {
    "binary_cross_entropy": _binary_cross_entropy,
    "binary_cross_entropy_with_logits": _binary_cross_entropy_with_logits,
    "cosine_embedding_loss": _cosine_embedding_loss,
    "cross_entropy": _cross_entropy,
    "ctc_loss": _ctc_loss,
    "gaussian_nll_loss": _gaussian_nll_loss,
    "hinge_embedding_loss": _hinge_embedding_loss,
    "huber_loss": _huber_loss,
    "kl_div": _kl_div,
    "l1_loss": _l1_loss,
    "linear_cross_entropy": _linear_cross_entropy,
    "log_softmax": _along(log_softmax),
    "logsigmoid": lambda inputs, _options: Plain(log_sigmoid(inputs["input"])),
    "margin_ranking_loss": _margin_ranking_loss,
    "mse_loss": _mse_loss,
    "multi_margin_loss": _multi_margin_loss,
    "multilabel_margin_loss": _multilabel_margin_loss,
    "multilabel_soft_margin_loss": _multilabel_soft_margin_loss,
    "nll_loss": _nll_loss,
    "poisson_nll_loss": _poisson_nll_loss,
    "sigmoid": lambda inputs, _options: Plain(1.0 / (1.0 + np.exp(-inputs["input"]))),
    "smooth_l1_loss": _smooth_l1_loss,
    "soft_margin_loss": _soft_margin_loss,
    "softmax": _along(lambda x, axis: np.exp(log_softmax(x, axis))),
    "softmin": _along(lambda x, axis: np.exp(log_softmax(-x, axis))),
    "triplet_margin_loss": _triplet_margin_loss,
    "triplet_margin_with_distance_loss": _triplet_with_distance,
}
