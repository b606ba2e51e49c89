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
from tests.conformance.formulas.classification import (
    binary_cross_entropy,
    binary_cross_entropy_with_logits,
    cross_entropy,
    kl_div,
    linear_cross_entropy,
    log_softmax,
    logsigmoid,
    nll_loss,
    sigmoid,
    softmax,
    softmin,
)
from tests.conformance.formulas.margin import (
    cosine_embedding_loss,
    hinge_embedding_loss,
    margin_ranking_loss,
    multi_margin_loss,
    multilabel_margin_loss,
    multilabel_soft_margin_loss,
    soft_margin_loss,
    triplet_margin_loss,
    triplet_margin_with_distance_loss,
)
from tests.conformance.formulas.regression import (
    gaussian_nll_loss,
    huber_loss,
    l1_loss,
    mse_loss,
    poisson_nll_loss,
    smooth_l1_loss,
)
from tests.conformance.formulas.sequence import ctc_loss
from tests.conformance.formulas.terms import Terms


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
    """Return the exact answer to an evaluation."""
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
