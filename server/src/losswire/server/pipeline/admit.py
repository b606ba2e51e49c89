"""Admit: reserve the memory that an evaluation will need, before it is needed."""

import math
from collections.abc import Sequence
from typing import Final, Self

from losswire.server.catalogue.record import Reduction
from losswire.server.catalogue.value_rules import Context
from losswire.server.compute.paths import block_form, native_form
from losswire.server.compute.work import Work
from losswire.server.errors import OverLimitError, OverloadedError
from losswire.wire import BY_NAME

_RETRY_AFTER_MS: Final = 50
"""When to come back: about as long as the evaluations that fill the budget take."""

_DOUBLE: Final = 8
FACTORS: Final = 3
"""How many numbers of each row a factored gradient is."""
_MOST_STEPS: Final = 10_000_000_000
"""About ten seconds, during which nobody else is served."""
_MOST_REPLY_BYTES: Final = (2 << 30) - (16 << 20)
"""What protobuf can serialize, less room for everything besides the tensors."""


def peak_bytes(work: Work, *, copied: bool = False) -> int:
    """Estimate the peak memory of an evaluation, in bytes, from its record.

    Resident tensors and what lies in regions are in memory already, whatever is computed;
    they are not if all is `copied` to a device with memory of its own.
    """
    cost = work.record.cost
    elements = sum([array.size for array in work.inputs.values()])
    if cost.scratch is not None:
        elements += cost.scratch(Context(work.bindings, work.options, work.inputs))
    own = elements * BY_NAME[work.compute_dtype].item_size + math.prod(work.values_shape) * _DOUBLE
    dense = bool(work.gradients_for) and not work.factored
    peak = int(own * (cost.buffers_with_gradients if dense else cost.buffers))
    return peak if copied else max(peak - work.resident_bytes - _written_in_place(work), 0)


def _written_in_place(work: Work) -> int:
    """Count the bytes of the gradients that are computed where they go."""
    if not work.destinations or not (native_form(work) or block_form(work)):
        return 0
    return sum(each.array.nbytes for each in work.destinations.values())


def reply_bytes(work: Work) -> int:
    """Count the bytes of loss and gradients, which travel in one message."""
    values = math.prod(work.values_shape) if work.reduction is Reduction.NONE else 1
    if work.factored:
        return values * BY_NAME[work.compute_dtype].item_size + factor_bytes(work)
    gradients = sum(
        [
            work.inputs[name].size * BY_NAME[work.gradient_type(name)].item_size
            for name in work.gradients_for
            if name not in work.destinations
        ]
    )
    return values * BY_NAME[work.compute_dtype].item_size + gradients


def factor_bytes(work: Work) -> int:
    """Count the bytes of the numbers of each row that factored gradients are."""
    return math.prod(work.values_shape) * _DOUBLE * FACTORS


def steps(work: Work) -> int:
    """Estimate the work of an evaluation that its memory does not tell, from its record."""
    count = work.record.cost.steps
    return 0 if count is None else count(Context(work.bindings, work.options, work.inputs))


class Admission:
    """The memory budget of all evaluations together. Belongs to the event loop."""

    def __init__(
        self, budget_bytes: int, most_steps: int = _MOST_STEPS, *, copied: bool = False
    ) -> None:
        """Take the budget, how many steps one call may take, and how to `peak_bytes`."""
        self.budget_bytes = budget_bytes
        self.most_steps = most_steps
        self.reserved_bytes = 0
        self._copied = copied

    @property
    def free_bytes(self) -> int:
        """What is left of the budget now."""
        return self.budget_bytes - self.reserved_bytes

    def demand(self, works: Sequence[Work]) -> int:
        """Give the price of some evaluations.

        Raises OverLimitError when it can never fit, or is too much work for one
        call.
        """
        work = sum(map(steps, works))
        if work > self.most_steps:
            message = (
                f"the evaluation needs about {work} steps; the server takes at most "
                f"{self.most_steps} in one call"
            )
            raise OverLimitError(message)
        if sum(map(reply_bytes, works)) > _MOST_REPLY_BYTES:
            message = "the answer would be larger than one message can be (2 GiB)"
            raise OverLimitError(message)
        wanted = sum([peak_bytes(each, copied=self._copied) for each in works])
        if wanted > self.budget_bytes:
            raise OverLimitError(_too_much(wanted, self.budget_bytes))
        return wanted

    def hold(self, wanted: int) -> "Reservation":
        """Hold some bytes until the reservation is left.

        Raises OverLimitError when they can never fit, and OverloadedError when they
        do not fit now.
        """
        reservation = Reservation(self)
        reservation.raise_to(wanted)
        return reservation

    def reserve(self, works: Sequence[Work]) -> "Reservation":
        """Hold the price of some evaluations while they run.

        Raises what `demand` raises, and OverloadedError when it does not fit now.
        """
        return self.hold(self.demand(works))

    def reservation(self) -> "Reservation":
        """Hold as much as turns out to be needed, nothing at first."""
        return Reservation(self)


class Reservation:
    """What one call holds of the budget, until it is left; it may grow."""

    __slots__ = ("_admission", "held_bytes")

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self.held_bytes = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._admission.reserved_bytes -= self.held_bytes
        self.held_bytes = 0

    def raise_to(self, wanted: int) -> None:
        """Hold at least so many bytes.

        Raises OverLimitError when they can never fit and OverloadedError when they do
        not fit now; what was held before stays held.
        """
        admission, more = self._admission, wanted - self.held_bytes
        if more <= 0:
            return
        if wanted > admission.budget_bytes:
            raise OverLimitError(_too_much(wanted, admission.budget_bytes))
        if admission.reserved_bytes + more > admission.budget_bytes:
            message = "the server's memory budget is in use by other evaluations"
            raise OverloadedError(message, _RETRY_AFTER_MS)
        admission.reserved_bytes += more
        self.held_bytes = wanted


def _too_much(wanted: int, budget: int) -> str:
    return f"this takes about {wanted} bytes; the server's memory budget is {budget}"
