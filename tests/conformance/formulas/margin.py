"""Margins and embeddings."""

from collections.abc import Callable, Mapping
from decimal import Decimal

import numpy as np

from tests.conformance.exact import Array, Number, objects, total
from tests.conformance.formulas.classification import binary_cross_entropy_with_logits
from tests.conformance.formulas.terms import Terms, as_array, hinge, where, zeros


def margin_ranking_loss(input1: Array, input2: Array, target: Array, margin: float = 0.0) -> Terms:
    """max(0, -y (x1 - x2) + margin)."""
    return Terms(values=hinge(as_array(-target * (input1 - input2) + Decimal(margin))))


def hinge_embedding_loss(input: Array, target: Array, margin: float = 1.0) -> Terms:
    """X where y = 1, max(0, margin - x) where y = -1."""
    return Terms(
        values=where(as_array(target > 0), input, hinge(as_array(Decimal(margin) - input)))
    )


def soft_margin_loss(input: Array, target: Array) -> Terms:
    """log(1 + exp(-y x))."""
    return Terms(values=as_array(np.log(1 + np.exp(-target * input))))


def multi_margin_loss(
    input: Array, target: Array, weight: Array | None = None, p: int = 1, margin: float = 1.0
) -> Terms:
    """The sum over i != y of weight[y] max(0, margin - x[y] + x[i])^p, over C."""
    values = zeros(target.shape)
    for row, right in enumerate(target.tolist()):
        parts = hinge(input[row] - input[row, right] + Decimal(margin))
        powers = [part * part if p == 2 else part for part in parts]
        others = total(objects(powers[:right] + powers[right + 1 :], (len(powers) - 1,)))
        values[row] = others * (1 if weight is None else weight[right]) / len(powers)
    return Terms(values=values)


def multilabel_margin_loss(input: Array, target: Array) -> Terms:
    """The sum over labels j and other classes i of max(0, 1 - x[j] + x[i]), over C."""
    values = zeros(target.shape[:1])
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
    return Terms(values=as_array(values.sum(axis=-1) / values.shape[-1]))


def cosine_embedding_loss(
    input1: Array, input2: Array, target: Array, margin: float = 0.0
) -> Terms:
    """1 - cos(x1, x2) where y = 1, max(0, cos(x1, x2) - margin) where y = -1."""
    tiny = Decimal("1e-12")
    values = zeros(target.shape)
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
    values = zeros(anchor.shape[:1])
    for row, (one, like, unlike) in enumerate(zip(anchor, positive, negative, strict=True)):
        away = distance(one, unlike)
        if swap:
            away = min(away, distance(like, unlike))
        values[row] = distance(one, like) - away + Decimal(margin)
    return Terms(values=hinge(values))
