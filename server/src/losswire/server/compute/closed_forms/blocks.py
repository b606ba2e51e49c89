"""The path of closed forms in torch: walks blocks of rows that stay in the cache."""

import math
from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor

from losswire.server.catalogue.closed_form import Block, ClosedForm, Factors
from losswire.server.catalogue.record import Reduction
from losswire.server.compute import thresholds
from losswire.server.compute.closed_forms.factors import no_factors
from losswire.server.compute.devices.transfers import transfers_for
from losswire.server.compute.reduce import (
    MEANS,
    Computed,
    Sums,
    Weighting,
    denominator_of,
    denominator_terms,
    grad_output_of,
    loss_of,
    quotient,
    value_gradients,
)
from losswire.server.compute.tensors import to_array, to_tensor
from losswire.server.compute.work import Work

_HOST: Final = torch.device("cpu")


def compute_closed(
    form: ClosedForm,
    work: Work,
    device: torch.device = _HOST,
    pause: Callable[[], None] | None = None,
) -> Computed:
    """Compute by a closed form, with dense gradients or factored ones.

    `pause` is called between two blocks, and may raise an exception.
    """
    with torch.no_grad():
        return _Walk(form, work, device).run(pause)


class Buffers:
    """Scratch memory that is reused from block to block."""

    def __init__(self) -> None:
        """Begin without buffers."""
        self._kept: dict[str, Tensor] = {}

    def __call__(self, name: str, like: Tensor) -> Tensor:
        """Return the buffer of this name, contiguous, in the shape and dtype of a tensor."""
        kept = self._kept.get(name)
        if kept is None or kept.dtype != like.dtype or kept.numel() < like.numel():
            kept = torch.empty(like.numel(), dtype=like.dtype, device=like.device)
            self._kept[name] = kept
        return kept[: like.numel()].view(like.shape)


