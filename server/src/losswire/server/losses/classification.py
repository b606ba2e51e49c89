"""Losses over class scores."""

import math
from dataclasses import replace

import torch.nn.functional as F
from torch import Tensor

from losswire.server.catalogue.closed_form import ClosedForm, Denominators
from losswire.server.compute import limits
from losswire.server.compute.closed_forms import softmax
from losswire.server.compute.native import softmax as native
from losswire.server.compute.stacking import operators
from losswire.server.declare import (
    DISTRIBUTION,
    LOG_PROBABILITIES,
    REALS,
    ClassIndices,
    EngineDifference,
    Input,
    NegativeIn,
    Option,
    Range,
    Terms,
    floats,
    indices,
    layout,
    loss,
)

_CLASS_DENOMINATORS = Denominators(inputs=("target", "weight"), terms=softmax.index_denominators)
_COUNTED = dict.fromkeys(("batched", "unbatched"), softmax.index_counted)
_PROBABILITIES = ("probabilities", "unbatched_probabilities")
_IGNORABLE = ClassIndices(axis="C", or_option="ignore_index")
_CLASS_WEIGHT = "A factor for each class."
_INDEX_DENOMINATOR = (
    "the sum of weight[target] over the rows that are not ignored (their number without a weight)"
)


def _cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
) -> Terms:
    """Compute cross_entropy with its limits: a class of probability 0 adds 0."""
    axis = min(input.dim() - 1, 1)
    if not target.is_floating_point():
        found = cross_entropy.function(input, target, weight, ignore_index, label_smoothing)
        if label_smoothing < 1 or found.counted is None:
            return found
        # Of the target itself nothing is left, which must not multiply an infinite loss.
        evenly = F.log_softmax(input, axis)
        if weight is not None:
            evenly = evenly * softmax.laid(input, weight)
        values = (-evenly.mean(axis)).where(found.counted, 0.0)
        return replace(found, values=values)
    if label_smoothing:
        target = target * (1 - label_smoothing) + label_smoothing / input.shape[axis]
    terms = limits.product(target, F.log_softmax(input, axis))
    if weight is not None:
        terms = terms * softmax.laid(input, weight)
    return Terms(-terms.sum(axis))


