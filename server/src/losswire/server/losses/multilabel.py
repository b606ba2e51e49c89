"""Margin losses over class scores, and losses with several labels for each row."""

import math

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from losswire.server.compute import limits
from losswire.server.declare import (
    DISTRIBUTION,
    ClassIndices,
    ClassLists,
    Context,
    Cost,
    EngineDifference,
    Input,
    Option,
    Range,
    Terms,
    doubles,
    floats,
    indices,
    layout,
    loss,
    numbers,
)

_SCORES = Input(meaning="The score of each class.", differentiable=True)
_CLASS_WEIGHT = "A factor for each class."
_LONG = ("int64",)
_NANOSECONDS_A_PAIR = 30


def _pairs(context: Context) -> int:
    """Count the steps over pairs of a label and a class: quadratic, however small the inputs."""
    listed = np.logical_and.accumulate(context.inputs["target"] != -1, axis=-1)
    return int(listed.sum()) * context.bindings.axes["C"] * _NANOSECONDS_A_PAIR


@loss(
    layouts=(
        layout(
            "unbatched",
            input=doubles("C"),
            target=indices("", _LONG),
            weight=doubles("C"),
            values="",
            nonempty=("C",),
        ),
        layout(
            "batched",
            input=doubles("N C"),
            target=indices("N", _LONG),
            weight=doubles("C"),
            values="N",
            nonempty=("C",),
        ),
    ),
    inputs={
        "input": _SCORES,
        "target": Input(meaning="The class of each row.", values=(ClassIndices(axis="C"),)),
        "weight": Input(meaning=_CLASS_WEIGHT),
    },
    options={
        "p": Option(
            meaning="The power of each class's part: 1 or 2.", rules=(Range(low=1, high=2),)
        ),
        "margin": Option(
            meaning="The margin by which the target's score should exceed every other score."
        ),
    },
    source="torch.nn.functional.multi_margin_loss",
)
def multi_margin_loss(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    p: int = 1,
    margin: float = 1.0,
    *,
    reduction: str = "none",
) -> Terms:
    """Hinge loss of one class against all others.

    The value of a row is
    `sum over i != y of weight[y] * max(0, margin - x[y] + x[i]) ** p`, divided by the
    number of classes. An empty batch has the sum 0 and the mean NaN.
    """
    values = F.multi_margin_loss(
        input, target, p=p, margin=margin, weight=weight, reduction=reduction
    )
    return Terms(values)


@loss(
    layouts=(
        layout(
            "unbatched",
            input=doubles("C"),
            target=indices("C", _LONG),
            values="",
            nonempty=("C",),
        ),
        layout(
            "batched",
            input=doubles("N C"),
            target=indices("N C", _LONG),
            values="N",
            nonempty=("C",),
        ),
    ),
    inputs={
        "input": _SCORES,
        "target": Input(
            meaning="The classes of each row, then -1.", values=(ClassLists(axis="C"),)
        ),
    },
    cost=Cost(steps=_pairs),
    source="torch.nn.functional.multilabel_margin_loss",
)
def multilabel_margin_loss(input: Tensor, target: Tensor, *, reduction: str = "none") -> Terms:
    """Hinge loss of each of a row's classes against all classes that are not the row's.

    The value of a row is `sum of max(0, 1 - (x[y] - x[i]))` over its classes `y` and
    all other classes `i`, divided by the number of classes. A row's classes are
    those in front of its first -1. An empty batch has the sum 0 and the mean NaN.
    """
    return Terms(F.multilabel_margin_loss(input, target, reduction=reduction))


def _multilabel_soft_margin_loss(
    input: Tensor, target: Tensor, weight: Tensor | None = None
) -> Terms:
    """Compute multilabel_soft_margin_loss with its limits: a probability of 0 adds 0."""
    values = limits.product(target, F.logsigmoid(input))
    values = -(values + limits.product(1 - target, F.logsigmoid(-input)))
    if weight is not None:
        values = values * weight
    return Terms(values.sum(-1) / input.shape[-1])


@loss(
    layouts=(
        layout(
            "rows", input=floats("*S C"), target=numbers("*S C"), weight=floats("C"), values="*S"
        ),
    ),
    inputs={
        "input": Input(meaning="The logit of each class.", differentiable=True),
        "target": Input(
            meaning="The probability of each class.",
            differentiable=True,
            promotes=True,
            values=(DISTRIBUTION,),
        ),
        "weight": Input(meaning=_CLASS_WEIGHT, differentiable=True, promotes=True),
    },
    cost=Cost(buffers=6.0, buffers_with_gradients=12.0),
    formula=_multilabel_soft_margin_loss,
    differences=(
        EngineDifference(
            where="`input` inf, `target` 1; `input` -inf, `target` 0",
            inputs={"input": [[math.inf, -math.inf]], "target": [[1.0, 0.0]]},
            auto=[0.0],
            autograd=[math.nan],
        ),
    ),
    source="torch.nn.functional.multilabel_soft_margin_loss",
)
def multilabel_soft_margin_loss(
    input: Tensor, target: Tensor, weight: Tensor | None = None, *, reduction: str = "none"
) -> Terms:
    """Binary cross entropy of logits, averaged over the classes of each row.

    The value of a row is the sum over its classes of
    `-weight * (y * logsigmoid(x) + (1 - y) * logsigmoid(-x))`, divided by the number
    of classes.
    """
    return Terms(F.multilabel_soft_margin_loss(input, target, weight, reduction=reduction))
