"""Cross entropy over logits that the server makes itself from features and a matrix."""

import math
from collections.abc import Mapping

import torch.nn.functional as F
from torch import Tensor

from losswire.server.catalogue.closed_form import Denominators, Options, Rows, TiledForm
from losswire.server.compute.closed_forms import projection, softmax
from losswire.server.declare import (
    DISTRIBUTION,
    AbsentIn,
    ClassIndices,
    Context,
    Cost,
    EngineDifference,
    Input,
    Option,
    Range,
    Terms,
    floats,
    indices,
    layout,
    loss,
)
from losswire.server.losses.classification import index_terms

_PROBABILITIES = ("probabilities", "unbatched_probabilities")
_IGNORED = -100


def _logits(context: Context) -> int:
    """Count the logits."""
    rows = context.bindings.axes.get("N", 1)
    positions = context.bindings.groups.get("D", ())
    return rows * context.bindings.axes["C"] * math.prod(positions)


def _products(context: Context) -> int:
    """Count the steps of three matrix products, at some 25 multiplications a nanosecond."""
    return _logits(context) * context.bindings.axes["F"] // 8


def _denominators(inputs: Mapping[str, Rows], options: Options) -> Rows:
    """Return each row's class weight (1 without weights), and 0 where the row is ignored."""
    return softmax.index_denominators(inputs, _filled(options))


def _counted(inputs: Mapping[str, Rows], options: Options) -> Rows:
    """Return which rows are not ignored."""
    return softmax.index_counted(inputs, _filled(options))


def _filled(options: Options) -> Options:
    """Return the options with the class that is ignored."""
    given = options["ignore_index"]
    return {"ignore_index": _IGNORED if given is None else given}


_DENOMINATORS = Denominators(inputs=("target", "weight"), terms=_denominators)
_WITH_INDICES = TiledForm(
    compute=projection.linear_cross_entropy,
    cost=projection.cost,
    gradients=("input", "linear_weight", "linear_bias"),
)
_WITH_PROBABILITIES = TiledForm(
    compute=projection.linear_cross_entropy,
    cost=projection.cost,
    gradients=("input", "linear_weight", "linear_bias", "target", "weight"),
)


@loss(
    layouts=(
        layout(
            "unbatched",
            input=floats("F"),
            linear_weight=floats("C F"),
            target=indices(""),
            linear_bias=floats("C"),
            weight=floats("C"),
            values="",
        ),
        layout(
            "batched",
            input=floats("N F"),
            linear_weight=floats("C *D F"),
            target=indices("N *D"),
            linear_bias=floats("C *D"),
            weight=floats("C"),
            values="N *D",
        ),
        layout(
            "unbatched_probabilities",
            input=floats("F"),
            linear_weight=floats("C F"),
            target=floats("C"),
            linear_bias=floats("C"),
            weight=floats("C"),
            values="",
        ),
        layout(
            "probabilities",
            input=floats("N F"),
            linear_weight=floats("C *D F"),
            target=floats("N C *D"),
            linear_bias=floats("C *D"),
            weight=floats("C"),
            values="N *D",
        ),
    ),
    inputs={
        "input": Input(meaning="Features.", differentiable=True),
        "linear_weight": Input(
            meaning="The matrix that makes logits of features.", differentiable=True
        ),
        "target": Input(
            meaning="The class of each row, or a probability for each class.",
            differentiable=_PROBABILITIES,
            promotes=True,
            values=(
                DISTRIBUTION,
                ClassIndices(axis="C", or_option="ignore_index", option_default=_IGNORED),
            ),
        ),
        "linear_bias": Input(meaning="A bias that is added to the logits.", differentiable=True),
        "weight": Input(
            meaning="A factor for each class.",
            differentiable=_PROBABILITIES,
            promotes=_PROBABILITIES,
        ),
    },
    options={
        "ignore_index": Option(
            meaning="A target that contributes neither to the loss nor to its mean; "
            f"{_IGNORED} when it is left out.",
            rules=(AbsentIn(layouts=_PROBABILITIES, reason="with class probabilities"),),
        ),
        "label_smoothing": Option(
            meaning="The share of the target that is spread evenly over all classes.",
            rules=(Range(low=0.0, high=1.0),),
        ),
    },
    mean_denominator="class indices: the sum of weight[target] over the rows that are not ignored "
    "(their number without a weight); probabilities: the number of rows",
    denominators={"unbatched": _DENOMINATORS, "batched": _DENOMINATORS},
    counted=dict.fromkeys(("batched", "unbatched"), _counted),
    tiled_forms={
        "unbatched": _WITH_INDICES,
        "batched": _WITH_INDICES,
        **dict.fromkeys(_PROBABILITIES, _WITH_PROBABILITIES),
    },
    cost=Cost(scratch=_logits, steps=_products),
    differences=(
        EngineDifference(
            where="an ignored row with NaN",
            result="gradient of linear_weight",
            inputs={
                "input": [[math.nan], [1.0]],
                "linear_weight": [[0.0], [0.0]],
                "target": [-100, 0],
            },
            auto=[[-0.5], [0.5]],
            autograd=[[math.nan], [math.nan]],
        ),
    ),
    source="torch.nn.functional.linear_cross_entropy",
)
def linear_cross_entropy(
    input: Tensor,
    linear_weight: Tensor,
    target: Tensor,
    *,
    linear_bias: Tensor | None = None,
    weight: Tensor | None = None,
    ignore_index: int | None = None,
    label_smoothing: float = 0.0,
    reduction: str = "none",
) -> Terms:
    """Cross entropy of logits that are a linear function of the input.

    The logits of a row are `linear_weight @ input + linear_bias`, and its value is
    that of cross_entropy for them. Features and their gradients travel instead of
    logits, which may be far more. This is torch's function with `options=None`.
    """
    is_index = not target.is_floating_point()
    values = F.linear_cross_entropy(
        input,
        linear_weight,
        # In uint8 torch's label smoothing takes class 156 for ignore_index -100.
        target.long() if is_index else target,
        linear_bias=linear_bias,
        weight=weight,
        reduction=reduction,
        ignore_index=ignore_index,
        label_smoothing=label_smoothing,
    )
    if not is_index:
        return Terms(values)
    ignored = _IGNORED if ignore_index is None else ignore_index
    return index_terms(values, target.long(), weight, ignored)
