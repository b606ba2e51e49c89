"""Closed forms of the binary cross entropies and kl_div. All inputs and values are flat."""

import math

import torch
from torch import Tensor

from losswire.server.catalogue.closed_form import Block

_NONE = 0
"""torch's number for the reduction `none`."""

_aten = torch.ops.aten


def bce(block: Block) -> Tensor:
    """Compute `-(y * log(x) + (1 - y) * log(1 - x))` and `(x - y) / (x * (1 - x))`."""
    inputs, target = block.inputs["input"], block.inputs["target"]
    weight = block.inputs.get("weight")
    if weight is not None:
        weight = weight.expand(inputs.shape)
    values = block.scratch("values", inputs)
    _aten.binary_cross_entropy.out(inputs, target, weight, _NONE, out=values)
    gradient = block.gradients.get("input")
    if gradient is not None and block.coefficients is not None:
        coefficients, divisor = _coefficients(block, block.coefficients, values)
        _aten.binary_cross_entropy_backward.grad_input(
            coefficients, inputs, target, weight, _NONE, grad_input=gradient
        )
        if divisor != 1:
            gradient.div_(divisor)
    return values


def bce_with_logits(block: Block) -> Tensor:
    """Compute `(1 - y) * x + l * (log1p(exp(-|x|)) + max(-x, 0))`, `l = 1 + (pos_weight - 1) * y`.

    The gradient is `sigmoid(x) - y` without a `pos_weight`, and with one
    `(p + 1 - y) * sigmoid(x) - p`, where `p = pos_weight * y`.
    """
    inputs, target = block.inputs["input"], block.inputs["target"]
    weight, positive = block.inputs.get("weight"), block.inputs.get("pos_weight")
    values = torch.abs(inputs, out=block.scratch("values", inputs)).neg_().exp_().log1p_()
    values.sub_(torch.clamp(inputs, max=0.0, out=block.scratch("other", inputs)))
    if positive is not None:
        values.mul_((positive - 1) * target + 1)
    values.add_(torch.sub(1.0, target, out=block.scratch("other", inputs)).mul_(inputs))
    if _has_nan(values):
        set_limits(values, inputs, target, positive)
    if weight is not None:
        values.mul_(weight)
    gradient = block.gradients.get("input")
    if gradient is not None and block.coefficients is not None:
        torch.sigmoid(inputs, out=gradient)
        if positive is None:
            gradient.sub_(target)
        else:
            shared = positive * target
            gradient.mul_(shared + 1 - target).sub_(shared)
        coefficients, divisor = _coefficients(block, block.coefficients, values)
        gradient.mul_(coefficients)
        if weight is not None:
            gradient.mul_(weight)
        if divisor != 1:
            gradient.div_(divisor)
    return values


def set_limits(values: Tensor, inputs: Tensor, target: Tensor, pos_weight: Tensor | None) -> None:
    """Write the values of infinite logits: 0 if the target is the one that it stands for.

    A `pos_weight` of 0 multiplies, as in torch.
    """
    share = torch.where(inputs > 0, 1 - target, target)
    limit = share * math.inf
    if pos_weight is not None:
        limit = torch.where(inputs > 0, limit, limit * pos_weight)
    limit.masked_fill_(share == 0, 0)
    values.copy_(torch.where(inputs.isinf(), limit, values))


def _has_nan(values: Tensor) -> bool:
    """Return whether there may be a NaN, in one pass."""
    return math.isnan(values.sum())


def kl_div(block: Block) -> Tensor:
    """Compute `y * (log(y) - x)` and `-y`; with `log_target` `exp(y)` in place of `y`."""
    inputs, target = block.inputs["input"], block.inputs["target"]
    log_target = block.options["log_target"]
    if log_target:
        probability = torch.exp(target, out=block.scratch("other", inputs))
        values = torch.sub(target, inputs, out=block.scratch("values", inputs)).mul_(probability)
        if _has_nan(values):
            difference = target - inputs
            # A probability that underflows is more than 0.
            values.copy_(values.where(difference.isfinite(), difference))
            values.masked_fill_(target.isneginf() & ~inputs.isnan(), 0)
    else:
        probability = target
        values = torch.xlogy(target, target, out=block.scratch("values", inputs))
        product = torch.mul(target, inputs, out=block.scratch("other", inputs))
        if _has_nan(product):
            product.masked_fill_(inputs.isinf() & (target == 0), 0)
        values.sub_(product)
    gradient = block.gradients.get("input")
    if gradient is not None and block.coefficients is not None:
        torch.neg(probability, out=gradient)
        gradient.mul_(block.coefficients.to(gradient.dtype))
    return values


def _coefficients(block: Block, coefficients: Tensor, values: Tensor) -> tuple[Tensor, float]:
    """Return the coefficients in the dtype of the values, and their divisor.

    torch divides these gradients at the end, too.
    """
    if block.quotient is None:
        return coefficients.to(values.dtype), 1.0
    numerator, divisor = block.quotient
    return values.new_tensor(numerator).expand(values.shape), divisor
