"""All shared memory of one client: the caller's regions, and what evaluations pass through."""

import os
import threading
import weakref
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Final

from losswire.client._calls.batch import FITS_ALWAYS, Batch
from losswire.client._calls.lease import Lease
from losswire.client._calls.operations import (
    EVALUATE,
    LocalStep,
    Operation,
    Steps,
    create_region,
    evaluate,
    get_server_info,
    known,
)
from losswire.client._calls.session import Session
from losswire.client._errors import (
    FailedPreconditionError,
    InvalidArgumentError,
    LosswireError,
    NotFoundError,
    UnimplementedError,
)
from losswire.client._memory.local_leases import LocalLeases
from losswire.client._memory.mapping import (
    HAVE_REGIONS,
    PlacedArray,
    SharedMemory,
    is_missing_region,
    size_with_mark,
)
from losswire.client._memory.placement import Array, Placement
from losswire.client._memory.region import Region
from losswire.client._memory.staging import Staging
from losswire.client._messages.evaluation import Evaluation
from losswire.client._messages.response import EvaluationResult, OneAnswer, read_result
from losswire.client._messages.template import TEMPLATES, key_of, placed_key_of

_MOST_TRIES: Final = 3
"""How often an evaluation is tried with regions, when a server turns out not to have them."""

_REFUSALS: Final = (
    FailedPreconditionError,
    InvalidArgumentError,
    NotFoundError,
    UnimplementedError,
)
"""What a server says before it looks at any memory."""


class Regions:
    """What both clients do with shared memory. Any thread may use it."""

    def __init__(self, session: Session) -> None:
        """Begin without any."""
        self._session = session
        self._staging = Staging(session)
        self._local = LocalLeases(session)
        self._lock = threading.Lock()
        self.own: tuple[Region, ...] = ()
        """The caller's, in which inputs of any size may lie."""
        _all_regions.add(self)

    def want_lease(self, timeout: float | None) -> bool:
        """Count an evaluation; tells whether `open_lease` should come before it."""
        if any(region.lease.is_free for region in self.own):
            return False
        return self._local.is_due(timeout)

    def open_lease(self) -> Steps[None]:
        """Open what evaluations go over that lie in no region; without it, they go by gRPC."""
        return self._local.open()

    def may_help(self, batch: Batch) -> bool:
        """Tell at no cost whether `evaluate` is worth trying."""
        if self.own and (batch.out or not batch.is_small):
            return True
        return self._staging.possible and batch.is_worth_staging

    def known(
        self, evaluation: Evaluation, out: Mapping[str, Array] | None
    ) -> Operation[EvaluationResult] | None:
        """Give the one call that an evaluation of a known form is; None when it is not known."""
        if out is not None and not self.own:
            return None
        leases, form = self.leases, key_of(evaluation)
        found = known(form, leases) if out is None else None
        if found is None and self.own:
            request = TEMPLATES.placed_request(placed_key_of(form, self._where, out))
            if request is not None:
                found = Operation(EVALUATE, request, partial(_read, out or {}), leases=leases)
        return found

    @property
    def leases(self) -> Sequence[Lease]:
        """What calls may go over; any connection serves all regions."""
        return (*(region.lease for region in self.own), *self._local.leases)

    def evaluate(self, batch: Batch, *, staged: bool = True) -> Steps[EvaluationResult | None]:
        """Evaluate with as much in shared memory as can be; None when that is nothing.

        `staged`: whether what lies elsewhere may be copied through it.
        """
        for _ in range(_MOST_TRIES):
            placement = Placement(batch, self._place)
            memory: SharedMemory | None = None
            if staged and self._staging.possible and placement.worth_staging and placement.room:
                memory = yield from self._staging.take(placement.room)
            intact = False
            try:
                if memory is not None:
                    yield LocalStep(partial(placement.stage, memory))
                if placement.empty or placement.sent_bytes > FITS_ALWAYS:
                    intact = True
                    return None
                leases = self.leases if memory is None else [memory.lease]
                operation = placement.operation(leases)
                result = yield from evaluate(batch.evaluation, operation)
                if memory is not None:
                    result = yield LocalStep(partial(placement.collect, result, memory))
                else:
                    form = placed_key_of(key_of(batch.evaluation), self._where, batch.out)
                    TEMPLATES.keep(form, batch.evaluation, operation.request)
                intact = True
                return batch.deliver(result)
            except LosswireError as error:
                if not is_missing_region(error):
                    intact = isinstance(error, _REFUSALS)
                    raise
                self._lose(memory)
            finally:
                if memory is not None and intact:
                    self._staging.give_back(memory)
                elif memory is not None:
                    # The call may still be under way on the server.
                    self._staging.drop(memory)
        return None

    def _place(self, array: Array) -> PlacedArray | None:
        found = (region.place(array) for region in self.own)
        return next((placed for placed in found if placed is not None), None)

    def _where(self, array: Array) -> tuple[int, int] | None:
        for region in self.own:
            place = region.where(array)
            if place is not None:
                return place
        return None

    def _lose(self, memory: SharedMemory | None) -> None:
        """Take it that a server was started again, and has none of what it had."""
        self._staging.lose(memory)
        with self._lock:
            for region in self.own:
                region.lost = True
            self.own = ()

    def open(self, nbytes: int) -> Steps[Region]:
        """Make a region for the caller; see `Client.region`."""
        if type(nbytes) is not int or nbytes < 1:
            raise ValueError(f"nbytes: expected a number of bytes greater than 0, got {nbytes!r}")
        if len(self._session.targets) != 1:
            raise ValueError("a region belongs to one server, and this client has several targets")
        if not HAVE_REGIONS:
            raise UnimplementedError("shared memory needs Linux", reason="NOT_SERVED")
        info = yield get_server_info()
        if not info.transports.region_socket:
            raise UnimplementedError(
                "the server shares no memory: it listens where other machines can call and has "
                "no --region-socket, or it was told to share none",
                reason="NOT_SERVED",
            )
        size, interrupt = size_with_mark(nbytes), self._session.interrupt
        created = yield create_region(size)
        try:
            memory: SharedMemory = yield LocalStep(partial(SharedMemory, created, interrupt))
        except FailedPreconditionError:
            # The token lasts for seconds, and a busy machine may take longer.
            created = yield create_region(size)
            memory = yield LocalStep(partial(SharedMemory, created, interrupt))
        region = Region(memory, self._forget)
        with self._lock:
            self.own = (*self.own, region)
        return region

    def _forget(self, region: Region) -> None:
        with self._lock:
            self.own = tuple(each for each in self.own if each is not region)

    def close(self) -> None:
        """Close all of them; arrays in the caller's keep their contents.

        In another process than the one that made them, only that process's copies are closed.
        """
        if not self._session.is_inherited:
            self._session.interrupt.set()
        self._staging.close()
        self._local.close()
        for region in self.own:
            region.close()

    def leave_to_parent(self) -> None:
        """Keep, in a forked child, nothing but the arrays of the caller's own regions."""
        self._lock = threading.Lock()
        self._staging.leave_to_parent()
        self._local.leave_to_parent()


def _read(out: Mapping[str, Array], answer: OneAnswer) -> EvaluationResult:
    return read_result(answer.message.result, "region", out, answer.detached)


_all_regions: "weakref.WeakSet[Regions]" = weakref.WeakSet()


def _leave_to_parent() -> None:
    for each in tuple(_all_regions):
        each.leave_to_parent()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_to_parent)
