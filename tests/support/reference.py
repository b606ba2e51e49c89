"""torch's own definition of each loss: one line a loss, written independently of the server.

`call` is torch's own function with torch's own defaults. The other two say how
torch forms its mean, which its reduced result then confirms.
"""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

Inputs = Mapping[str, Tensor]
Options = Mapping[str, Any]
Call = Callable[[Inputs, Options, str], Tensor]
Part = Callable[[Inputs, Options, Tensor], Tensor | None]
"""Gives something in the shape of the values from inputs, options and values."""


def _nothing(inputs: Inputs, options: Options, values: Tensor) -> Tensor | None:
    """Return 1 for each value."""
    del inputs, options, values
    nothing: Tensor | None = None
    return nothing


@dataclass(frozen=True)
class Reference:
    """torch's definition of one loss."""

    call: Call
    denominators: Part = _nothing
    """The share of each value in the mean's denominator."""
    scales: Part = _nothing
    """The factor with which each value enters the mean."""
    counted: Part = _nothing
    """Which values are not ignored."""


def _loss(function: Callable[..., Tensor]) -> Call:
    """Call a loss of torch by the names of its parameters."""

    def call(inputs: Inputs, options: Options, reduction: str) -> Tensor:
        with warnings.catch_warnings():
            # kl_div warns of its mean whenever it is asked for it.
            warnings.filterwarnings("ignore", message="reduction: 'mean' divides")
            return function(**inputs, **options, reduction=reduction)

    return call


def _nonempty(function: Callable[..., Tensor]) -> Call:
    """Call a loss for which torch reduces an empty batch to uninitialised memory."""
    call = _loss(function)

    def guarded(inputs: Inputs, options: Options, reduction: str) -> Tensor:
        if inputs["input"].numel() or reduction == "none":
            return call(inputs, options, reduction)
        nothing = inputs["input"].sum()
        return nothing / 0 if reduction == "mean" else nothing

    return guarded


def _over_indices(function: Callable[..., Tensor]) -> Call:
    """Call a loss of class indices; indices in uint8 as int64.

    torch has no uint8 targets of several axes, and with label smoothing it takes
    class 156 for an ignore_index of -100.
    """
    call = _loss(function)

    def widened(inputs: Inputs, options: Options, reduction: str) -> Tensor:
        target = inputs["target"]
        if target.dtype == torch.uint8:
            target = target.long()
        return call({**inputs, "target": target}, options, reduction)

    return widened


def _ctc_loss(inputs: Inputs, options: Options, reduction: str) -> Tensor:
    """Call ctc_loss, whose integers are int32 or int64."""
    accepted = (torch.int32, torch.int64)
    widened = {
        name: each if each.is_floating_point() or each.dtype in accepted else each.long()
        for name, each in inputs.items()
    }
    return _loss(F.ctc_loss)(widened, options, reduction)


def _gaussian_nll_loss(inputs: Inputs, options: Options, reduction: str) -> Tensor:
    """Call gaussian_nll_loss, which wants one variance for all as a Python number."""
    given = inputs["var"]
    # A scalar does not promote what it is computed with.
    var: Tensor | float = given if given.dim() else given.to(inputs["input"].dtype)
    if not given.dim() and inputs["input"].dim() > 1:
        var = float(given)
    return F.gaussian_nll_loss(
        inputs["input"], inputs["target"], var, **options, reduction=reduction
    )


_DISTANCES: dict[str, Callable[[Tensor, Tensor], Tensor] | None] = {
    "euclidean": None,
    "manhattan": lambda a, b: F.pairwise_distance(a, b, p=1.0),
    "squared_euclidean": lambda a, b: ((a - b) ** 2).sum(-1),
    "cosine": lambda a, b: 1 - F.cosine_similarity(a, b, dim=-1),
}


