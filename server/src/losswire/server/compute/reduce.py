"""The reduction: from values to the loss, and from the loss back to each value.

The loss is `sum(numerators) / sum(denominators)` in float64, whatever the type of
the values. A value of sample weight 0 is replaced by 0, not multiplied: 0 x inf is NaN.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from losswire.server.catalogue.closed_form import Factors, Rows
from losswire.server.catalogue.record import Reduction, Terms
from losswire.server.catalogue.shapes import Shape
from losswire.server.catalogue.value_rules import Array
from losswire.server.compute.devices.transfers import transfers_for
from losswire.server.compute.tensors import to_tensor
from losswire.server.compute.work import Work
from losswire.v1.evaluation_pb2 import ENGINE_AUTOGRAD

MEANS = (Reduction.MEAN, Reduction.BATCHMEAN)
"""The reductions that divide."""


@dataclass(slots=True, kw_only=True)
class Computed:
    """The result of a path of computation, in host memory."""

    loss: Array
    """In the compute dtype."""
    sum: float
    mean_numerator: float
    mean_denominator: float
    count: int
    gradients: dict[str, Array]
    factors: Mapping[str, Factors] = field(default_factory=dict)
    """The gradients in factored form."""
    terms: Terms | None = None
    """The terms of an unreduced loss by autograd; those of all others follow from the record."""


class Weighting:
    """The sample weight of one evaluation, broadcast to its values, and the values that count.

    A value is removed, whatever it is, if its weight is 0, or if its row is ignored. With
    `engine = autograd`, torch's function alone decides about rows that are ignored.
    """

    def __init__(self, work: Work, device: torch.device, shape: Shape) -> None:
        """Broadcast the weight; `shape` is the values' shape, or that shape flattened."""
        self.weight: Tensor | None = None
        """The weight of each value, in float64; None: 1."""
        self.kept: Tensor | None = None
        """Which values are not removed; None: there are no weights, and no value is ignored."""
        self.removed: Tensor | None = None
        """Which values are removed; None: none is."""
        transfers = transfers_for(device)
        if work.sample_weight is not None:
            weight = transfers.bring(to_tensor(work.sample_weight)).to(torch.float64)
            self.weight = weight.expand(work.values_shape).reshape(shape)
            self.kept = self.weight != 0
        counted = None if work.engine == ENGINE_AUTOGRAD else counted_values(work, work.inputs)
        if counted is not None and not counted.all():
            ours = transfers.bring(to_tensor(counted)).reshape(shape)
            self.kept = ours if self.kept is None else self.kept & ours
        if self.kept is not None:
            removed = ~self.kept
            self.removed = removed if bool(removed.any()) else None

    def rows(self, start: int, stop: int) -> "Weighting":
        """Return the weighting of some rows of the values."""
        part = object.__new__(Weighting)
        for name in ("weight", "kept", "removed"):
            whole: Tensor | None = getattr(self, name)
            setattr(part, name, None if whole is None else whole[start:stop])
        return part

    def __call__(self, values: Tensor) -> Tensor:
        """Return the values times the weight, in float64, and 0 where they are removed.

        Without weights they keep their type.
        """
        if self.kept is None:
            return values
        if self.weight is not None:
            values = values.to(torch.float64) * self.weight
        return values.where(self.kept, 0)


def counted_values(work: Work, inputs: Mapping[str, Array]) -> Array | None:
    """Return which values are not ignored, as torch ignores classes; None: all."""
    counted = work.record.counted.get(work.layout.name)
    return None if counted is None else counted(inputs, work.options)


@dataclass(slots=True)
class Sums:
    """The sums of the values added so far."""

    total: float = 0.0
    numerator: float = 0.0
    count: int = 0

    def add(
        self,
        values: Tensor,
        weighting: Weighting,
        *,
        scale: Tensor | None = None,
        counted: Tensor | None = None,
    ) -> None:
        """Add the values of some rows; `scale` is their factor in the numerator."""
        total = sum64(weighting(values))
        self.total += total
        if scale is None:
            self.numerator += total
        else:
            self.numerator += sum64(weighting(values.to(torch.float64) * scale))
        conditions = [each for each in (counted, weighting.kept) if each is not None]
        if not conditions:
            self.count += values.numel()
        elif len(conditions) == 1:
            self.count += int(conditions[0].sum())
        else:
            self.count += int((conditions[0] & conditions[1]).sum())


