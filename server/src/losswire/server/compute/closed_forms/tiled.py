"""The path of closed forms that make their large intermediate results in tiles."""

from collections.abc import Callable

import torch
from torch import Tensor

from losswire.server.catalogue.closed_form import Tiled, TiledForm
from losswire.server.catalogue.record import Reduction
from losswire.server.catalogue.value_rules import Array
from losswire.server.compute.devices.transfers import transfers_for
from losswire.server.compute.reduce import (
    Computed,
    Sums,
    Weighting,
    denominator_of,
    denominator_terms,
    grad_output_of,
    loss_of,
    value_gradients,
)
from losswire.server.compute.tensors import to_array, to_tensor
from losswire.server.compute.work import Work


def compute_tiled(
    form: TiledForm, work: Work, device: torch.device, pause: Callable[[], None]
) -> Computed:
    """Compute by tiles; `pause` is called between them, and may raise an exception."""
    with torch.no_grad():
        return _compute(form, work, device, pause)


def _compute(
    form: TiledForm, work: Work, device: torch.device, pause: Callable[[], None]
) -> Computed:
    bring = transfers_for(device).bring
    dtype: torch.dtype = getattr(torch, work.compute_dtype)
    weighting = Weighting(work, device, work.values_shape)
    inputs = {name: bring(to_tensor(array)) for name, array in work.inputs.items()}
    denominator = denominator_of(work, weighting, denominator_terms(work, inputs))
    gradients = {name: _place(work, name, device) for name in work.gradients_for}
    found = form.compute(
        Tiled(
            inputs=inputs,
            options=work.options,
            dtype=dtype,
            coefficients=_coefficients(work, weighting, denominator, device) if gradients else None,
            removed=weighting.removed,
            gradients=gradients,
            pause=pause,
        )
    )
    values = found.view(work.values_shape).to(dtype)
    totals = Sums()
    totals.add(values, weighting)
    if work.reduction is Reduction.NONE:
        loss = weighting(values).to(dtype)
    else:
        loss = values.new_tensor(loss_of(work, totals, denominator))
    return Computed(
        loss=to_array(loss),
        sum=totals.total,
        mean_numerator=totals.numerator,
        mean_denominator=denominator,
        count=totals.count,
        gradients={name: _fetch(work, name, each, device) for name, each in gradients.items()},
    )


def _coefficients(
    work: Work, weighting: Weighting, denominator: float, device: torch.device
) -> Tensor:
    """Return the gradient with respect to each value, its sample weight included."""
    wanted = value_gradients(work, grad_output_of(work, device), denominator)
    return weighting(wanted.expand(work.values_shape))


def _place(work: Work, name: str, device: torch.device) -> Tensor:
    """Return the memory of a gradient: the caller's destination, if the device can reach it."""
    if name in work.destinations and device.type == "cpu":
        return to_tensor(work.destinations[name].array).view(work.inputs[name].shape)
    dtype: torch.dtype = getattr(torch, work.gradient_type(name))
    return torch.empty(work.inputs[name].shape, dtype=dtype, device=device)


def _fetch(work: Work, name: str, gradient: Tensor, device: torch.device) -> Array:
    place = work.destinations.get(name)
    return transfers_for(device).fetch(gradient, None if place is None else place.array)
