"""The losses once more, straight from their definitions, over the numbers of exact.py.

One function a loss, with the server's parameter names. They are written for being right, not for
being fast, and share no code with the server.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any

import numpy as np

from tests.conformance.exact import (
    Array,
    Number,
    derivative_terms,
    derivatives,
    numbers,
    objects,
    total,
)

PI = Decimal("3.14159265358979323846264338327950288419716939937510582097494")


@dataclass(frozen=True, kw_only=True)
class Terms:
    """What a loss consists of before it is reduced."""

    values: Array
    denominators: Array | None = None
    """What each value adds to the mean's denominator; 1 where there is none."""
    counted: Array | None = None
    """Which values take part; all where there is none."""
    numerators: Array | None = None
    """What each value adds to the mean's numerator, if not itself."""


@dataclass(frozen=True, kw_only=True)
class Expected:
    """The exact answer to an evaluation: numbers and decimals, not yet rounded."""

    loss: Array
    sum: Array
    mean_numerator: Array
    mean_denominator: Array
    count: int
    loss_terms: Array
    """The sum of the magnitudes of what each element of the loss is the sum of."""
    sum_terms: Array
    """The same for the sum."""
    gradients: Mapping[str, Array] = field(default_factory=dict)
    gradient_terms: Mapping[str, Array] = field(default_factory=dict)
    """The sums of the magnitudes of what each gradient is the sum of."""


def evaluate(
    loss: str,
    inputs: Mapping[str, Array],
    options: Mapping[str, Any],
    *,
    reduction: str,
    gradients_for: tuple[str, ...],
    grad_output: Array | None,
    sample_weight: Array | None,
    normalizer: float | None,
) -> Expected:
    """Give the exact answer to an evaluation."""
    given = {
        name: array if array.dtype.kind in "iub" else numbers(array)
        for name, array in inputs.items()
    }
    if loss in ACTIVATIONS:
        values = ACTIVATIONS[loss](**given, **options)
        nothing = objects([Number(0)], ())
        expected = Expected(
            loss=values,
            sum=nothing,
            mean_numerator=nothing,
            mean_denominator=nothing,
            count=0,
            loss_terms=values,
            sum_terms=nothing,
        )
    else:
        expected = _reduce(LOSSES[loss](**given, **options), reduction, sample_weight, normalizer)
    upstream = numbers(np.ones(expected.loss.shape) if grad_output is None else grad_output)
    objective = total(expected.loss * upstream)
    return replace(
        expected,
        gradients={name: derivatives(objective, given[name]) for name in gradients_for},
        gradient_terms={name: derivative_terms(objective, given[name]) for name in gradients_for},
    )


