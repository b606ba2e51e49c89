"""Compute evaluations, each by the path that is chosen for it, and stacks of them together."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

import torch

from losswire.server.catalogue.closed_form import ClosedForm, TiledForm
from losswire.server.catalogue.record import Terms
from losswire.server.catalogue.value_rules import Array
from losswire.server.compute.autograd import compute_autograd
from losswire.server.compute.closed_forms.blocks import compute_closed
from losswire.server.compute.closed_forms.factored import compute_factored, factor_arrays
from losswire.server.compute.closed_forms.tiled import compute_tiled
from losswire.server.compute.devices.transfers import transfers_for
from losswire.server.compute.native.rows import compute_rows
from losswire.server.compute.paths import Path, is_small, path_of
from losswire.server.compute.reduce import Computed
from losswire.server.compute.stacking.stack import compute_stack
from losswire.server.compute.work import Work
from losswire.server.memory.regions.places import Destination
from losswire.v1.evaluation_pb2 import ENGINE_AUTOGRAD

Pause = Callable[[], None]
"""Called between two tiles, slices or blocks of a long evaluation; see `ComputeWorker.pause`."""

_THREADED_PARTS: Final = (Path.TILED, Path.AUTOGRAD)
"""The paths that take longer for a part of a chunked call than the next one needs to arrive."""


@dataclass(slots=True, kw_only=True)
class Outcome:
    """The result of an evaluation, in host memory."""

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
    terms: Terms | None = None
    """The terms of an unreduced loss by autograd, on the device; None: they follow from the
    record."""


def no_pause() -> None:
    """Go on without a pause."""


def compute(work: Work, device: torch.device, pause: Pause = no_pause) -> Outcome:
    """Compute an evaluation by its path.

    A long one calls `pause` now and then, on this thread, and ends with what that raises.
    """
    [outcome] = compute_together([work], device, pause)
    return outcome


def compute_together(
    works: Sequence[Work], device: torch.device, pause: Pause = no_pause
) -> list[Outcome]:
    """Compute works of one skeleton, which have to be `stackable` where there are several."""
    start = time.perf_counter_ns()
    path, form = path_of(works[0], device.type)
    engine = "autograd" if path is Path.AUTOGRAD else "closed_form"
    with _threads_for(works[0], path), transfers_for(device):
        found = _computed(path, form, works, device, pause)
    share = (time.perf_counter_ns() - start) // len(works)
    return [
        _outcome(work, each, share, str(device), engine)
        for work, each in zip(works, found, strict=True)
    ]


def _computed(
    path: Path,
    form: ClosedForm | TiledForm | None,
    works: Sequence[Work],
    device: torch.device,
    pause: Pause,
) -> list[Computed]:
    """Compute works by a path."""
    match path, form:
        case Path.NATIVE, ClosedForm():
            threads = torch.get_num_threads()
            return [compute_rows(form, work, threads, pause) for work in works]
        case Path.FACTORED, _:
            return [compute_factored(work, device, pause) for work in works]
        case Path.STACKED, ClosedForm():
            return compute_stack(form, works, device)
        case Path.BLOCKS, ClosedForm():
            return [compute_closed(form, work, pause=pause) for work in works]
        case Path.TILED, TiledForm():
            return [compute_tiled(form, work, device, pause) for work in works]
        case _:
            return [compute_autograd(work, device) for work in works]


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
        terms=computed.terms,
    )


@contextmanager
def _threads_for(work: Work, path: Path) -> Iterator[None]:
    """Limit torch to one thread for small evaluations and closed forms of parts of chunked calls.

    A part is computed faster than the next one arrives, and the other processors are busy
    moving it: waiting for them takes longer than the work that they could take over.
    """
    # torch's own function has other bits with another number of threads.
    single = work.engine != ENGINE_AUTOGRAD and (
        is_small(work) or (work.whole is not None and path not in _THREADED_PARTS)
    )
    threads = torch.get_num_threads()
    if not single or threads == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
