"""Losses over the difference of two arrays."""

from dataclasses import replace

import torch.nn.functional as F
from torch import Tensor

from losswire.server.catalogue.closed_form import Denominators
from losswire.server.compute.closed_forms import elementwise
from losswire.server.compute.native import elementwise as native
from losswire.server.declare import (
    EngineDifference,
    Input,
    Option,
    Range,
    Terms,
    floats,
    layout,
    loss,
)

_PAIR = layout("elementwise", input=floats("*S"), target=floats("*S"), values="*S")
_WEIGHTED = layout(
    "elementwise", input=floats("*S"), target=floats("*S"), weight=floats("*S"), values="*S"
)
_INPUT = Input(meaning="Predictions.", differentiable=True)
_TARGET = Input(
    meaning="The values that should have been predicted.", differentiable=True, promotes=True
)
_WEIGHT = Input(meaning="A factor for each element.", differentiable=True, promotes=True)
_WEIGHT_DENOMINATORS = {
    "elementwise": Denominators(inputs=("weight",), terms=elementwise.weight_denominators)
}
_WEIGHT_SUM = "the sum of the weight (the number of values without one)"


@loss(
    layouts=(_WEIGHTED,),
    inputs={"input": _INPUT, "target": _TARGET, "weight": _WEIGHT},
    mean_denominator=_WEIGHT_SUM,
    denominators=_WEIGHT_DENOMINATORS,
    closed_forms={"elementwise": elementwise.closed_form(elementwise.mse, native.MSE)},
    source="torch.nn.functional.mse_loss",
)
def mse_loss(
    input: Tensor, target: Tensor, weight: Tensor | None = None, *, reduction: str = "none"
) -> Terms:
    """Squared error.

    The value of an element is `weight * (x - y) ** 2`.
    """
    values = F.mse_loss(input, target, reduction=reduction, weight=weight)  # type: ignore[call-arg]
    return Terms(values, denominators=weight)


@loss(
    layouts=(_WEIGHTED,),
    inputs={"input": _INPUT, "target": _TARGET, "weight": _WEIGHT},
    mean_denominator=_WEIGHT_SUM,
    denominators=_WEIGHT_DENOMINATORS,
    closed_forms={"elementwise": elementwise.closed_form(elementwise.l1, native.L1)},
    source="torch.nn.functional.l1_loss",
)
def l1_loss(
    input: Tensor, target: Tensor, weight: Tensor | None = None, *, reduction: str = "none"
) -> Terms:
    """Absolute error.

    The value of an element is `weight * |x - y|`; its gradient at `x = y` is 0.
    """
    values = F.l1_loss(input, target, reduction=reduction, weight=weight)  # type: ignore[call-arg]
    return Terms(values, denominators=weight)


def _smooth_l1_loss(input: Tensor, target: Tensor, beta: float = 1.0) -> Terms:
    """Compute smooth_l1_loss with the limit of its gradient, 0 at 0, for any beta."""
    return smooth_l1_loss.function(input, target, elementwise.beta_in(input, beta))


@loss(
    layouts=(_PAIR,),
    inputs={"input": _INPUT, "target": _TARGET},
    options={
        "beta": Option(
            meaning="Where the square becomes a line; 0 is l1_loss.",
            rules=(Range(low=0.0),),
        )
    },
    closed_forms={"elementwise": elementwise.closed_form(elementwise.smooth_l1, native.SMOOTH_L1)},
    formula=_smooth_l1_loss,
    differences=(
        EngineDifference(
            where="a `beta` above 0 that rounds to 0, `input` = `target`, in whole registers",
            result="gradient of input",
            # torch gives 0 to the elements that do not fill a register.
            inputs={"input": [0.0] * 64, "target": [0.0] * 64},
            options={"beta": 1e-46},
            auto=[0.0] * 64,
            autograd=[-1.0] * 64,
        ),
    ),
    source="torch.nn.functional.smooth_l1_loss",
)
def smooth_l1_loss(
    input: Tensor, target: Tensor, beta: float = 1.0, *, reduction: str = "none"
) -> Terms:
    """Squared error for small differences, absolute error for large ones.

    The value of an element is `(x - y) ** 2 / (2 * beta)` where `|x - y| < beta`,
    else `|x - y| - beta / 2`.
    """
    return Terms(F.smooth_l1_loss(input, target, reduction=reduction, beta=beta))


@loss(
    layouts=(_WEIGHTED,),
    inputs={
        "input": _INPUT,
        "target": replace(_TARGET, fixed_for_gradients=("input", "target")),
        "weight": _WEIGHT,
    },
    result_inputs=("input", "weight"),
    options={
        "delta": Option(
            meaning="Where the square becomes a line.",
            rules=(Range(low=0.0, open_low=True),),
        )
    },
    mean_denominator="the number of values, with and without a weight",
    closed_forms={"elementwise": elementwise.closed_form(elementwise.huber, native.HUBER)},
    source="torch.nn.functional.huber_loss",
)
def huber_loss(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    delta: float = 1.0,
    *,
    reduction: str = "none",
) -> Terms:
    """Squared error for small differences, linear for large ones.

    The value of an element is `weight * (x - y) ** 2 / 2` where `|x - y| <= delta`,
    else `weight * delta * (|x - y| - delta / 2)`.
    """
    return Terms(F.huber_loss(input, target, reduction=reduction, delta=delta, weight=weight))  # type: ignore[call-arg]