def _triplet_with_distance(inputs: Inputs, options: Options, reduction: str) -> Tensor:
    """Call triplet_margin_with_distance_loss, whose distance is a function."""
    distance = _DISTANCES[options.get("distance_function", "euclidean")]
    others = {name: value for name, value in options.items() if name != "distance_function"}
    others["distance_function"] = distance
    return _loss(F.triplet_margin_with_distance_loss)(inputs, others, reduction)


def _activation(function: Callable[..., Tensor]) -> Call:
    """Call an activation of torch by the names of its parameters."""
    return lambda inputs, options, _reduction: function(**inputs, **options)


def _weight(inputs: Inputs, options: Options, values: Tensor) -> Tensor | None:
    """Return the element's own weight."""
    del options, values
    return inputs.get("weight")


def _not_ignored(inputs: Inputs, options: Options, values: Tensor) -> Tensor | None:
    """Return which class indices are not ignored; None for class probabilities."""
    del values
    if inputs["target"].is_floating_point():
        return None
    return inputs["target"].long().ne(options.get("ignore_index", -100))


def _class_weight(inputs: Inputs, options: Options, values: Tensor) -> Tensor | None:
    """Return the weight of each row's class, 0 where the row is ignored."""
    counted = _not_ignored(inputs, options, values)
    if counted is None:
        return None
    rows = torch.zeros(counted.shape, dtype=torch.float64)
    weight = inputs.get("weight")
    rows[counted] = 1.0 if weight is None else weight.double()[inputs["target"][counted].long()]
    return rows


def _per_label(inputs: Inputs, options: Options, values: Tensor) -> Tensor | None:
    """Divide by the number of labels of each row."""
    del options, values
    return 1.0 / inputs["target_lengths"].double().clamp(min=1)


REFERENCES: dict[str, Reference] = {
    "binary_cross_entropy": Reference(_loss(F.binary_cross_entropy)),
    "binary_cross_entropy_with_logits": Reference(_loss(F.binary_cross_entropy_with_logits)),
    "cosine_embedding_loss": Reference(_loss(F.cosine_embedding_loss)),
    "cross_entropy": Reference(
        _over_indices(F.cross_entropy), denominators=_class_weight, counted=_not_ignored
    ),
    "ctc_loss": Reference(_ctc_loss, scales=_per_label),
    "gaussian_nll_loss": Reference(_gaussian_nll_loss),
    "hinge_embedding_loss": Reference(_loss(F.hinge_embedding_loss)),
    "huber_loss": Reference(_loss(F.huber_loss)),
    "kl_div": Reference(_loss(F.kl_div)),
    "l1_loss": Reference(_loss(F.l1_loss), denominators=_weight),
    "linear_cross_entropy": Reference(
        _over_indices(F.linear_cross_entropy), denominators=_class_weight, counted=_not_ignored
    ),
    "log_softmax": Reference(_activation(F.log_softmax)),
    "logsigmoid": Reference(_activation(F.logsigmoid)),
    "margin_ranking_loss": Reference(_loss(F.margin_ranking_loss)),
    "mse_loss": Reference(_loss(F.mse_loss), denominators=_weight),
    "multi_margin_loss": Reference(_nonempty(F.multi_margin_loss)),
    "multilabel_margin_loss": Reference(_nonempty(F.multilabel_margin_loss)),
    "multilabel_soft_margin_loss": Reference(_loss(F.multilabel_soft_margin_loss)),
    "nll_loss": Reference(
        _over_indices(F.nll_loss), denominators=_class_weight, counted=_not_ignored
    ),
    "poisson_nll_loss": Reference(_loss(F.poisson_nll_loss)),
    "sigmoid": Reference(_activation(F.sigmoid)),
    "smooth_l1_loss": Reference(_loss(F.smooth_l1_loss)),
    "soft_margin_loss": Reference(_loss(F.soft_margin_loss)),
    "softmax": Reference(_activation(F.softmax)),
    "softmin": Reference(_activation(F.softmin)),
    "triplet_margin_loss": Reference(_loss(F.triplet_margin_loss)),
    "triplet_margin_with_distance_loss": Reference(_triplet_with_distance),
}