@loss(
    layouts=(
        layout("unbatched", input=floats("C"), target=indices(""), weight=floats("C"), values=""),
        layout(
            "batched",
            input=floats("N C *D"),
            target=indices("N *D"),
            weight=floats("C"),
            values="N *D",
        ),
        layout(
            "unbatched_probabilities",
            input=floats("C"),
            target=floats("C"),
            weight=floats("C"),
            values="",
        ),
        layout(
            "probabilities",
            input=floats("N C *D"),
            target=floats("N C *D"),
            weight=floats("C"),
            values="N *D",
        ),
    ),
    inputs={
        "input": Input(meaning="Logits, unnormalized.", differentiable=True),
        "target": Input(
            meaning="The class of each row, or a probability for each class.",
            differentiable=_PROBABILITIES,
            promotes=True,
            values=(DISTRIBUTION, _IGNORABLE),
        ),
        "weight": Input(
            meaning=_CLASS_WEIGHT, differentiable=_PROBABILITIES, promotes=_PROBABILITIES
        ),
    },
    options={
        "ignore_index": Option(
            meaning="A target that contributes neither to the loss nor to its mean.",
            rules=(NegativeIn(layouts=_PROBABILITIES, reason="with class probabilities"),),
        ),
        "label_smoothing": Option(
            meaning="The share of the target that is spread evenly over all classes.",
            rules=(Range(low=0.0, high=1.0),),
        ),
    },
    mean_denominator=f"class indices: {_INDEX_DENOMINATOR}; probabilities: the number of rows",
    denominators={"batched": _CLASS_DENOMINATORS},
    counted=_COUNTED,
    closed_forms={
        "batched": ClosedForm(
            block=softmax.cross_entropy_with_indices,
            stacked=operators.cross_entropy,
            fits_stacked=operators.takes_rows_of_classes,
            native=native.CROSS_ENTROPY,
            factored="input",
            single="unbatched",
        ),
        "probabilities": ClosedForm(
            block=softmax.cross_entropy_with_probabilities,
            factored="input",
            single="unbatched_probabilities",
        ),
    },
    formula=_cross_entropy,
    differences=(
        EngineDifference(
            where="an ignored row with NaN, or with nothing but -inf",
            result="gradient of input",
            inputs={"input": [[math.nan, 0.0], [-math.inf, -math.inf]], "target": [-100, -100]},
            auto=[[0.0, 0.0], [0.0, 0.0]],
            autograd=[[math.nan, math.nan], [math.nan, math.nan]],
        ),
        EngineDifference(
            where="`input` -inf where the probability is 0",
            inputs={"input": [[-math.inf, 0.5]], "target": [[0.0, 1.0]]},
            auto=[0.0],
            autograd=[math.nan],
        ),
        EngineDifference(
            where="`label_smoothing` 1, `input` -inf at the target",
            inputs={"input": [[-math.inf, 0.5]], "target": [0]},
            options={"label_smoothing": 1.0},
            auto=[math.inf],
            autograd=[math.nan],
        ),
    ),
    source="torch.nn.functional.cross_entropy",
)
def cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    *,
    reduction: str = "none",
) -> Terms:
    """Cross entropy between logits and classes or class probabilities.

    With class indices, the value of a row is `-weight[y] * log_softmax(input)[y]`;
    with probabilities, `-sum(weight * target * log_softmax(input))`. A target of
    integers holds classes, one of floats probabilities.
    """
    if not target.is_floating_point():
        target = target.long()  # torch lacks uint8 for a target of several axes
    values = F.cross_entropy(
        input,
        target,
        weight,
        ignore_index=ignore_index,
        reduction=reduction,
        label_smoothing=label_smoothing,
    )
    if target.is_floating_point():
        return Terms(values)
    return index_terms(values, target, weight, ignore_index)


@loss(
    layouts=(
        layout("unbatched", input=floats("C"), target=indices(""), weight=floats("C"), values=""),
        layout(
            "batched",
            input=floats("N C *D"),
            target=indices("N *D"),
            weight=floats("C"),
            values="N *D",
        ),
    ),
    inputs={
        "input": Input(
            meaning="Log-probabilities.", differentiable=True, values=(LOG_PROBABILITIES,)
        ),
        "target": Input(meaning="The class of each row.", values=(_IGNORABLE,)),
        "weight": Input(meaning=_CLASS_WEIGHT, values=(REALS,)),
    },
    options={
        "ignore_index": Option(
            meaning="A target that contributes neither to the loss nor to its mean."
        ),
    },
    mean_denominator=_INDEX_DENOMINATOR,
    denominators={"batched": _CLASS_DENOMINATORS},
    counted=_COUNTED,
    closed_forms={
        "batched": ClosedForm(
            block=softmax.nll,
            stacked=operators.nll,
            fits_stacked=operators.takes_rows_of_classes,
            native=native.NLL,
        )
    },
    source="torch.nn.functional.nll_loss",
)
def nll_loss(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    *,
    reduction: str = "none",
) -> Terms:
    """Negative log-likelihood of classes under given log-probabilities.

    The value of a row is `-weight[y] * input[y]`.
    """
    target = target.long()  # torch lacks uint8 for a target of several axes
    values = F.nll_loss(input, target, weight, ignore_index=ignore_index, reduction=reduction)
    return index_terms(values, target, weight, ignore_index)


def index_terms(values: Tensor, target: Tensor, weight: Tensor | None, ignore_index: int) -> Terms:
    """Form the mean over class indices: each row that is not ignored counts its class weight."""
    # As int64: compared with uint8, torch would wrap the number, and -100 equal 156.
    counted = target.long() != ignore_index
    if weight is None:
        return Terms(values, denominators=counted, counted=counted)
    rows = weight.detach()[target.where(counted, 0).long()]
    return Terms(values, denominators=rows.where(counted, 0), counted=counted)
