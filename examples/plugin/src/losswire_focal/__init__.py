"""Sigmoid focal loss: `losswire-server serve --losses losswire_focal`."""

import torch.nn.functional as F
from torch import Tensor

from losswire.server.declare import (
    DISTRIBUTION,
    Input,
    Option,
    Range,
    Terms,
    floats,
    layout,
    loss,
)


@loss(
    layouts=(layout("elementwise", input=floats("*S"), target=floats("*S"), values="*S"),),
    inputs={
        "input": Input(meaning="Logits.", differentiable=True),
        "target": Input(
            meaning="The probability of the positive class, mostly 0 or 1.",
            differentiable=True,
            values=(DISTRIBUTION,),
        ),
    },
    options={
        "alpha": Option(
            meaning="The weight of positives, against 1 - alpha of negatives; below 0: no weights.",
            rules=(Range(high=1.0),),
        ),
        "gamma": Option(
            meaning="How much less an element counts the better it is predicted; 0: not at all.",
            rules=(Range(low=0.0, high=float("inf"), open_high=True),),
        ),
    },
    source="torchvision.ops.sigmoid_focal_loss",
)
def sigmoid_focal_loss(
    input: Tensor, target: Tensor, alpha: float = 0.25, gamma: float = 2.0
) -> Terms:
    """Binary cross entropy that concentrates on the elements that are predicted badly.

    The value of an element is `a * (1 - p) ** gamma * cross_entropy`, where `p` is the
    probability given to the true class and `a` is `alpha` for positives and `1 - alpha`
    for negatives: Lin et al., Focal Loss for Dense Object Detection, 2017.
    """
    values = F.binary_cross_entropy_with_logits(input, target, reduction="none")
    # 1 - p, without the difference of two numbers close to 1.
    missed = input.sigmoid() * (1 - target) + (-input).sigmoid() * target
    values = values * missed**gamma
    if alpha >= 0:
        values = values * (alpha * target + (1 - alpha) * (1 - target))
    return Terms(values)
