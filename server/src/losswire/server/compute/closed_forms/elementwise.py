"""Closed forms of the losses of single elements, by torch's own operators. All values are flat.

torch has each of them as one operator forward and one backward; called with `out=` they return
torch's bits without a graph and without new memory.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from losswire.server.catalogue.closed_form import Block, ClosedForm, Native, Options

_NONE = 0
"""torch's number for the reduction `none`."""

_aten = torch.ops.aten


def weight_denominators(inputs: Mapping[str, Tensor], options: Options) -> Tensor | None:
    """Return the weight of each value; None: 1 each."""
    del options
    return inputs.get("weight")


def closed_form(block: Callable[[Block], Tensor], native: Native) -> ClosedForm:
    """Return the form of such a loss; on a GPU it computes stacks of small evaluations, too."""
    return ClosedForm(block=block, gradients=("input", "target"), stacked=block, native=native)


def mse(block: Block) -> Tensor:
    """Compute `weight * (x - y) ** 2` and `2 * weight * (x - y)`."""
    return _compute(block, _aten.mse_loss.out, _aten.mse_loss_backward.grad_input)


def beta_in(inputs: Tensor, beta: float) -> float:
    """Return the beta of smooth_l1_loss, and 0 where the dtype it is computed in has no such."""
    dtype = torch.float64 if inputs.dtype == torch.float64 else torch.float32
    return beta if torch.tensor(beta, dtype=dtype) else 0.0


def smooth_l1(block: Block) -> Tensor:
    """Compute the square below beta and the line above, and `clamp((x - y) / beta, -1, 1)`."""
    beta = beta_in(block.inputs["input"], block.options["beta"])
    if beta == 0:
        return l1(block)
    forward, backward = _aten.smooth_l1_loss.out, _aten.smooth_l1_loss_backward.grad_input
    return _compute(block, forward, backward, beta)


def huber(block: Block) -> Tensor:
    """Compute the square below delta and the line above, and `clamp(x - y, -delta, delta)`."""
    forward, backward = _aten.huber_loss.out, _aten.huber_loss_backward.out
    return _compute(block, forward, backward, block.options["delta"])


def l1(block: Block) -> Tensor:
    """Compute `weight * |x - y|` and `weight * sign(x - y)`."""
    inputs, target = block.inputs["input"], block.inputs["target"]
    difference = torch.sub(inputs, target, out=block.scratch("difference", inputs))
    values = torch.abs(difference, out=block.scratch("values", inputs))
    coefficients = _weigh(block, values)
    if coefficients is not None:
        _fill(block, lambda out: torch.mul(difference.sign_(), coefficients, out=out))
    return values


def _compute(
    block: Block, forward: Callable[..., Any], backward: Callable[..., Any], *constants: float
) -> Tensor:
    """Compute a loss by torch's operators."""
    inputs, target = block.inputs["input"], block.inputs["target"]
    values = block.scratch("values", inputs)
    forward(inputs, target, _NONE, *constants, out=values)
    coefficients = _weigh(block, values)
    if coefficients is not None:
        _fill(
            block,
            lambda out: backward(coefficients, inputs, target, _NONE, *constants, grad_input=out),
        )
    return values


def _weigh(block: Block, values: Tensor) -> Tensor | None:
    """Multiply the values by the weight; return the coefficients times the weight."""
    weight = block.inputs.get("weight")
    if weight is not None:
        values.mul_(weight)
    if block.coefficients is None:
        return None
    coefficients = block.coefficients.to(values.dtype)
    return coefficients if weight is None else coefficients * weight


def _fill(block: Block, differentiate: Callable[[Tensor], Any]) -> None:
    """Fill the gradient of the input, and of the target, which is its negative."""
    gradient, target = block.gradients.get("input"), block.gradients.get("target")
    if gradient is None and target is not None:
        differentiate(target)
        target.neg_()
    elif gradient is not None:
        differentiate(gradient)
        if target is not None:
            torch.neg(gradient, out=target)
