"""Reduce: from values to loss, and from the loss back to each value. The only place for both.

The loss is `sum(numerators) / sum(denominators)` in float64, whatever the type of
the values. A value of sample weight 0 is selected away, never multiplied away:
0 x inf is NaN.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from losswire.server.catalogue.closed_form import Factors
from losswire.server.catalogue.record import Reduction
from losswire.server.catalogue.shapes import Shape
from losswire.server.catalogue.value_rules import Array
from losswire.server.compute.devices.transfers import transfers_for
from losswire.server.compute.tensors import to_tensor
from losswire.server.compute.work import Work

MEANS = (Reduction.MEAN, Reduction.BATCHMEAN)
"""The reductions that divide."""


@dataclass(slots=True, kw_only=True)
class Computed:
    """What a path of computation gives, in host memory."""

    loss: Array
    """In the type computed in."""
    sum: float
    mean_numerator: float
    mean_denominator: float
    count: int
    gradients: dict[str, Array]
    factors: Mapping[str, Factors] = field(default_factory=dict)
    """The gradients in factored form."""


class Weighting:
    """The sample weight of one evaluation, laid over its values."""

    def __init__(self, work: Work, device: torch.device, shape: Shape) -> None:
        """Take the weight; `shape` is the values' shape, or that shape made flat."""
        self.weight: Tensor | None = None
        """The weight of each value, in float64; None: 1."""
        self.kept: Tensor | None = None
        """Which weights are not 0; None: all, because there are none."""
        self.removed: Tensor | None = None
        """Which weights are 0, where some are."""
        if work.sample_weight is not None:
            weight = transfers_for(device).bring(to_tensor(work.sample_weight)).to(torch.float64)
            self.weight = weight.expand(work.values_shape).reshape(shape)
            self.kept = self.weight != 0
            removed = ~self.kept
            self.removed = removed if bool(removed.any()) else None

    def rows(self, start: int, stop: int) -> "Weighting":
        """Give the part that lies over some rows of the values."""
        part = object.__new__(Weighting)
        for name in ("weight", "kept", "removed"):
            whole: Tensor | None = getattr(self, name)
            setattr(part, name, None if whole is None else whole[start:stop])
        return part

    def __call__(self, values: Tensor) -> Tensor:
        """Multiply by the weight, in float64, selecting 0 where it is 0."""
        if self.weight is None or self.kept is None:
            return values
        return torch.where(self.kept, values.to(torch.float64) * self.weight, 0.0)


@dataclass(slots=True)
class Sums:
    """The sums of the values seen so far."""

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
        """Add the values of some rows: `scale` is their share in the numerator."""
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


def denominator_of(work: Work, weighting: Weighting, denominators: Tensor | None) -> float:
    """Add up the mean's denominators (None: 1 each), or take the normalizer."""
    if work.normalizer is not None:
        return work.normalizer
    if denominators is not None:
        denominator = sum64(weighting(denominators.detach()))
    elif weighting.weight is not None:
        denominator = sum64(weighting.weight)
    else:
        denominator = float(math.prod(work.values_shape))
    return of_rows(work, denominator)


def denominator_ahead(work: Work) -> float:
    """Form the mean's denominator before any value is known.

    Whatever it follows from must be there; inputs that are not may be as large as they
    like, for nothing of the values' size is made unless an input has it.
    """
    if work.normalizer is not None:
        return work.normalizer
    known = work.record.denominators.get(work.layout.name)
    terms = None
    if known is not None:
        given = {name: to_tensor(work.inputs[name]) for name in known.inputs if name in work.inputs}
        terms = known.terms(given, work.options)
    if terms is not None:
        host = torch.device("cpu")
        return of_rows(work, sum64(Weighting(work, host, work.values_shape)(terms)))
    denominator = float(math.prod(work.values_shape))
    if work.sample_weight is not None:
        weight = to_tensor(work.sample_weight)
        denominator = sum64(weight) * quotient(denominator, weight.numel())
    return of_rows(work, denominator)


def of_rows(work: Work, denominator: float) -> float:
    """Make the denominator of a mean that of a batchmean, where that is asked for."""
    if work.reduction is not Reduction.BATCHMEAN:
        return denominator
    # A row counts once however many values it has; a scalar is one row.
    values_a_row = float(math.prod(work.values_shape[1:]))
    if not values_a_row:
        return float(work.values_shape[0])
    return quotient(denominator, values_a_row)


def loss_of(work: Work, totals: Sums, denominator: float) -> float:
    """Form the loss of a reduction other than NONE."""
    if work.reduction is Reduction.SUM:
        return totals.total
    return quotient(totals.numerator, denominator)


def grad_output_of(work: Work, device: torch.device) -> Tensor:
    """Give the gradient of the caller's objective with respect to the loss, in float64."""
    if work.grad_output is None:
        return torch.ones((), dtype=torch.float64, device=device)
    return transfers_for(device).bring(to_tensor(work.grad_output)).to(torch.float64)


def value_gradients(
    work: Work, grad_output: Tensor, denominator: float, scale: Tensor | None = None
) -> Tensor:
    """Give the gradient with respect to each value before its sample weight, in float64.

    A scalar where it is the same for all.
    """
    if work.reduction not in MEANS:
        return grad_output
    shared = grad_output / denominator
    return shared if scale is None else shared * scale


def sum64(values: Tensor) -> float:
    """Add up in float64."""
    return float(values.sum(dtype=torch.float64))


def quotient(numerator: float, denominator: float) -> float:
    """Divide as IEEE 754 does: x / 0 is infinite and 0 / 0 is NaN."""
    if denominator:
        return numerator / denominator
    with np.errstate(all="ignore"):
        return float(np.float64(numerator) / np.float64(denominator))
