"""Losses over probabilities or logits of independent yes-no questions."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from losswire.server.catalogue.closed_form import ClosedForm
from losswire.server.compute import limits
from losswire.server.compute.closed_forms import bernoulli
from losswire.server.compute.native import elementwise as native
from losswire.server.compute.stacking import operators
from losswire.server.declare import (
    DISTRIBUTION,
    UNIT,
    EngineDifference,
    Input,
    Terms,
    floats,
    layout,
    loss,
)

_WEIGHT = "A factor for each element; broadcasts to the input."


@loss(
    layouts=(
        layout(
            "elementwise",
            input=floats("*S"),
            target=floats("*S"),
            weight=floats("#*S"),
            values="*S",
        ),
    ),
    inputs={
        "input": Input(meaning="Probabilities.", differentiable=True, values=(UNIT,)),
        "target": Input(
            meaning="The probability that the answer is yes.",
            differentiable=True,
            values=(UNIT,),
        ),
        "weight": Input(meaning=_WEIGHT, promotes=True),
    },
    result_inputs=("input",),
    closed_forms={
        "elementwise": ClosedForm(block=bernoulli.bce, stacked=bernoulli.bce, native=native.BCE)
    },
    source="torch.nn.functional.binary_cross_entropy",
)
def binary_cross_entropy(
    input: Tensor, target: Tensor, weight: Tensor | None = None, *, reduction: str = "none"
) -> Terms:
    """Binary cross entropy between probabilities and targets.

    The value of an element is `-weight * (y * log(x) + (1 - y) * log(1 - x))`,
    where torch clamps each logarithm at -100.
    """
    return Terms(F.binary_cross_entropy(input, target, weight, reduction=reduction))


def _binary_cross_entropy_with_logits(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    pos_weight: Tensor | None = None,
) -> Terms:
    """Compute it with its limits: an infinite logit that its target agrees with has the loss 0."""
    found = binary_cross_entropy_with_logits.function(input, target, weight, pos_weight)
    with torch.no_grad():
        values = found.values.clone()
        bernoulli.set_limits(values, input, target, pos_weight)
        if weight is not None:
            values = torch.where(input.isinf(), values * weight, values)
    return Terms(limits.replaced(found.values, values))


@loss(
    layouts=(
        layout(
            "elementwise",
            input=floats("*S"),
            target=floats("*S"),
            weight=floats("#*S"),
            pos_weight=floats("#*S"),
            values="*S",
        ),
    ),
    inputs={
        "input": Input(meaning="Logits.", differentiable=True),
        "target": Input(
            meaning="The probability that the answer is yes.",
            differentiable=True,
            promotes=True,
            values=(DISTRIBUTION,),
        ),
        "weight": Input(meaning=_WEIGHT, promotes=True),
        "pos_weight": Input(
            meaning="A factor for the positive part of each element; broadcasts to the input.",
            promotes=True,
        ),
    },
    result_inputs=("target",),
    closed_forms={
        "elementwise": ClosedForm(
            block=bernoulli.bce_with_logits,
            stacked=operators.bce_with_logits,
            native=native.BCE_WITH_LOGITS,
        )
    },
    formula=_binary_cross_entropy_with_logits,
    differences=(
        EngineDifference(
            where="`input` inf, `target` 1",
            inputs={"input": [math.inf], "target": [1.0]},
            auto=[0.0],
            autograd=[math.nan],
        ),
        EngineDifference(
            where="`input` -inf, `target` 0 and 1",
            inputs={"input": [-math.inf, -math.inf], "target": [0.0, 1.0]},
            auto=[0.0, math.inf],
            autograd=[math.nan, math.nan],
        ),
    ),
    source="torch.nn.functional.binary_cross_entropy_with_logits",
)
def binary_cross_entropy_with_logits(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    pos_weight: Tensor | None = None,
    *,
    reduction: str = "none",
) -> Terms:
    """Binary cross entropy between logits and targets, stable for large logits.

    The value of an element is
    `-weight * (pos_weight * y * log(sigmoid(x)) + (1 - y) * log(1 - sigmoid(x)))`.
    """
    values = F.binary_cross_entropy_with_logits(
        input, target, weight, reduction=reduction, pos_weight=pos_weight
    )
    return Terms(values)