# The mean's denominator is the normalizer or the sum of a term for each value. Every path finds the
# terms by `denominator_terms` or gets them from the loss function, and handles batchmean by
# `batchmean_denominator`. The sums between these differ, because their order decides the last bits:
# - `denominator_of`, for autograd and blocks, adds up in torch on the device, where the terms are.
# - `denominator_ahead`, for chunked calls, has no values and only some of the inputs, and must not
#   expand a weight to the size of values that do not fit into memory.
# - `native/rows.py` adds up in numpy: for small evaluations a call of torch takes longer than the
#   loss. `native/places.py` and `message.h` do the same for messages, without sample weights.
# - `stacking/stack.py` returns one denominator for each evaluation of a stack.


def denominator_terms(work: Work, inputs: Mapping[str, Rows]) -> Rows | None:
    """Return the terms of the mean's denominator, by the record of the loss; None: 1 each.

    `inputs` are those of the evaluation, as arrays or as tensors on the host.
    """
    known = work.record.denominators.get(work.layout.name)
    return known.terms(inputs, work.options) if known else None


def denominator_of(work: Work, weighting: Weighting, denominators: Tensor | None) -> float:
    """Return the sum of the mean's denominators (None: 1 each), or the normalizer."""
    if work.normalizer is not None:
        return work.normalizer
    if denominators is not None:
        denominator = sum64(weighting(denominators.detach()))
    elif weighting.weight is not None:
        denominator = sum64(weighting.weight)
    else:
        denominator = float(math.prod(work.values_shape))
    return batchmean_denominator(work, denominator)


def denominator_ahead(work: Work) -> float:
    """Return the mean's denominator before any value is known.

    The inputs that it follows from must be given. The others may be of any size: no array as
    large as the values is made unless an input is.
    """
    if work.normalizer is not None:
        return work.normalizer
    known = work.record.denominators.get(work.layout.name)
    names = [name for name in known.inputs if name in work.inputs] if known else []
    terms = denominator_terms(work, {name: to_tensor(work.inputs[name]) for name in names})
    if terms is not None:
        host = torch.device("cpu")
        return batchmean_denominator(work, sum64(Weighting(work, host, work.values_shape)(terms)))
    denominator = float(math.prod(work.values_shape))
    if work.sample_weight is not None:
        weight = to_tensor(work.sample_weight)
        denominator = sum64(weight) * quotient(denominator, weight.numel())
    return batchmean_denominator(work, denominator)


def batchmean_denominator(work: Work, denominator: float) -> float:
    """Return the mean's denominator; for batchmean, divided by the values of a row."""
    if work.reduction is not Reduction.BATCHMEAN:
        return denominator
    # A row counts once, whatever its number of values; a scalar is one row.
    values_a_row = float(math.prod(work.values_shape[1:]))
    if not values_a_row:
        return float(work.values_shape[0])
    return quotient(denominator, values_a_row)


def loss_of(work: Work, totals: Sums, denominator: float) -> float:
    """Return the loss of a reduction other than NONE."""
    if work.reduction is Reduction.SUM:
        return totals.total
    return quotient(totals.numerator, denominator)


def grad_output_of(work: Work, device: torch.device) -> Tensor:
    """Return the gradient of the caller's objective with respect to the loss, in float64."""
    if work.grad_output is None:
        return torch.ones((), dtype=torch.float64, device=device)
    return transfers_for(device).bring(to_tensor(work.grad_output)).to(torch.float64)


def value_gradients(
    work: Work, grad_output: Tensor, denominator: float, scale: Tensor | None = None
) -> Tensor:
    """Return the gradient with respect to each value before its sample weight, in float64.

    A scalar if it is the same for all.
    """
    if work.reduction not in MEANS:
        return grad_output
    shared = grad_output / denominator
    return shared if scale is None else shared * scale


def sum64(values: Tensor) -> float:
    """Return the sum in float64."""
    return float(values.sum(dtype=torch.float64))


def quotient(numerator: float, denominator: float) -> float:
    """Divide as in IEEE 754: x / 0 is infinite and 0 / 0 is NaN."""
    if denominator:
        return numerator / denominator
    with np.errstate(all="ignore"):
        return float(np.float64(numerator) / np.float64(denominator))
