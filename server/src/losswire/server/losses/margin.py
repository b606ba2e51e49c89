"""Losses over scores and a target of 1 or -1."""

import math

import torch.nn.functional as F
from torch import Tensor

from losswire.server.declare import (
    SIGNS,
    EngineDifference,
    Input,
    Option,
    Terms,
    floats,
    layout,
    loss,
    numbers,
    signed,
)


@loss(
    layouts=(
        layout(
            "elementwise",
            input1=numbers("*S"),
            input2=numbers("*S"),
            target=signed("*S"),
            values="*S",
        ),
    ),
    inputs={
        "input1": Input(meaning="Scores of the first.", differentiable=True, promotes=True),
        "input2": Input(meaning="Scores of the second.", differentiable=True, promotes=True),
        "target": Input(
            meaning="1 where the first should rank higher, -1 where the second should.",
            differentiable=True,
            promotes=True,
            values=(SIGNS,),
        ),
    },
    options={"margin": Option(meaning="The least difference that the scores should have.")},
    promotes_integers=True,
    source="torch.nn.functional.margin_ranking_loss",
)
def margin_ranking_loss(
    input1: Tensor,
    input2: Tensor,
    target: Tensor,
    margin: float = 0.0,
    *,
    reduction: str = "none",
) -> Terms:
    """Hinge loss on the order of two scores.

    The value of an element is `max(0, -y * (x1 - x2) + margin)`. Integers are
    converted to the compute type before anything is computed.
    """
    values = F.margin_ranking_loss(input1, input2, target, margin=margin, reduction=reduction)
    return Terms(values)


@loss(
    layouts=(layout("elementwise", input=floats("*S"), target=signed("*S"), values="*S"),),
    inputs={
        "input": Input(meaning="Distances.", differentiable=True),
        "target": Input(
            meaning="1 for similar, -1 for dissimilar.", promotes=True, values=(SIGNS,)
        ),
    },
    result_inputs=("input",),
    options={
        "margin": Option(meaning="The distance from which dissimilar pairs have a loss of 0.")
    },
    source="torch.nn.functional.hinge_embedding_loss",
)
def hinge_embedding_loss(
    input: Tensor, target: Tensor, margin: float = 1.0, *, reduction: str = "none"
) -> Terms:
    """Distance of similar pairs, and its shortfall from a margin for dissimilar ones.

    The value of an element is `x` where the target is 1 and `max(0, margin - x)`
    where it is -1. For any other target it is the sum of the two.
    """
    return Terms(F.hinge_embedding_loss(input, target, margin=margin, reduction=reduction))


def _soft_margin_loss(input: Tensor, target: Tensor) -> Terms:
    """Compute soft_margin_loss without an exponential that overflows."""
    return Terms(-F.logsigmoid(target * input))


@loss(
    layouts=(layout("elementwise", input=floats("*S"), target=signed("*S"), values="*S"),),
    inputs={
        "input": Input(meaning="Scores.", differentiable=True),
        "target": Input(
            meaning="The sign that the score should have.", promotes=True, values=(SIGNS,)
        ),
    },
    result_inputs=("input",),
    formula=_soft_margin_loss,
    differences=(
        EngineDifference(
            where="`target` x `input` below -88 (below -709 in float64)",
            inputs={"input": [-100.0], "target": [1.0]},
            auto=[100.0],
            autograd=[math.inf],
        ),
        EngineDifference(
            where="`target` x `input` below -88 (below -709 in float64)",
            result="gradient of input",
            inputs={"input": [-100.0], "target": [1.0]},
            auto=[-1.0],
            autograd=[math.nan],
        ),
    ),
    source="torch.nn.functional.soft_margin_loss",
)
def soft_margin_loss(input: Tensor, target: Tensor, *, reduction: str = "none") -> Terms:
    """Logistic loss of two classes.

    The value of an element is `log(1 + exp(-y * x))`.
    """
    return Terms(F.soft_margin_loss(input, target, reduction=reduction))