class _Walk:
    """One evaluation, its inputs seen as rows."""

    def __init__(self, form: ClosedForm, work: Work, device: torch.device) -> None:
        self.form = form
        self.work = work
        self.device = device
        self.dtype: torch.dtype = getattr(torch, work.compute_dtype)
        self.buffers = Buffers()
        values = work.values_shape
        # If all inputs have the values' shape, every element is a row.
        flat = all(array.shape == values for array in work.inputs.values())
        self.shape = (math.prod(values),) if flat else values
        self.weighting = Weighting(work, device, self.shape)
        self.rows: dict[str, Tensor] = {}
        self.shared: dict[str, Tensor] = {}
        for name, array in work.inputs.items():
            tensor = to_tensor(array)
            if name in work.row_inputs:
                self.rows[name] = tensor.reshape(self.shape) if flat else tensor
            else:
                self.shared[name] = tensor.to(self.dtype)
        self.placed = {name: tensor.to(device) for name, tensor in self.shared.items()}
        self.gradients: dict[str, Tensor] = {}
        self.quotient: tuple[float, float] | None = None
        self.factors: Factors | None = None
        if work.factored:
            self.factors = no_factors(self.shape).each(lambda each: each.to(device))
        else:
            self.gradients = {name: self._place(name) for name in work.gradients_for}

    def _place(self, name: str) -> Tensor:
        """Return the memory of a gradient: the caller's destination, if there is one."""
        shape = self.rows[name].shape
        if name in self.work.destinations:
            return to_tensor(self.work.destinations[name].array).view(shape)
        return torch.empty(shape, dtype=getattr(torch, self.work.gradient_type(name)))

    def run(self, pause: Callable[[], None] | None) -> Computed:
        """Compute all blocks."""
        work = self.work
        denominator = denominator_of(work, self.weighting, self._denominators())
        self.quotient = self._shared_quotient(denominator)
        gradient = self._value_gradients(denominator)
        totals = Sums()
        unreduced = work.reduction is Reduction.NONE
        values = torch.empty(self.shape if unreduced else (), dtype=self.dtype, device=self.device)
        for start, stop in self._blocks():
            if start and pause:
                pause()
            weighting = self.weighting.rows(start, stop)
            block = self._block(start, stop, gradient, weighting)
            found = self.form.block(block)
            self._store(start, stop, block, weighting)
            totals.add(found, weighting)
            if unreduced:
                values[start:stop] = weighting(found)
        if unreduced:
            loss = values.view(work.values_shape)
        else:
            loss = values.fill_(loss_of(work, totals, denominator))
        return Computed(
            loss=to_array(loss),
            sum=totals.total,
            mean_numerator=totals.numerator,
            mean_denominator=denominator,
            count=totals.count,
            gradients={
                name: to_array(tensor.view(work.inputs[name].shape))
                for name, tensor in self.gradients.items()
            },
            factors=dict.fromkeys(work.gradients_for, self.factors) if self.factors else {},
        )

    def _denominators(self) -> Tensor | None:
        """Return the terms of the mean's denominator; None: 1 each, or a normalizer is given."""
        if self.work.normalizer is not None:
            return None
        terms = denominator_terms(self.work, self.rows | self.shared)
        return None if terms is None else terms.to(self.device)

    def _value_gradients(self, denominator: float) -> Tensor:
        """Return the gradient with respect to each value, or the one that all share."""
        work = self.work
        if work.grad_output is None:
            shared = quotient(1.0, denominator) if work.reduction in MEANS else 1.0
            return torch.full((), shared, dtype=torch.float64, device=self.device)
        gradient = value_gradients(work, grad_output_of(work, self.device), denominator)
        return gradient.reshape(self.shape) if gradient.ndim else gradient

    def _shared_quotient(self, denominator: float) -> tuple[float, float] | None:
        """Return numerator and divisor of a mean's coefficient, if no weights are beside it."""
        work = self.work
        if work.reduction not in MEANS or self.weighting.weight is not None:
            return None
        return 1.0 if work.grad_output is None else float(work.grad_output), denominator

    def _blocks(self) -> list[tuple[int, int]]:
        """Cut the rows so that a block of the largest input has about `BLOCK_BYTES`."""
        count = self.shape[0]
        widest = max(tensor.numel() // count for tensor in self.rows.values())
        step = max(1, thresholds.BLOCK_BYTES // max(1, widest * self.dtype.itemsize))
        return [(start, min(start + step, count)) for start in range(0, count, step)]

    def _block(self, start: int, stop: int, gradient: Tensor, weighting: Weighting) -> Block:
        """Return one block: its inputs in the compute dtype, and the memory of its gradients."""
        inputs = dict(self.placed)
        for name, tensor in self.rows.items():
            inputs[name] = self._converted(name, tensor[start:stop])
        coefficients = None
        gradients: dict[str, Tensor] = {}
        if self.work.gradients_for:
            rows = gradient[start:stop] if gradient.ndim else gradient
            coefficients = weighting(rows.expand(stop - start, *self.shape[1:]))
            for name, whole in self.gradients.items():
                part = whole[start:stop]
                same = whole.dtype == self.dtype
                gradients[name] = part if same else self.buffers("to " + name, inputs[name])
        return Block(
            inputs=inputs,
            options=self.work.options,
            coefficients=coefficients,
            gradients=gradients,
            factors=self.factors.each(lambda each: each[start:stop]) if self.factors else None,
            scratch=self.buffers,
            quotient=self.quotient,
        )

    def _converted(self, name: str, rows: Tensor) -> Tensor:
        """Return rows of an input, floats in the compute dtype."""
        rows = transfers_for(self.device).bring(rows)
        if not self.work.layout.inputs[name].is_float or rows.dtype == self.dtype:
            return rows
        like = rows.new_empty((), dtype=self.dtype).expand(rows.shape)
        return self.buffers("from " + name, like).copy_(rows)

    def _store(self, start: int, stop: int, block: Block, weighting: Weighting) -> None:
        """Clear the gradients of removed rows, and convert gradients of another dtype."""
        if block.factors is not None and weighting.removed is not None:
            # The mark of a removed row: exp(x - inf) is 0 for every number x.
            block.factors.lse.masked_fill_(weighting.removed, math.inf)
            block.factors.scale.masked_fill_(weighting.removed, 0.0)
        for name, whole in self.gradients.items():
            found = block.gradients[name]
            removed = weighting.removed
            if removed is not None:
                # An input has the axes of the values, and may have more after the first.
                more = (1,) * (found.ndim - removed.ndim)
                found.masked_fill_(removed.reshape(removed.shape[:1] + more + removed.shape[1:]), 0)
            if whole.dtype != self.dtype:
                whole[start:stop].copy_(found)