def _reduce(
    terms: Terms, reduction: str, sample_weight: Array | None, normalizer: float | None
) -> Expected:
    values = terms.values
    weights = np.ones(values.shape) if sample_weight is None else sample_weight.astype(np.float64)
    # A weight for each row counts for every value of the row.
    weights = weights.reshape(weights.shape + (1,) * (values.ndim - weights.ndim))
    weights = np.broadcast_to(weights, values.shape)
    ones = objects((Number(1) for _ in range(values.size)), values.shape)
    counted = np.ones(values.shape, bool) if terms.counted is None else terms.counted

    summed = total(_weighted(values, weights))
    numerator = total(_weighted(values if terms.numerators is None else terms.numerators, weights))
    denominators = ones if terms.denominators is None else terms.denominators
    denominator = total(_weighted(denominators, weights))
    if reduction == "batchmean" and values.ndim:
        denominator = denominator / (values.size // values.shape[0])
    if normalizer is not None:
        denominator = Number(Decimal(normalizer))
    magnitude = total(np.abs(_weighted(values, weights)))
    # For each reduction, the loss and what it is the sum of.
    single = _weighted(values, weights)
    whole = objects([summed], ()), objects([magnitude], ())
    mean = objects([numerator / denominator], ()), objects([magnitude / denominator], ())
    losses = {"none": (single, single), "sum": whole, "mean": mean, "batchmean": mean}
    loss, loss_terms = losses[reduction]
    return Expected(
        loss=loss,
        sum=objects([summed], ()),
        mean_numerator=objects([numerator], ()),
        mean_denominator=objects([denominator], ()),
        count=int((counted & (weights != 0)).sum()),
        loss_terms=loss_terms,
        sum_terms=objects([magnitude], ()),
    )


def _weighted(values: Array, weights: Array) -> Array:
    """Multiply, but take a weight of 0 out altogether: 0 times infinity would be NaN."""
    pairs = zip(values.ravel(), weights.ravel().tolist(), strict=True)
    products = (value * Decimal(weight) if weight else Number(0) for value, weight in pairs)
    return objects(products, values.shape)


def _where(condition: Array, yes: Array, no: Array) -> Array:
    """Choose, and keep a 0-d array an array."""
    triples = zip(condition.ravel(), yes.ravel(), no.ravel(), strict=True)
    return objects((left if chosen else right for chosen, left, right in triples), yes.shape)


def _array(values: Any) -> Array:  # noqa: ANN401 (numpy gives a scalar where it had a 0-d array)
    return np.asarray(values, object)


def mse_loss(input: Array, target: Array, weight: Array | None = None) -> Terms:
    """Weight (x - y)^2; the mean divides by the sum of the weight."""
    values = _array((input - target) * (input - target))
    if weight is None:
        return Terms(values=values)
    return Terms(values=_array(weight * values), denominators=weight)


def l1_loss(input: Array, target: Array, weight: Array | None = None) -> Terms:
    """Weight |x - y|; the mean divides by the sum of the weight."""
    values = _array(np.abs(input - target))
    if weight is None:
        return Terms(values=values)
    return Terms(values=_array(weight * values), denominators=weight)


def smooth_l1_loss(input: Array, target: Array, beta: float = 1.0) -> Terms:
    """(x - y)^2 / (2 beta) where |x - y| < beta, else |x - y| - beta / 2."""
    bend = Decimal(beta)
    distance = _array(np.abs(input - target))
    square = _array(distance * distance / (2 * bend))
    return Terms(values=_where(_array(distance < bend), square, _array(distance - bend / 2)))


def huber_loss(
    input: Array, target: Array, weight: Array | None = None, delta: float = 1.0
) -> Terms:
    """Weight (x - y)^2 / 2 where |x - y| <= delta, else weight delta (|x - y| - delta / 2)."""
    bend = Decimal(delta)
    distance = _array(np.abs(input - target))
    square = _array(distance * distance / 2)
    line = _array((distance - bend / 2) * bend)
    values = _where(_array(distance <= bend), square, line)
    return Terms(values=values if weight is None else _array(values * weight))


def binary_cross_entropy(input: Array, target: Array, weight: Array | None = None) -> Terms:
    """-weight (y log x + (1 - y) log(1 - x)), for x inside of (0, 1)."""
    values = -(target * np.log(input) + (1 - target) * np.log(1 - input))
    return Terms(values=_array(values if weight is None else values * weight))


def binary_cross_entropy_with_logits(
    input: Array, target: Array, weight: Array | None = None, pos_weight: Array | None = None
) -> Terms:
    """-weight (pos_weight y log s(x) + (1 - y) log(1 - s(x))), where s is the sigmoid."""
    yes, no = target * np.log(1 + np.exp(-input)), (1 - target) * np.log(1 + np.exp(input))
    values = (yes if pos_weight is None else pos_weight * yes) + no
    return Terms(values=_array(values if weight is None else values * weight))


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
        spread = _rows(_array((-weights * logs).sum(axis=-1)), target.shape)
        even = _where(rows.counted_array, spread, _zeros(target.shape))
        values = rows.values * (1 - smoothing) + even * smoothing / classes
        return Terms(
            values=_array(values), denominators=rows.denominators, counted=rows.counted_array
        )
    mixed = _classes_last(target) * (1 - smoothing) + smoothing / classes
    return Terms(values=_rows(_array((-weights * mixed * logs).sum(axis=-1)), logs.shape[:-1]))


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
    values, denominators = _zeros(target.shape), _zeros(target.shape)
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


def _zeros(shape: tuple[int, ...]) -> Array:
    return objects((Number(0) for _ in np.ndindex(shape)), shape)


def kl_div(input: Array, target: Array, log_target: bool = False) -> Terms:  # noqa: FBT001, FBT002
    """Y (log y - x), or exp(y) (y - x) for a target of logarithms."""
    if log_target:
        return Terms(values=_array(np.exp(target) * (target - input)))
    return Terms(values=_array(target * (np.log(target) - input)))


def log_softmax(input: Array, dim: int) -> Array:
    """X - log(sum(exp(x))) along an axis."""
    return _array(input - np.log(np.exp(input).sum(axis=dim, keepdims=True)))


def softmax(input: Array, dim: int) -> Array:
    """exp(x) / sum(exp(x)) along an axis."""
    return _array(np.exp(input) / np.exp(input).sum(axis=dim, keepdims=True))


def sigmoid(input: Array) -> Array:
    """1 / (1 + exp(-x))."""
    return _array(1 / (1 + np.exp(-input)))


def logsigmoid(input: Array) -> Array:
    """log(1 / (1 + exp(-x)))."""
    return _array(-np.log(1 + np.exp(-input)))


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


def poisson_nll_loss(
    input: Array, target: Array, *, log_input: bool = True, full: bool = False, eps: float = 1e-8
) -> Terms:
    """exp(x) - y x, or x - y log(x + eps); full adds Stirling's log(y!) where y > 1."""
    if log_input:
        values = _array(np.exp(input) - target * input)
    else:
        values = _array(input - target * np.log(input + Decimal(eps)))
    if full:
        stirling = target * np.log(target) - target + np.log(target * (2 * PI)) / 2
        values = values + _where(_array(target > 1), _array(stirling), _zeros(values.shape))
    return Terms(values=values)


def gaussian_nll_loss(
    input: Array, target: Array, var: Array, *, full: bool = False, eps: float = 1e-6
) -> Terms:
    """(log v + (x - y)^2 / v) / 2 with v = max(var, eps); full adds log(2 pi) / 2."""
    if var.ndim < input.ndim:
        var = var[..., np.newaxis]
    # By v, not by var: torch raises the variance outside of what it differentiates.
    variance = objects((_raised(each, Decimal(eps)) for each in var.ravel()), var.shape)
    distance = input - target
    values = (np.log(variance) + distance * distance / variance) / 2
    return Terms(values=_array(values + Number(2 * PI).log() / 2 if full else values))


def _raised(number: Number, least: Decimal) -> Number:
    """Raise a number to a least value, but differentiate as if it had been that all along."""
    return number if number >= least else number + (least - number.value)


def margin_ranking_loss(input1: Array, input2: Array, target: Array, margin: float = 0.0) -> Terms:
    """max(0, -y (x1 - x2) + margin)."""
    return Terms(values=_hinge(_array(-target * (input1 - input2) + Decimal(margin))))


def hinge_embedding_loss(input: Array, target: Array, margin: float = 1.0) -> Terms:
    """X where y = 1, max(0, margin - x) where y = -1."""
    return Terms(values=_where(_array(target > 0), input, _hinge(_array(Decimal(margin) - input))))


def soft_margin_loss(input: Array, target: Array) -> Terms:
    """log(1 + exp(-y x))."""
    return Terms(values=_array(np.log(1 + np.exp(-target * input))))


def multi_margin_loss(
    input: Array, target: Array, weight: Array | None = None, p: int = 1, margin: float = 1.0
) -> Terms:
    """The sum over i != y of weight[y] max(0, margin - x[y] + x[i])^p, over C."""
    values = _zeros(target.shape)
    for row, right in enumerate(target.tolist()):
        parts = _hinge(input[row] - input[row, right] + Decimal(margin))
        powers = [part * part if p == 2 else part for part in parts]
        others = total(objects(powers[:right] + powers[right + 1 :], (len(powers) - 1,)))
        values[row] = others * (1 if weight is None else weight[right]) / len(powers)
    return Terms(values=values)


def multilabel_margin_loss(input: Array, target: Array) -> Terms:
    """The sum over labels j and other classes i of max(0, 1 - x[j] + x[i]), over C."""
    values = _zeros(target.shape[:1])
    for row, listed in enumerate(target.tolist()):
        labels = listed[: listed.index(-1)] if -1 in listed else listed
        others = [each for each in range(len(listed)) if each not in labels]
        for label in labels:
            for other in others:
                part = 1 - input[row, label] + input[row, other]
                values[row] += (part if part > 0 else Number(0)) / len(listed)
    return Terms(values=values)


def multilabel_soft_margin_loss(input: Array, target: Array, weight: Array | None = None) -> Terms:
    """The mean over classes of -weight (y log s(x) + (1 - y) log(1 - s(x)))."""
    values = binary_cross_entropy_with_logits(input, target, weight).values
    return Terms(values=_array(values.sum(axis=-1) / values.shape[-1]))


def cosine_embedding_loss(
    input1: Array, input2: Array, target: Array, margin: float = 0.0
) -> Terms:
    """1 - cos(x1, x2) where y = 1, max(0, cos(x1, x2) - margin) where y = -1."""
    tiny = Decimal("1e-12")
    values = _zeros(target.shape)
    for row in range(len(target)):
        first, second = input1[row], input2[row]
        squares = (total(first * first) + tiny) * (total(second * second) + tiny)
        cosine = total(first * second) / squares.sqrt()
        if target[row] > 0:
            values[row] = 1 - cosine
        elif cosine > Decimal(margin):
            values[row] = cosine - Decimal(margin)
    return Terms(values=values)


def triplet_margin_loss(
    anchor: Array,
    positive: Array,
    negative: Array,
    *,
    margin: float = 1.0,
    p: float = 2.0,
    eps: float = 1e-6,
    swap: bool = False,
) -> Terms:
    """max(0, d(a, p) - d(a, n) + margin), where d is a norm of degree 1 or 2."""

    def distance(first: Array, second: Array) -> Number:
        gaps = np.abs(first - second + Decimal(eps))
        return total(gaps) if p == 1 else total(gaps * gaps).sqrt()

    return _triplet(anchor, positive, negative, distance, margin=margin, swap=swap)


def triplet_margin_with_distance_loss(
    anchor: Array,
    positive: Array,
    negative: Array,
    *,
    distance_function: str = "euclidean",
    margin: float = 1.0,
    swap: bool = False,
) -> Terms:
    """triplet_margin_loss with a distance that is named."""
    tiny = Decimal("1e-6")
    distances: Mapping[str, Callable[[Array, Array], Number]] = {
        "euclidean": lambda a, b: total((a - b + tiny) * (a - b + tiny)).sqrt(),
        "manhattan": lambda a, b: total(np.abs(a - b + tiny)),
        "squared_euclidean": lambda a, b: total((a - b) * (a - b)),
        "cosine": lambda a, b: 1 - total(a * b) / (total(a * a) * total(b * b)).sqrt(),
    }
    distance = distances[distance_function]
    return _triplet(anchor, positive, negative, distance, margin=margin, swap=swap)


def _triplet(
    anchor: Array,
    positive: Array,
    negative: Array,
    distance: Callable[[Array, Array], Number],
    *,
    margin: float,
    swap: bool,
) -> Terms:
    values = _zeros(anchor.shape[:1])
    for row, (one, like, unlike) in enumerate(zip(anchor, positive, negative, strict=True)):
        away = distance(one, unlike)
        if swap:
            away = min(away, distance(like, unlike))
        values[row] = distance(one, like) - away + Decimal(margin)
    return Terms(values=_hinge(values))


def ctc_loss(
    log_probs: Array,
    targets: Array,
    input_lengths: Array,
    target_lengths: Array,
    *,
    blank: int = 0,
    zero_infinity: bool = False,
) -> Terms:
    """-log of the summed probability of all ways to stretch the labels over the frames.

    torch's gradient by log_probs is exp(log_probs) - posterior, which is this value's own plus
    exp(log_probs); a term of value 0 adds that.
    """
    values = _zeros(target_lengths.shape)
    for row, (frames, labels) in enumerate(
        zip(input_lengths.tolist(), target_lengths.tolist(), strict=True)
    ):
        logs = log_probs[:frames, row]
        states = [blank]
        for label in targets[row, :labels].tolist():
            states += [label, blank]
        likely = _all_alignments(np.exp(logs), states, blank)
        if likely.value or not zero_infinity:
            softened = total(np.exp(logs))
            values[row] = -likely.log() + (softened - softened.value)
    scaled = values / np.maximum(target_lengths, 1)
    return Terms(values=values, numerators=scaled)


def _all_alignments(probabilities: Array, states: list[int], blank: int) -> Number:
    """Add up the probability of every path that visits the states in order."""
    reached = [Number(1), Number(1)] + [Number(0)] * (len(states) - 2)
    for frame, row in enumerate(probabilities):
        before = reached
        reached = []
        for position, state in enumerate(states):
            ways = before[position]
            if frame:
                ways = total(objects(_predecessors(before, states, position, blank), (3,)))
            reached.append(ways * row[state])
    return reached[-1] + reached[-2]


def _predecessors(before: list[Number], states: list[int], position: int, blank: int) -> list[Any]:
    """List where a path may have been a frame ago: here, one back, or two over a blank."""
    none = Number(0)
    skips = position > 1 and states[position] not in (blank, states[position - 2])
    return [
        before[position],
        before[position - 1] if position else none,
        before[position - 2] if skips else none,
    ]


def _hinge(values: Array) -> Array:
    """Give max(0, x); the derivative at 0 is 0."""
    return objects((each if each > 0 else Number(0) for each in values.ravel()), values.shape)


LOSSES: Mapping[str, Callable[..., Terms]] = {
    each.__name__: each
    for each in (
        binary_cross_entropy,
        binary_cross_entropy_with_logits,
        cosine_embedding_loss,
        cross_entropy,
        ctc_loss,
        gaussian_nll_loss,
        hinge_embedding_loss,
        huber_loss,
        kl_div,
        l1_loss,
        linear_cross_entropy,
        margin_ranking_loss,
        mse_loss,
        multi_margin_loss,
        multilabel_margin_loss,
        multilabel_soft_margin_loss,
        nll_loss,
        poisson_nll_loss,
        smooth_l1_loss,
        soft_margin_loss,
        triplet_margin_loss,
        triplet_margin_with_distance_loss,
    )
}

ACTIVATIONS: Mapping[str, Callable[..., Array]] = {
    each.__name__: each for each in (log_softmax, logsigmoid, sigmoid, softmax, softmin)
}
