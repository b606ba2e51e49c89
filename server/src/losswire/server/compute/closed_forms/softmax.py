"""Closed forms of the losses over a softmax, and of the negative log-likelihood.

With `x` the logits of a row, `lse = log(sum(exp(x)))` and `q` the target
distribution times the class weights, the value is `sum(q * (lse - x))` and its
gradient `sum(q) * exp(x - lse) - q`. No term grows with `x`: `max(x) - x` and
`log(sum(exp(x - max(x))))` are added instead, so that large logits lose no precision.
"""

import math
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from losswire.server.catalogue.closed_form import Block, Options, Rows
from losswire.server.compute.closed_forms.factors import fill_factors, refuse_negative

_CLASSES = 1
"""The axis of the classes; the first axis is the batch."""


def index_denominators(inputs: Mapping[str, Rows], options: Options) -> Rows:
    """Return each row's class weight (1 without weights), and 0 where the row is ignored."""
    target, weight = inputs["target"], inputs.get("weight")
    counted = index_counted(inputs, options)
    if weight is None:
        return counted
    if isinstance(target, np.ndarray):
        return np.where(counted, weight[np.where(counted, target, 0)], 0)
    return weight[target.where(counted, 0).long()].where(counted, 0)


def index_counted(inputs: Mapping[str, Rows], options: Options) -> Rows:
    """Return which rows are not ignored."""
    target: Rows = inputs["target"]
    ignored: int = options["ignore_index"]
    if isinstance(target, np.ndarray):
        return np.asarray(target != ignored)
    # As int64: compared with uint8, torch would wrap the number, and -100 would equal 156.
    return target.long().ne(ignored)


def cross_entropy_with_indices(block: Block) -> Tensor:
    """Compute cross entropy with class indices."""
    logits, _, weight = _read(block)
    counted, chosen = _chosen(block)
    smoothing = block.options["label_smoothing"]
    # The share of the loss at the target, and at each class.
    share: Tensor | float = 1.0 - smoothing
    if weight is not None:
        share = weight.double()[chosen] * share
    even = smoothing / logits.shape[_CLASSES]
    if block.coefficients is None:
        below = _below(block, logits)
        values = _of_target(below.gather(_CLASSES, chosen), share, smoothing)
        if smoothing:
            values = values + _summed(below, weight) * even
        return _in(logits, _clear(values.neg(), counted)).squeeze(_CLASSES)
    if block.factors is None:
        softmax, highest, log_sum = _softmax(block, logits)
    else:
        highest, log_sum, rest = _log_sum(block, logits)
    values = _of_target(highest - logits.gather(_CLASSES, chosen) + log_sum, share, smoothing)
    if smoothing:
        values += _spread_loss(block, logits, highest, log_sum, weight) * even
    coefficients = _clear(block.coefficients.unsqueeze(_CLASSES), counted)
    on_target = coefficients * share
    evenly = coefficients * even
    if block.factors is not None:
        if smoothing:
            refuse_negative(weight, "weight")
            on_target = on_target + evenly * _spread_weight(logits, weight)
        scale = _clear(on_target, counted)
        fill_factors(block.factors, (highest, log_sum, rest), scale, _CLASSES)
    elif "input" in block.gradients:
        if smoothing:
            softmax.mul_(_in(logits, on_target + evenly * _spread_weight(logits, weight)))
            softmax.sub_(_in(logits, evenly if weight is None else evenly * laid(logits, weight)))
        else:
            softmax.mul_(_in(logits, on_target))
        softmax.scatter_add_(_CLASSES, chosen, _in(logits, on_target.neg()))
    # An ignored row is 0 even if its logits are not finite, as in torch.
    return _in(logits, _clear(values, counted)).squeeze(_CLASSES)


def cross_entropy_with_probabilities(block: Block) -> Tensor:
    """Compute cross entropy with class probabilities."""
    logits, target, weight = _read(block)
    smoothing = block.options["label_smoothing"]
    given = target
    if smoothing:
        target = target * (1 - smoothing) + smoothing / logits.shape[_CLASSES]
    shares = target
    if weight is not None:
        target = target * laid(logits, weight)
    if block.coefficients is None:
        return _summed_over_classes(_below(block, logits), target, logits, shares).neg_()
    if block.factors is None:
        softmax, highest, log_sum = _softmax(block, logits)
    else:
        highest, log_sum, rest = _log_sum(block, logits)
    terms = torch.sub(highest, logits, out=block.scratch("terms", logits))
    terms.add_(_in(logits, log_sum))
    values = _summed_over_classes(terms, target, logits, shares)
    coefficients = block.coefficients.unsqueeze(_CLASSES)
    if block.factors is not None:
        refuse_negative(given, "target", coefficients != 0)
        total = _target_total(logits, given, weight, smoothing)
        fill_factors(block.factors, (highest, log_sum, rest), coefficients * total, _CLASSES)
    elif "input" in block.gradients:
        softmax.mul_(target.sum(_CLASSES, keepdim=True)).sub_(target)
        softmax.mul_(_in(logits, coefficients))
    return values


def _summed_over_classes(terms: Tensor, target: Tensor, logits: Tensor, shares: Tensor) -> Tensor:
    """Return the sum of the terms times the target. Overwrites the terms.

    A class whose logit is -inf adds 0 where its share, the target without class weights, is 0.
    """
    values = terms.mul_(target).sum(_CLASSES)
    if bool(values.isnan().any()):
        finite = logits.amax(_CLASSES, keepdim=True).isfinite()
        terms.masked_fill_(logits.isneginf() & (shares == 0) & finite, 0)
        values = terms.sum(_CLASSES)
    return values


