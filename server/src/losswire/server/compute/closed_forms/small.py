"""The path of small evaluations: one block each, or several of one form in one block.

A call of torch costs more than the arithmetic here, so that everything besides the
loss itself is done with Python's numbers.
"""

import math
from collections.abc import Sequence
from typing import Final

import numpy as np
import torch
from torch import Tensor

from losswire.server.catalogue.closed_form import Block, ClosedForm
from losswire.server.catalogue.record import Reduction
from losswire.server.catalogue.value_rules import Array
from losswire.server.compute.reduce import (
    MEANS,
    Computed,
    Sums,
    loss_of,
    of_rows,
    quotient,
    sum64,
)
from losswire.server.compute.tensors import numpy_type, to_array, to_tensor
from losswire.server.compute.work import Work

_FEW_VALUES: Final = 1024
"""Up to so many values, adding them up one by one takes less time than calling torch."""


def compute_small(form: ClosedForm, works: Sequence[Work], device: torch.device) -> list[Computed]:
    """Evaluate some works of one form, which has to be `stackable` where they are several."""
    with torch.no_grad():
        return _Stack(form, works, device).run()


class _Stack:
    """Some evaluations of one form, each a slice of the rows."""

    def __init__(self, form: ClosedForm, works: Sequence[Work], device: torch.device) -> None:
        if form.small is None:
            message = "a closed form that does not compute small evaluations was chosen for one"
            raise TypeError(message)
        self.form = form
        self.small = form.small
        self.works = works
        self.first = works[0]
        self.device = device
        self.dtype: torch.dtype = getattr(torch, self.first.compute_dtype)
        self.arrays = {name: self._rows(name) for name in self.first.inputs}
        self.values = math.prod(self.first.values_shape)
        """How many values each evaluation has."""

    def run(self) -> list[Computed]:
        """Compute all of them."""
        first, form = self.first, self.form
        known = first.record.denominators.get(first.layout.name)
        terms = known.terms(self.arrays, first.options) if known else None
        # Terms that are conditions say what counts, and need not be found twice.
        conditions = terms is not None and terms.dtype == bool
        counted = terms if conditions else form.counted(self.arrays, first.options)
        denominators = self._denominators(terms)
        inputs = {name: self._input(name, array) for name, array in self.arrays.items()}
        gradients = {name: torch.empty_like(inputs[name]) for name in first.gradients_for}
        block = Block(
            inputs=inputs,
            options=first.options,
            coefficients=self._coefficients(denominators) if gradients else None,
            gradients=gradients,
            factors=None,
            scratch=_new,
        )
        values = self.small(block)
        counts = [self.values] * len(self.works) if counted is None else self._each(counted)
        losses = self._parts(to_array(values))
        slopes = {name: self._gradient(name, each) for name, each in gradients.items()}
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
                    gradients={name: each[position] for name, each in slopes.items()},
                )
            )
        return results

    def _rows(self, name: str) -> Array:
        """Make an input of all evaluations one array."""
        arrays = [work.inputs[name] for work in self.works]
        return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)

    def _input(self, name: str, array: Array) -> Tensor:
        """Make an input a tensor, numbers in the compute type."""
        tensor = to_tensor(array)
        if self.device.type != "cpu":
            tensor = tensor.to(self.device)
        real = self.first.layout.inputs[name].real and tensor.dtype is not self.dtype
        return tensor.to(self.dtype) if real else tensor

    def _denominators(self, terms: Array | None) -> list[float]:
        """Form the denominator of each evaluation's mean."""
        first = self.first
        if first.normalizer is not None:
            return [first.normalizer] * len(self.works)
        if terms is None:
            return [of_rows(first, float(self.values))] * len(self.works)
        return [of_rows(first, each) for each in self._each(terms)]

    def _coefficients(self, denominators: Sequence[float]) -> Tensor:
        """Give the gradient with respect to each value, in the compute type."""
        first = self.first
        shape = (len(self.works) * first.values_shape[0], *first.values_shape[1:])
        dtype = numpy_type(first.compute_dtype)
        if first.reduction is Reduction.NONE:
            given = [work.grad_output for work in self.works if work.grad_output is not None]
            found = np.concatenate(given).astype(dtype)
        else:
            grad_output = [
                1.0 if work.grad_output is None else float(work.grad_output) for work in self.works
            ]
            if first.reduction in MEANS:
                grad_output = list(map(quotient, grad_output, denominators))
            # Rounded from float64 once, whatever it is divided by.
            found = np.empty((len(grad_output), self.values), dtype)
            found[...] = np.array(grad_output)[:, np.newaxis]
            found = found.reshape(shape)
        tensor = torch.from_numpy(found)
        return tensor if self.device.type == "cpu" else tensor.to(self.device)

    def _each(self, terms: Array) -> list[float]:
        """Add up what belongs to each evaluation, in float64."""
        if len(self.works) == 1 and terms.dtype == bool:
            return [float(np.count_nonzero(terms))]
        rows = terms.reshape(len(self.works), -1)
        sums: list[float] = np.add.reduce(rows, axis=1, dtype=np.float64).tolist()
        return sums

    def _sums(self, values: Tensor) -> list[float]:
        """Add up the values of each evaluation."""
        rows = values.reshape(len(self.works), -1)
        if self.values > _FEW_VALUES:
            return [sum64(row) for row in rows]
        return [_sum(row) for row in rows.tolist()]

    def _gradient(self, name: str, found: Tensor) -> Array:
        """Bring a gradient to the host in the type asked for, cut into evaluations."""
        name = self.first.gradient_type(name)
        if name != self.first.compute_dtype:
            found = found.to(getattr(torch, name))
        return self._parts(to_array(found))

    def _parts(self, array: Array) -> Array:
        """Cut rows into those of each evaluation: a first axis more."""
        return array.reshape(len(self.works), -1, *array.shape[1:])


def _new(name: str, like: Tensor) -> Tensor:
    """Give memory that is used once."""
    del name
    return torch.empty_like(like)


def _sum(values: list[float]) -> float:
    """Add up without any rounding but the last; as numpy does where that is infinite or NaN."""
    try:
        return math.fsum(values)
    except (OverflowError, ValueError):
        with np.errstate(all="ignore"):
            return float(np.sum(values))
