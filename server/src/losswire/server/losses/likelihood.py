"""Negative log-likelihoods of numbers under a distribution that was predicted."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from losswire.server.compute import limits
from losswire.server.declare import (
    COUNTS,
    EngineDifference,
    Input,
    Option,
    Rates,
    Terms,
    Within,
    floats,
    layout,
    loss,
    numbers,
)

_VARIANCES = Within(low=0.0, high=float("inf"), meaning="variances", nan=True)
_OWN_VARIANCES = ("full", "per_row")


def _poisson_nll_loss(
    input: Tensor,
    target: Tensor,
    log_input: bool = True,
    full: bool = False,
    eps: float = 1e-8,
) -> Terms:
    """Compute poisson_nll_loss with its limits: a count of 0 adds the expected count only."""
    with torch.no_grad():
        if log_input:
            expected, logarithm = input.exp(), input
            by_input = expected - target
        else:
            expected, logarithm = input, (input + eps).log()
            shifted = input + eps
            none = (target == 0) & (shifted == 0)
            by_input = 1 - (target / shifted).masked_fill_(none, 0)
        values, by_target = expected - limits.times(target, logarithm), -logarithm
        if full:
            own = target.log()
            stirling = target * own - target + 0.5 * torch.log(2 * math.pi * target)
            values += stirling.masked_fill_(target <= 1, 0)
            by_target += (own + 0.5 / target).masked_fill_(target <= 1, 0)
    return Terms(limits.differentiated(values, {input: by_input, target: by_target}))


@loss(
    layouts=(layout("elementwise", input=numbers("*S"), target=numbers("*S"), values="*S"),),
    inputs={
        "input": Input(
            meaning="The expected count, or with log_input its logarithm.",
            differentiable=True,
            promotes=True,
            values=(Rates(unless="log_input"),),
        ),
        "target": Input(
            meaning="The observed count.",
            differentiable=True,
            promotes=True,
            values=(COUNTS,),
        ),
    },
    options={
        "log_input": Option(meaning="Whether the input is the logarithm of the expected count."),
        "full": Option(
            meaning="Whether to add Stirling's approximation of log(target!) where target > 1."
        ),
        "eps": Option(
            meaning="A number that keeps log(input + eps) finite; without log_input only."
        ),
    },
    promotes_integers=True,
    formula=_poisson_nll_loss,
    differences=(
        EngineDifference(
            where="`full`, `target` 0",
            result="gradient of target",
            inputs={"input": [0.5], "target": [0.0]},
            options={"full": True},
            auto=[-0.5],
            autograd=[math.nan],
        ),
        EngineDifference(
            where="`input` -inf and inf, `target` 0",
            inputs={"input": [-math.inf, math.inf], "target": [0.0, 0.0]},
            auto=[0.0, math.inf],
            autograd=[math.nan, math.nan],
        ),
        EngineDifference(
            where="without `log_input`, `input` + `eps` 0, `target` 0",
            inputs={"input": [0.0], "target": [0.0]},
            options={"log_input": False, "eps": 0.0},
            auto=[0.0],
            autograd=[math.nan],
        ),
    ),
    source="torch.nn.functional.poisson_nll_loss",
)
def poisson_nll_loss(
    input: Tensor,
    target: Tensor,
    log_input: bool = True,
    full: bool = False,
    eps: float = 1e-8,
    *,
    reduction: str = "none",
) -> Terms:
    """Negative log-likelihood of counts under a Poisson distribution.

    The value of an element is `exp(x) - y * x`, or `x - y * log(x + eps)` without
    `log_input`; with `full`, where `y > 1`, plus
    `y * log(y) - y + 0.5 * log(2 * pi * y)`. Integers are converted to the compute
    type before anything is computed.
    """
    values = F.poisson_nll_loss(
        input, target, log_input=log_input, full=full, eps=eps, reduction=reduction
    )
    return Terms(values)


@loss(
    layouts=(
        layout(
            "full",
            input=floats("*S"),
            target=floats("#1 *S"),
            var=floats("#1 *S"),
            values="*S",
        ),
        layout(
            "per_row",
            input=floats("*S K"),
            target=floats("#1 *S K"),
            var=floats("*S"),
            values="*S K",
        ),
        layout(
            "constant",
            input=floats("*S"),
            target=floats("#1 *S"),
            var=floats(""),
            values="*S",
        ),
    ),
    inputs={
        "input": Input(meaning="The expected value.", differentiable=True),
        "target": Input(
            meaning="The observed value; one axis may be 1 and broadcasts.",
            differentiable=True,
            promotes=True,
        ),
        "var": Input(
            meaning="The variance: of each element, where one axis may be 1 and broadcasts; of "
            "each row; or one for all.",
            differentiable=_OWN_VARIANCES,
            promotes=True,
            values=(_VARIANCES,),
        ),
    },
    options={
        "full": Option(meaning="Whether to add the constant 0.5 * log(2 * pi)."),
        "eps": Option(meaning="The least variance; smaller ones are raised to it."),
    },
    source="torch.nn.functional.gaussian_nll_loss",
)
def gaussian_nll_loss(
    input: Tensor,
    target: Tensor,
    var: Tensor,
    full: bool = False,
    eps: float = 1e-6,
    *,
    reduction: str = "none",
) -> Terms:
    """Negative log-likelihood of values under a normal distribution.

    The value of an element is `0.5 * (log(v) + (x - y) ** 2 / v)` with
    `v = max(var, eps)`, and with `full` plus `0.5 * log(2 * pi)`. The gradient with
    respect to `var` is that of the formula at `v`, also where `var < eps`. A scalar
    `var` over inputs of any rank corresponds to torch's number: it has no gradient
    (over inputs of one axis it is the variance of a row, and has one).
    """
    if not var.dim():
        var = var.to(input.dtype)  # a number does not promote what it is computed with
        var = var.expand_as(input) if input.dim() > 1 else var
    return Terms(F.gaussian_nll_loss(input, target, var, full=full, eps=eps, reduction=reduction))
