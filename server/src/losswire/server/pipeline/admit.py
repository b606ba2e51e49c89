"""Admit: the memory that evaluations will need, which is reserved before they allocate it."""

import math
from collections.abc import Sequence
from typing import Final

from losswire.server import thresholds
from losswire.server.catalogue.record import Reduction
from losswire.server.catalogue.value_rules import Context
from losswire.server.compute.paths import block_form, native_form
from losswire.server.compute.work import Work
from losswire.server.errors import OverLimitError
from losswire.server.memory.budget import Budget
from losswire.wire import BY_NAME

_FLOAT64_BYTES: Final = 8
FACTORS: Final = 3
"""The numbers per row of a factored gradient."""
_MAX_REPLY_BYTES: Final = (2 << 30) - (16 << 20)
"""The most bytes that protobuf serializes, less room for everything besides the tensors."""


def peak_bytes(work: Work, *, copied: bool = False) -> int:
    """Estimate the peak memory of an evaluation, in bytes, from its record.

    Resident tensors and tensors in regions are in memory already, so they do not count, unless
    all inputs are `copied` to a device with memory of its own.
    """
    cost = work.record.cost
    elements = sum([array.size for array in work.inputs.values()])
    if cost.scratch is not None:
        elements += cost.scratch(Context(work.bindings, work.options, work.inputs))
    own = (
        elements * BY_NAME[work.compute_dtype].item_size
        + math.prod(work.values_shape) * _FLOAT64_BYTES
    )
    dense = bool(work.gradients_for) and not work.factored
    peak = int(own * (cost.buffers_with_gradients if dense else cost.buffers))
    return peak if copied else max(peak - work.resident_bytes - _bytes_written_in_place(work), 0)


def _bytes_written_in_place(work: Work) -> int:
    """Count the bytes of gradients that are computed directly in their destinations."""
    if not work.destinations or not (native_form(work) or block_form(work)):
        return 0
    return sum(each.array.nbytes for each in work.destinations.values())


def reply_bytes(work: Work) -> int:
    """Count the bytes of loss and gradients, which are sent in one message."""
    values = math.prod(work.values_shape) if work.reduction is Reduction.NONE else 1
    if work.factored:
        return values * BY_NAME[work.loss_dtype].item_size + factor_bytes(work)
    gradients = sum(
        [
            work.inputs[name].size * BY_NAME[work.gradient_type(name)].item_size
            for name in work.gradients_for
            if name not in work.destinations
        ]
    )
    return values * BY_NAME[work.loss_dtype].item_size + gradients


def factor_bytes(work: Work) -> int:
    """Count the bytes of a factored gradient."""
    return math.prod(work.values_shape) * _FLOAT64_BYTES * FACTORS


def step_count(work: Work) -> int:
    """Estimate the steps of an evaluation whose time does not follow from its memory."""
    count = work.record.cost.steps
    return 0 if count is None else count(Context(work.bindings, work.options, work.inputs))


def demand(budget: Budget, works: Sequence[Work], *, copied: bool) -> int:
    """Return the peak memory of some evaluations, in bytes.

    Raises OverLimitError when it can never fit into the budget, when the evaluations take too
    many steps for one call, or when their answer is too large for one message. `copied` is
    that of `peak_bytes`.
    """
    steps = sum(map(step_count, works))
    if steps > thresholds.MAX_STEPS:
        message = (
            f"the evaluation needs about {steps} steps; the server takes at most "
            f"{thresholds.MAX_STEPS} in one call"
        )
        raise OverLimitError(message)
    if sum(map(reply_bytes, works)) > _MAX_REPLY_BYTES:
        message = "the answer would be larger than one message can be (2 GiB)"
        raise OverLimitError(message)
    size_bytes = sum([peak_bytes(each, copied=copied) for each in works])
    budget.check(size_bytes)
    return size_bytes
