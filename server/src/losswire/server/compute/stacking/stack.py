"""The path of small evaluations on a GPU: those of one skeleton are computed as one block.

A call of torch costs more than the arithmetic here, so everything besides the loss itself is done
on the host with Python's numbers.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from losswire.server.catalogue.closed_form import Block, ClosedForm
from losswire.server.catalogue.record import Reduction
from losswire.server.catalogue.value_rules import Array
from losswire.server.compute import thresholds
from losswire.server.compute.reduce import (
    MEANS,
    Computed,
    Sums,
    batchmean_denominator,
    counted_values,
    denominator_terms,
    loss_of,
    sum64,
)
from losswire.server.compute.tensors import numpy_type, to_array, to_tensor
from losswire.server.compute.work import Work


def compute_stack(form: ClosedForm, works: Sequence[Work], device: torch.device) -> list[Computed]:
    """Compute works of one skeleton, which have to be `stackable` where there are several."""
    with torch.no_grad():
        return _Stack(form, works, device).run()


class _Stack:
    """Evaluations of one skeleton, each a slice of the rows."""

    def __init__(self, form: ClosedForm, works: Sequence[Work], device: torch.device) -> None:
        if form.stacked is None:
            message = "a closed form that does not compute stacks was chosen for one"
            raise TypeError(message)
        self.compute = form.stacked
        self.works = works
        self.first = works[0]
        self.device = device
        self.dtype: torch.dtype = getattr(torch, self.first.compute_dtype)
        self.arrays = {name: self._rows(name) for name in self.first.inputs}
        self.values = math.prod(self.first.values_shape)
        """The number of values of each evaluation."""

    def run(self) -> list[Computed]:
        """Compute all of them."""
        first = self.first
        terms = denominator_terms(first, self.arrays)
        # Terms of bool are the rows that count, and need not be found twice.
        conditions = terms is not None and terms.dtype == bool
        counted = terms if conditions else counted_values(first, self.arrays)
        denominators = self._denominators(terms)
        inputs = {name: self._input(name, array) for name, array in self.arrays.items()}
        gradients = {name: torch.empty_like(inputs[name]) for name in first.gradients_for}
        block = Block(
            inputs=inputs,
            options=first.options,
            coefficients=self._coefficients() if gradients else None,
            gradients=gradients,
            factors=None,
            scratch=_new,
        )
        values = self.compute(block)
        counts = [self.values] * len(self.works) if counted is None else self._each(counted)
        self._divide(gradients, denominators)
        if counted is not None and not counted.all():
            # torch gives an ignored row of NaN the gradient NaN.
            ignored = to_tensor(~counted.astype(bool)).to(self.device)
            for gradient in gradients.values():
                gradient.masked_fill_(ignored.unsqueeze(1), 0)
        losses = self._parts(to_array(values))
        derivatives = {name: self._gradient(name, each) for name, each in gradients.items()}
        results = []
        for position, total in enumerate(self._sums(values)):
            totals = Sums(total, total, int(counts[position]))
            denominator = denominators[position]
            loss = losses[position]
            if first.reduction is not Reduction.NONE:
                loss = np.array(loss_of(first, totals, denominator), loss.dtype)
            results.append(
                Computed(
                    loss=loss,
                    sum=total,
                    mean_numerator=total,
                    mean_denominator=denominator,
                    count=totals.count,
                    gradients={name: each[position] for name, each in derivatives.items()},
                )
            )
        return results

    def _rows(self, name: str) -> Array:
        """Concatenate an input of all evaluations."""
        arrays = [work.inputs[name] for work in self.works]
        # A weight may have no axis.
        return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)

    def _input(self, name: str, array: Array) -> Tensor:
        """Copy an input to the device, numbers in the compute dtype."""
        tensor = to_tensor(array).to(self.device)
        return tensor.to(self.dtype) if self.first.layout.inputs[name].is_float else tensor

    def _denominators(self, terms: Array | None) -> list[float]:
        """Return the denominator of each evaluation's mean."""
        first = self.first
        if first.normalizer is not None:
            return [first.normalizer] * len(self.works)
        if terms is None:
            return [batchmean_denominator(first, float(self.values))] * len(self.works)
        return [batchmean_denominator(first, each) for each in self._each(terms)]

    def _divide(self, gradients: Mapping[str, Tensor], denominators: Sequence[float]) -> None:
        """Divide gradients by the mean's denominators, at the end as `compute.autograd` does."""
        if self.first.reduction not in MEANS:
            return
        divisors = torch.tensor(denominators, dtype=self.dtype, device=self.device).unsqueeze(1)
        for gradient in gradients.values():
            gradient.view(len(self.works), -1).div_(divisors)

    def _coefficients(self) -> Tensor:
        """Return the gradient with respect to each value, in the compute dtype.

        That of a mean is not divided yet.
        """
        first = self.first
        shape = (len(self.works) * first.values_shape[0], *first.values_shape[1:])
        dtype = numpy_type(first.compute_dtype)
        if first.reduction is Reduction.NONE:
            given = [work.grad_output for work in self.works if work.grad_output is not None]
            found = np.concatenate(given).astype(dtype)
        else:
            grad_outputs = [
                1.0 if work.grad_output is None else float(work.grad_output) for work in self.works
            ]
            found = np.empty((len(grad_outputs), self.values), dtype)
            found[...] = np.array(grad_outputs)[:, np.newaxis]
            found = found.reshape(shape)
        return torch.from_numpy(found).to(self.device)

    def _each(self, terms: Array) -> list[float]:
        """Add up the terms of each evaluation, in float64."""
        rows = terms.reshape(len(self.works), -1)
        sums: list[float] = np.add.reduce(rows, axis=1, dtype=np.float64).tolist()
        return sums

    def _sums(self, values: Tensor) -> list[float]:
        """Add up the values of each evaluation."""
        rows = values.reshape(len(self.works), -1)
        if self.values > thresholds.SUMMED_IN_PYTHON:
            return [sum64(row) for row in rows]
        return [_sum(row) for row in rows.tolist()]

    def _gradient(self, name: str, found: Tensor) -> Array:
        """Copy a gradient to the host in the dtype asked for, cut into evaluations."""
        name = self.first.gradient_type(name)
        if name != self.first.compute_dtype:
            found = found.to(getattr(torch, name))
        return self._parts(to_array(found))

    def _parts(self, array: Array) -> Array:
        """Cut rows into those of each evaluation, along a new first axis."""
        return array.reshape(len(self.works), -1, *array.shape[1:])


def _new(name: str, like: Tensor) -> Tensor:
    """Return memory that is used once."""
    del name
    return torch.empty_like(like)


def _sum(values: list[float]) -> float:
    """Return the sum, rounded once; as numpy does where it is infinite or NaN."""
    try:
        return math.fsum(values)
    except (OverflowError, ValueError):
        with np.errstate(all="ignore"):
            return float(np.sum(values))
