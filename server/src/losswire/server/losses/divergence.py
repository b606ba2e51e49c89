"""Divergences between distributions."""

import math
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

from losswire.server.catalogue.closed_form import ClosedForm
from losswire.server.compute import limits
from losswire.server.compute.closed_forms import bernoulli
from losswire.server.compute.native import elementwise as native
from losswire.server.declare import (
    DISTRIBUTION,
    LOG_PROBABILITIES,
    LOSS_REDUCTIONS,
    EngineDifference,
    Input,
    Option,
    Reduction,
    Terms,
    floats,
    layout,
    loss,
)

_MEAN: Final = 1
"""torch's number for the reduction `mean`."""


def _kl_div(input: Tensor, target: Tensor, log_target: bool = False) -> Terms:
    """Compute kl_div with its limits: a probability of 0 adds 0."""
    with torch.no_grad():
        if log_target:
            share, difference = target.exp(), target - input
            # A share that underflows is more than 0.
            values = (share * difference).where(difference.isfinite(), difference)
            slope = values + share
            none = target.isneginf() & ~input.isnan()
            values, slope = values.masked_fill(none, 0), slope.masked_fill(none, 0)
        else:
            share = target
            values = torch.xlogy(target, target).sub_(limits.times(target, input))
            slope = target.log().add_(1).sub_(input)
            # Between any probability and none, an impossible input adds an infinite loss.
            slope.masked_fill_((target == 0) & input.isneginf(), math.inf)
    return Terms(limits.differentiated(values, {input: -share, target: slope}))


@loss(
    layouts=(layout("elementwise", input=floats("*S"), target=floats("*S"), values="*S"),),
    inputs={
        "input": Input(
            meaning="Log-probabilities.", differentiable=True, values=(LOG_PROBABILITIES,)
        ),
        "target": Input(
            meaning="Probabilities, or log-probabilities with log_target.",
            differentiable=True,
            promotes=True,
            values=(DISTRIBUTION,),
        ),
    },
    options={"log_target": Option(meaning="Whether the target holds log-probabilities.")},
    reductions=(*LOSS_REDUCTIONS, Reduction.BATCHMEAN),
    mean_denominator="the number of values; with batchmean, the length of the first axis",
    closed_forms={
        "elementwise": ClosedForm(
            block=bernoulli.kl_div, stacked=bernoulli.kl_div, native=native.KL_DIV
        )
    },
    formula=_kl_div,
    differences=(
        EngineDifference(
            where="`target` 0, `input` infinite",
            inputs={"input": [-math.inf, math.inf], "target": [0.0, 0.0]},
            auto=[0.0, 0.0],
            autograd=[math.nan, math.nan],
        ),
        EngineDifference(
            where="`target` 0",
            result="gradient of target",
            inputs={"input": [-1.0], "target": [0.0]},
            auto=[-math.inf],
            autograd=[math.nan],
        ),
        EngineDifference(
            where="`log_target`, `target` -inf",
            inputs={"input": [-1.0], "target": [-math.inf]},
            options={"log_target": True},
            auto=[0.0],
            autograd=[math.nan],
        ),
    ),
    source="torch.nn.functional.kl_div",
)
def kl_div(
    input: Tensor, target: Tensor, log_target: bool = False, *, reduction: str = "none"
) -> Terms:
    """Kullback-Leibler divergence of a target from given log-probabilities.

    The value of an element is `y * (log(y) - x)`, or `exp(y) * (y - x)` with
    `log_target`. The reduction that agrees with the mathematical definition is
    batchmean.
    """
    if reduction == "mean":
        # F.kl_div warns of this reduction's name before it computes just this.
        return Terms(torch.kl_div(input, target, _MEAN, log_target=log_target))
    return Terms(F.kl_div(input, target, reduction=reduction, log_target=log_target))