def _target_total(
    logits: Tensor, target: Tensor, weight: Tensor | None, smoothing: float
) -> Tensor:
    """Return the sum of the target distribution times the class weights, all in float64.

    The caller computes the same to rebuild the gradient, and both must agree.
    """
    if weight is None:
        total = target.sum(_CLASSES, keepdim=True, dtype=torch.float64)
    else:
        refuse_negative(weight, "weight")
        weighted = target.double() * laid(logits, weight.double())
        total = weighted.sum(_CLASSES, keepdim=True)
    even = smoothing / logits.shape[_CLASSES]
    return total * (1 - smoothing) + _spread_weight(logits, weight) * even


def nll(block: Block) -> Tensor:
    """Compute the negative log-likelihood of classes."""
    inputs, target, _ = _read(block)
    counted: Tensor = index_counted(block.inputs, block.options)
    rows: Tensor = index_denominators(block.inputs, block.options).to(inputs.dtype)
    chosen = target.where(counted, 0).long().unsqueeze(_CLASSES)
    picked = inputs.gather(_CLASSES, chosen).squeeze(_CLASSES)
    gradient = block.gradients.get("input")
    if gradient is not None and block.coefficients is not None:
        share = (block.coefficients * rows).where(counted, 0.0).neg().unsqueeze(_CLASSES)
        gradient.zero_().scatter_(_CLASSES, chosen, _in(inputs, share))
    return (-picked * rows).where(counted, 0.0)


def _chosen(block: Block) -> tuple[Tensor | None, Tensor]:
    """Return which rows are not ignored (None: all), and the class of each; along the classes."""
    counted: Tensor = index_counted(block.inputs, block.options).unsqueeze(_CLASSES)
    chosen = block.inputs["target"].long().unsqueeze(_CLASSES)
    if bool(counted.all()):
        return None, chosen
    return counted, chosen.where(counted, 0)


def _clear(rows: Tensor, counted: Tensor | None) -> Tensor:
    """Return the rows with 0 where they are ignored."""
    return rows if counted is None else rows.where(counted, 0.0)


def _read(block: Block) -> tuple[Tensor, Tensor, Tensor | None]:
    return block.inputs["input"], block.inputs["target"], block.inputs.get("weight")


def _of_target(terms: Tensor, share: Tensor | float, smoothing: float) -> Tensor:
    """Return the share of the targets themselves, which is 0 if all of it is spread evenly."""
    return torch.zeros_like(terms) if smoothing == 1 else terms * share


def _below(block: Block, logits: Tensor) -> Tensor:
    """Return `x - lse`, the logarithm of the softmax, which a loss without gradient needs."""
    return torch.log_softmax(logits, _CLASSES, out=block.scratch("softmax", logits))


def _summed(below: Tensor, weight: Tensor | None) -> Tensor:
    """Return the sum over the classes, each times its weight, in float64. Overwrites `below`."""
    if weight is not None:
        below.mul_(laid(below, weight))
    return below.sum(_CLASSES, keepdim=True, dtype=torch.float64)


def _softmax(block: Block, logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the softmax, the highest logit of each row and `log(sum(exp(x - highest)))`.

    The softmax is written to the memory of the gradient, which it becomes. The numbers of a row
    are float64, which costs little and loses nothing.
    """
    out = block.gradients.get("input")
    softmax = torch.softmax(
        logits, _CLASSES, out=block.scratch("softmax", logits) if out is None else out
    )
    highest = logits.amax(_CLASSES, keepdim=True)
    # The largest probability is exp(0) / sum, and never so small that it loses precision.
    log_sum = softmax.amax(_CLASSES, keepdim=True).double().log_().neg_()
    return softmax, highest, log_sum


def _log_sum(block: Block, logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the highest logit of each row, `log(sum(exp(x - highest)))`, and its rounding error.

    More exact than `_softmax`, which forms the sum in float32. Powers of 2 cost a third of those
    of e, and err most where they are smallest.
    """
    highest = logits.amax(_CLASSES, keepdim=True)
    powers = torch.sub(logits, highest, out=block.scratch("softmax", logits))
    powers.mul_(math.log2(math.e))
    torch.exp2(powers, out=powers)
    total = powers.sum(_CLASSES, keepdim=True, dtype=torch.float64)
    log_sum = total.log()
    rest = torch.exp(-log_sum).mul_(total).sub_(1.0)
    # The error of a small logarithm is below the precision of this estimate.
    return highest, log_sum, rest.where(log_sum > 1.0, 0.0)


def _in(logits: Tensor, tensor: Tensor) -> Tensor:
    """Convert to the dtype of the logits."""
    return tensor.to(logits.dtype)


def laid(logits: Tensor, weight: Tensor) -> Tensor:
    """Return class weights as a view along the axis of the classes."""
    return weight.view(-1, *(1 for _ in logits.shape[_CLASSES + 1 :]))


def _spread_weight(logits: Tensor, weight: Tensor | None) -> Tensor | int:
    """Return the sum of the class weights."""
    return logits.shape[_CLASSES] if weight is None else weight.double().sum()


def _spread_loss(
    block: Block, logits: Tensor, highest: Tensor, log_sum: Tensor, weight: Tensor | None
) -> Tensor:
    """Return `sum(weight * (lse - x))`, the loss of a target spread evenly."""
    terms = torch.sub(highest, logits, out=block.scratch("terms", logits))
    if weight is not None:
        terms.mul_(laid(logits, weight))
    below = terms.sum(_CLASSES, keepdim=True, dtype=torch.float64)
    return below + log_sum * _spread_weight(logits, weight)
