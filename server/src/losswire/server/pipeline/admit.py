"""Admit: the memory that evaluations will need, which is reserved before they allocate it."""

import math
from collections.abc import Sequence
from typing import Final

from losswire.server import thresholds
from losswire.server.catalogue.closed_form import TiledCost
from losswire.server.catalogue.record import Reduction
from losswire.server.catalogue.value_rules import Context
from losswire.server.compute.paths import block_form, native_form, tiled_form
from losswire.server.compute.work import Work
from losswire.server.errors import OverLimitError
from losswire.server.memory.budget import Budget
from losswire.wire import BY_NAME

_FLOAT64_BYTES: Final = 8
_TILED_COPIES: Final = 3
"""The copies of what is sent or received by a tiled evaluation: its array, the message, and what
gRPC holds of it."""
_TILED_VALUES: Final = 8
"""The numbers of each value that a tiled evaluation holds, in float64."""
FACTORS: Final = 3
"""The numbers per row of a factored gradient."""
_MAX_REPLY_BYTES: Final = (2 << 30) - (16 << 20)
"""The most bytes that protobuf serializes, less room for everything besides the tensors."""


def peak_bytes(work: Work, *, copied: bool = False) -> int:
    """Estimate the peak memory of an evaluation, in bytes, from its record.

    Resident tensors and tensors in regions are in memory already, so they do not count, unless
    all inputs are `copied` to a device with memory of its own.
    """
    if tiled := _tiled_cost(work):
        return _tiled_bytes(work, tiled, copied=copied)
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


def _tiled_cost(work: Work) -> TiledCost | None:
    """Return the cost of an evaluation by tiles; None: it takes another path."""
    form = tiled_form(work)
    if form is None:
        return None
    gradients = {name: BY_NAME[work.gradient_type(name)].item_size for name in work.gradients_for}
    return form.cost(work.inputs, gradients, BY_NAME[work.compute_dtype].item_size)


def _tiled_bytes(work: Work, cost: TiledCost, *, copied: bool) -> int:
    """Return the peak memory of an evaluation by tiles, in bytes."""
    inputs = work.input_bytes - (0 if copied else work.resident_bytes)
    size = cost.scratch_bytes + (inputs + reply_bytes(work)) * _TILED_COPIES
    if copied:
        size += sum([each.array.nbytes for each in work.destinations.values()])
    return size + math.prod(work.values_shape) * _FLOAT64_BYTES * _TILED_VALUES


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
    if tiled := _tiled_cost(work):
        return tiled.steps
    count = work.record.cost.steps
    return 0 if count is None else count(Context(work.bindings, work.options, work.inputs))


def demand(budget: Budget, works: Sequence[Work], *, copied: bool) -> int:
    """Return the peak memory of some evaluations, in bytes.

    Raises OverLimitError when it can never fit into the budget, when the evaluations take too
    many steps for one call, or when their answer is too large for one message. `copied` is
    that of `peak_bytes`.
    """
    # Between its tiles an evaluation makes room for others, so that it may take longer.
    tiled = [each for each in works if tiled_form(each)]
    _check_steps([each for each in works if not tiled_form(each)], thresholds.MAX_STEPS)
    _check_steps(tiled, thresholds.MAX_TILED_STEPS)
    if sum(map(reply_bytes, works)) > _MAX_REPLY_BYTES:
        message = "the answer would be larger than one message can be (2 GiB)"
        raise OverLimitError(message)
    size_bytes = sum([peak_bytes(each, copied=copied) for each in works])
    budget.check(size_bytes)
    return size_bytes


def _check_steps(works: Sequence[Work], limit: int) -> None:
    """Raise OverLimitError when some evaluations take too many steps for one call."""
    steps = sum(map(step_count, works))
    if steps > limit:
        message = (
            f"the evaluation needs about {steps} steps; the server takes at most {limit} in one "
            "call"
        )
        raise OverLimitError(message)
