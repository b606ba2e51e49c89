"""The path of factored gradients: closed forms of any size, which fill numbers of each row."""

from collections.abc import Callable
from dataclasses import replace
from typing import Final

import torch

from losswire.server.catalogue.closed_form import ClosedForm, Factors
from losswire.server.catalogue.record import LossRecord
from losswire.server.catalogue.shapes import Bindings
from losswire.server.catalogue.value_rules import Array
from losswire.server.compute.autograd import compute_autograd
from losswire.server.compute.closed_forms.blocks import compute_closed
from losswire.server.compute.closed_forms.factors import no_factors
from losswire.server.compute.reduce import Computed
from losswire.server.compute.tensors import to_array
from losswire.server.compute.work import Work

_ROWS: Final = "N"


def compute_factored(
    work: Work, device: torch.device, pause: Callable[[], None] | None = None
) -> Computed:
    """Compute a loss whose gradient is asked for in factored form; `pause` as in blocks."""
    [name] = work.gradients_for
    if any(array.size == 0 for array in work.inputs.values()):
        # No rows, or rows without classes: there is a loss, and no element that has a gradient.
        bare = replace(work, gradients_for=(), factored=False, grad_output=None)
        factors = no_factors(work.values_shape)
        return replace(compute_autograd(bare, device), factors={name: factors})
    form, single = _form_of(work.record, work.layout.name)
    if not single:
        return compute_closed(form, work, device, pause)
    computed = compute_closed(form, _batch_of_one(form, work), device)
    return replace(
        computed,
        loss=computed.loss.reshape(()),
        factors={
            name: factors.each(lambda each: each.reshape(()))
            for name, factors in computed.factors.items()
        },
    )


def factor_arrays(factors: Factors) -> tuple[Array, ...]:
    """Return factors as arrays in host memory: `lse`, `scale`, `lse_tail`."""
    return tuple(map(to_array, factors))


def _form_of(record: LossRecord, layout: str) -> tuple[ClosedForm, bool]:
    """Return the closed form of a layout, and whether it needs a batch of one row."""
    if layout in record.closed_forms:
        return record.closed_forms[layout], False
    return next(each for each in record.closed_forms.values() if each.single == layout), True


def _batch_of_one(form: ClosedForm, work: Work) -> Work:
    """Return an evaluation without a batch axis as a batch of one row."""
    name = next(key for key, each in work.record.closed_forms.items() if each is form)
    layout = next(each for each in work.record.layouts if each.name == name)
    weight = work.sample_weight
    return replace(
        work,
        layout=layout,
        bindings=Bindings({**work.bindings.axes, _ROWS: 1}, {"D": ()}),
        inputs={
            key: array[None] if _ROWS in layout.inputs[key].axes.tokens else array
            for key, array in work.inputs.items()
        },
        sample_weight=None if weight is None else weight.reshape(1),
        values_shape=(1,),
    )
