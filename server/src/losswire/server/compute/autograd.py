"""The path of autograd: values by the record's function, gradients by torch.

With `engine = autograd` it is torch's own function, in its own dtypes and with its own reduction
wherever the request asks for nothing that torch does not have. With `engine = auto` it is the
record's formula, which takes limits, and the reduction in float64.
"""

import math
from typing import Final

import torch
from torch import Tensor

from losswire.server.catalogue.record import Kind, Reduction, Terms
from losswire.server.catalogue.value_rules import Array
from losswire.server.compute.devices.transfers import transfers_for
from losswire.server.compute.reduce import (
    MEANS,
    Computed,
    Sums,
    Weighting,
    denominator_of,
    grad_output_of,
    loss_of,
    quotient,
    value_gradients,
)
from losswire.server.compute.tensors import to_tensor
from losswire.server.compute.work import Work
from losswire.server.errors import InvalidEvaluationError
from losswire.v1.evaluation_pb2 import ENGINE_AUTOGRAD
from losswire.wire import Violation

_UNCONVERTED: Final = (torch.float32, torch.float64)


def compute_autograd(work: Work, device: torch.device) -> Computed:
    """Compute by torch's function, and its autograd if gradients are asked for."""
    with torch.set_grad_enabled(bool(work.gradients_for)):
        return _Evaluation(work, device).run()


