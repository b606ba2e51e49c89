"""Compute: chooses the path of an evaluation, and brings its result to host memory."""

import time
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from losswire.server.autograd import compute_autograd
from losswire.server.closed_forms.driver import closed_form_of, compute_closed
from losswire.server.closed_forms.factored import compute_factored, factor_arrays
from losswire.server.tensors import to_array
from losswire.server.values import Array
from losswire.server.work import Work


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What an evaluation gives, in host memory."""

    loss: Array
    sum: float
    mean_numerator: float
    mean_denominator: float
    count: int
    gradients: Mapping[str, Array]
    factors: Mapping[str, tuple[Array, ...]]
    """The gradients in factored form: `lse`, `scale`, `lse_tail`."""
    compute_nanoseconds: int
    device: str
    engine: str
    """`closed_form` or `autograd`."""
    compute_dtype: str


def compute(work: Work, device: torch.device) -> Outcome:
    """Evaluate: by the record's closed form where it has one and may, else by torch's autograd."""
    start = time.perf_counter_ns()
    form = None if work.factored else closed_form_of(work, device)
    if work.factored:
        computed = compute_factored(work, device)
    else:
        computed = compute_closed(form, work) if form else compute_autograd(work, device)
    loss = to_array(computed.loss)
    gradients = {name: to_array(tensor) for name, tensor in computed.gradients.items()}
    return Outcome(
        loss=loss,
        sum=computed.sum,
        mean_numerator=computed.mean_numerator,
        mean_denominator=computed.mean_denominator,
        count=computed.count,
        gradients=gradients,
        factors={name: factor_arrays(each) for name, each in computed.factors.items()},
        compute_nanoseconds=time.perf_counter_ns() - start,
        device=str(device),
        engine="closed_form" if form or work.factored else "autograd",
        compute_dtype=work.compute_dtype,
    )
