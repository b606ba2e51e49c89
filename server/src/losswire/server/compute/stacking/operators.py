"""Losses by the operators that torch's functions and their gradients are made of.

They return torch's bits without building a graph.
"""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from losswire.server.catalogue.closed_form import Block, Options
from losswire.server.catalogue.value_rules import Array
from losswire.server.compute.closed_forms.bernoulli import set_limits

_NONE = 0
"""torch's number for the reduction `none`."""

_CLASSES = 1
"""The axis of the classes; the first axis is the batch."""

_MATRIX = 2

# Looking an operator up takes as long as a small one runs.
_LOG_SOFTMAX_BACKWARD = torch.ops.aten._log_softmax_backward_data.out  # noqa: SLF001 (its gradient)
_NLL_FORWARD = torch.ops.aten.nll_loss_forward.default
_NLL_BACKWARD = torch.ops.aten.nll_loss_backward.grad_input


def takes_rows_of_classes(inputs: Mapping[str, Array], options: Options) -> bool:
    """Return whether these are (N, C) without smoothing; others are made of more operators."""
    return inputs["input"].ndim == _MATRIX and not options.get("label_smoothing")


def cross_entropy(block: Block) -> Tensor:
    """Compute cross entropy with class indices."""
    logits = block.inputs["input"]
    log_softmax = torch.log_softmax(logits, _CLASSES)
    gradient = block.gradients.get("input")
    if gradient is None:
        return _nll(block, log_softmax, None)
    grad_output = block.scratch("grad_output", logits)
    values = _nll(block, log_softmax, grad_output)
    _LOG_SOFTMAX_BACKWARD(grad_output, log_softmax, _CLASSES, logits.dtype, out=gradient)
    return values


def nll(block: Block) -> Tensor:
    """Compute the negative log-likelihood of classes."""
    return _nll(block, block.inputs["input"], block.gradients.get("input"))


def bce_with_logits(block: Block) -> Tensor:
    """Compute binary cross entropy between logits and targets."""
    inputs, target = block.inputs["input"], block.inputs["target"]
    weight, positive = block.inputs.get("weight"), block.inputs.get("pos_weight")
    gradient = block.gradients.get("input")
    if gradient is not None and block.coefficients is not None:
        sigmoid = torch.sigmoid(inputs)
        if positive is None:
            torch.sub(sigmoid, target, out=gradient)
        else:
            share = positive * target
            torch.sub((share + 1 - target).mul_(sigmoid), share, out=gradient)
        gradient.mul_(block.coefficients.to(inputs.dtype))
        if weight is not None:
            gradient.mul_(weight)
    values = F.binary_cross_entropy_with_logits(
        inputs, target, reduction="none", pos_weight=positive
    )
    set_limits(values, inputs, target, positive)
    return values if weight is None else values.mul_(weight)


def _nll(block: Block, inputs: Tensor, gradient: Tensor | None) -> Tensor:
    """Compute the negative log-likelihood of classes and, if it is asked for, its gradient."""
    target = block.inputs["target"].long()
    options = (target, block.inputs.get("weight"), _NONE, block.options["ignore_index"])
    values, total = _NLL_FORWARD(inputs, *options)
    if gradient is not None and block.coefficients is not None:
        coefficients = block.coefficients.to(inputs.dtype)
        # torch adds to the array that it is given.
        gradient.zero_()
        _NLL_BACKWARD(coefficients, inputs, *options, total, grad_input=gradient)
    found: Tensor = values
    return found