class _Evaluation:
    """One evaluation: its values, their reduction and the gradients."""

    def __init__(self, work: Work, device: torch.device) -> None:
        self.work = work
        self.device = device
        self.transfers = transfers_for(device)
        self.dtype: torch.dtype = getattr(torch, work.compute_dtype)
        self.weighting = Weighting(work, device, work.values_shape)
        self.torch_reduces = work.engine == ENGINE_AUTOGRAD and _asks_for_no_more_than_torch(work)
        """Whether the loss is that of torch's own reduction."""
        self.as_torch = self.torch_reduces or _smooths_as_torch(work)
        """Whether the gradients are those of torch's own reduction."""
        self.inputs = {name: self._input(name, array) for name, array in work.inputs.items()}
        function = work.record.function
        if work.engine != ENGINE_AUTOGRAD and work.record.formula is not None:
            function = work.record.formula
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.as_torch):
            self.terms: Terms = function(**self.inputs, **work.options)
        self._check_denominator_known()

    def run(self) -> Computed:
        """Return the loss and the gradients."""
        work, terms = self.work, self.terms
        values = terms.values.detach()
        if work.record.kind is Kind.ACTIVATION:
            totals, denominator, loss = Sums(), 0.0, values
        else:
            totals = Sums()
            totals.add(values, self.weighting, scale=terms.numerator_scale, counted=terms.counted)
            denominator = denominator_of(work, self.weighting, terms.denominators)
            if work.reduction is Reduction.NONE:
                loss = self.weighting(values)
            elif self.torch_reduces:
                # Its memory is free for torch's own evaluation.
                self.terms = terms = Terms(values.new_empty(0))
                del values
                loss = self._reduced()
            else:
                loss = values.new_tensor(loss_of(work, totals, denominator), dtype=torch.float64)
        return Computed(
            loss=self.transfers.fetch(loss.detach().to(getattr(torch, work.loss_dtype))),
            sum=totals.total,
            mean_numerator=totals.numerator,
            mean_denominator=denominator,
            count=totals.count,
            gradients=self._gradients(loss, totals, denominator) if work.gradients_for else {},
            terms=terms if work.reduction is Reduction.NONE else None,
        )

    def _reduced(self) -> Tensor:
        """Return the loss by torch's own reduction."""
        work = self.work
        reduction = work.reduction.value
        terms: Terms = work.record.function(**self.inputs, **work.options, reduction=reduction)
        return terms.values

    def _check_denominator_known(self) -> None:
        """Refuse gradients of a mean in a chunked call whose denominator is not known ahead."""
        whole, terms = self.work.whole, self.terms
        if (
            whole is not None
            and whole.gradients_for
            and whole.reduction in MEANS
            and whole.normalizer is None
            and terms.denominators is not None
            and whole.layout.name not in whole.record.denominators
        ):
            text = (
                f"is required: {whole.record.name} does not tell the denominator of its mean "
                "before the rows are there; or ask for the sum"
            )
            raise InvalidEvaluationError([Violation("normalizer", text)])

    def _input(self, name: str, array: Array) -> Tensor:
        """Return an input as a tensor of the compute dtype, with `requires_grad` if asked for."""
        tensor = self.transfers.bring(to_tensor(array))
        if not self.work.layout.inputs[name].is_float:
            return tensor
        if not self._promoted_by_torch(tensor):
            tensor = tensor.to(self.dtype)
        # 1 is harmless to every loss; the number that the caller sent may not be.
        tensor = self._replace_removed(name, tensor, 1.0)
        return tensor.requires_grad_(name in self.work.gradients_for)

    def _promoted_by_torch(self, tensor: Tensor) -> bool:
        """Return whether torch's function gets an input as it is, and promotes it itself.

        That may have other bits than converting it first.
        """
        return (
            self.work.engine == ENGINE_AUTOGRAD
            and tensor.dtype in _UNCONVERTED
            and any(array.dtype == "float64" for array in self.work.inputs.values())
        )

    def _replace_removed(self, name: str, tensor: Tensor, other: float) -> Tensor:
        """Replace elements of an input, or its gradient, that belong to removed values only.

        An element that several values share (a class weight) stays while one of them is kept.
        """
        kept = self.weighting.kept
        if self.weighting.removed is None or kept is None:
            return tensor
        layout = self.work.layout
        broadcast = layout.inputs[name].axes.broadcast_from(
            layout.values, self.work.inputs[name].shape, self.work.bindings
        )
        if broadcast.shared:
            kept = kept.any(dim=broadcast.shared)
        return torch.where(kept.reshape(broadcast.shape), tensor, other)

    def _gradients(self, loss: Tensor, totals: Sums, denominator: float) -> dict[str, Array]:
        """Return the gradients of the loss with respect to the inputs asked for."""
        work = self.work
        grad_output = grad_output_of(work, self.device)
        if self.as_torch:
            reduced = loss if self.torch_reduces else self._reduced()
            outputs, coefficients = [reduced], [grad_output.to(reduced.dtype)]
        else:
            outputs, coefficients = self._values(grad_output, totals, denominator)
        leaves = [self.inputs[name] for name in work.gradients_for]
        # Some options leave an input out of torch's graph (triplet_margin_loss
        # with p = 0 counts differences): its gradient is 0.
        found = torch.autograd.grad(outputs, leaves, coefficients, materialize_grads=True)
        divisor = denominator if self._divides_last(denominator) else 1.0
        return {
            name: self._finish(name, gradient if divisor == 1 else gradient / divisor)
            for name, gradient in zip(work.gradients_for, found, strict=True)
        }

    def _divides_last(self, denominator: float) -> bool:
        """Return whether gradients of a mean are divided by its denominator at the end.

        Several of torch's functions do so. A quotient that is rounded before it multiplies every
        derivative would add an error to each; in 16 bits, the dividend may overflow.
        """
        work, terms = self.work, self.terms
        denominators = terms.denominators
        return (
            not self.as_torch
            and work.engine != ENGINE_AUTOGRAD
            and work.reduction in MEANS
            and denominator != 0  # the gradient of no value is 0
            and self.dtype in _UNCONVERTED
            and self.weighting.weight is None
            and terms.numerator_scale is None
            and not (denominators is not None and denominators.requires_grad)
        )

    def _values(
        self, grad_output: Tensor, totals: Sums, denominator: float
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Return what is differentiated, unreduced, and the gradient with respect to it."""
        work, terms = self.work, self.terms
        outputs = [terms.values]
        divisor = 1.0 if self._divides_last(denominator) else denominator
        wanted = value_gradients(work, grad_output, divisor, terms.numerator_scale)
        coefficients = [self._weighted(terms.values, wanted)]
        denominators = terms.denominators
        if (
            work.reduction in MEANS
            and work.normalizer is None
            and denominators is not None
            and denominators.requires_grad
        ):
            # The denominator depends on an input too: d(n / d) has a second term.
            mean = quotient(totals.numerator, denominator)
            outputs.append(denominators)
            coefficients.append(self._weighted(denominators, -grad_output * mean / denominator))
        return outputs, coefficients

    def _weighted(self, outputs: Tensor, gradient: Tensor) -> Tensor:
        """Return the gradient of each output, its sample weight included."""
        weighted = self.weighting(gradient.expand(outputs.shape))
        return weighted.to(outputs.dtype).contiguous()

    def _finish(self, name: str, gradient: Tensor) -> Array:
        """Clear elements of removed values and convert to the dtype asked for."""
        dtype = getattr(torch, self.work.gradient_type(name))
        place = self.work.destinations.get(name)
        return self.transfers.fetch(
            self._replace_removed(name, gradient, 0.0).to(dtype),
            None if place is None else place.array,
        )


def _smooths_as_torch(work: Work) -> bool:
    """Return whether gradients are torch's because of label smoothing, with `auto`, too.

    Dividing them last errs by 4% more than torch does in float64.
    """
    return bool(work.options.get("label_smoothing")) and _asks_for_no_more_than_torch(work)


def _asks_for_no_more_than_torch(work: Work) -> bool:
    """Return whether torch's own reduction has all that is asked for."""
    return (
        work.record.reduces
        and work.reduction is not Reduction.NONE
        and work.whole is None
        and work.sample_weight is None
        and work.normalizer is None
        # Of no values, some of torch's reductions return memory that was never written.
        and math.prod(work.values_shape) != 0
    )
