"""Compute: chooses the path of an evaluation, and computes those together that can be."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch

from losswire.server.catalogue.value_rules import Array
from losswire.server.compute.autograd import compute_autograd
from losswire.server.compute.closed_forms.blocks import compute_closed
from losswire.server.compute.closed_forms.factored import compute_factored, factor_arrays
from losswire.server.compute.closed_forms.small import compute_small
from losswire.server.compute.devices.transfers import transfers_for
from losswire.server.compute.native.rows import compute_rows
from losswire.server.compute.reduce import Computed
from losswire.server.compute.work import SMALL_BYTES, Work
from losswire.server.memory.regions.places import Destination


@dataclass(slots=True, kw_only=True)
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
    """Of evaluations that are computed together, each has an equal share."""
    device: str
    engine: str
    """`closed_form` or `autograd`."""
    compute_dtype: str
    placed: Mapping[str, Destination] = field(default_factory=dict)
    """The gradients that are where the caller wants them."""


def compute(work: Work, device: torch.device) -> Outcome:
    """Evaluate: by the record's closed form where it has one and may, else by torch's autograd."""
    [outcome] = compute_together([work], device)
    return outcome


def compute_together(works: Sequence[Work], device: torch.device) -> list[Outcome]:
    """Evaluate some works of one form, which has to be `stackable` where they are several."""
    start = time.perf_counter_ns()
    first = works[0]
    on_cpu = device.type == "cpu"
    native = first.native_form if on_cpu else None
    closed = first.closed_form if on_cpu else None
    by_form = native or first.factored or first.small_form or closed
    engine = "closed_form" if by_form else "autograd"
    with _threads_for(first, engine), transfers_for(device):
        if native is not None:
            threads = torch.get_num_threads()
            found = [compute_rows(native, work, threads) for work in works]
        elif first.factored:
            found = [compute_factored(work, device) for work in works]
        elif first.small_form is not None:
            found = compute_small(first.small_form, works, device)
        elif closed is not None:
            found = [compute_closed(closed, work) for work in works]
        else:
            found = [compute_autograd(work, device) for work in works]
    share = (time.perf_counter_ns() - start) // len(works)
    return [
        _outcome(work, each, share, str(device), engine)
        for work, each in zip(works, found, strict=True)
    ]


def _outcome(work: Work, computed: Computed, nanoseconds: int, device: str, engine: str) -> Outcome:
    for name, destination in work.destinations.items():
        destination.take(computed.gradients.pop(name))
    return Outcome(
        loss=computed.loss,
        sum=computed.sum,
        mean_numerator=computed.mean_numerator,
        mean_denominator=computed.mean_denominator,
        count=computed.count,
        gradients=computed.gradients,
        factors={name: factor_arrays(each) for name, each in computed.factors.items()},
        compute_nanoseconds=nanoseconds,
        device=device,
        engine=engine,
        compute_dtype=work.compute_dtype,
        placed={
            name: each for name, each in work.destinations.items() if isinstance(each, Destination)
        },
    )


@contextmanager
def _threads_for(work: Work, engine: str) -> Iterator[None]:
    """Let one thread compute what is small, and closed forms of parts of chunked calls.

    A part is computed faster than the next one arrives, and the other processors are busy
    moving it: waiting for them takes longer than the work that they could take over.
    """
    alone = work.input_bytes < SMALL_BYTES or (work.whole is not None and engine == "closed_form")
    threads = torch.get_num_threads()
    if not alone or threads == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
