"""All shared memory of one client: the caller's regions, and the pools of its own."""

import os
import threading
import weakref
from collections.abc import Mapping, Sequence
from functools import partial

from losswire.client._calls.batch import Batch
from losswire.client._calls.lease import Lease
from losswire.client._calls.operations import (
    EVALUATE,
    LocalStep,
    Operation,
    Steps,
    create_region,
    get_server_info,
    known_call,
)
from losswire.client._calls.session import Session
from losswire.client._errors import FailedPreconditionError, LosswireError, UnimplementedError
from losswire.client._memory import mapping
from losswire.client._memory.mapping import SharedMemory, size_with_mark
from losswire.client._memory.region import Region
from losswire.client._memory.region_pool import ONE_PAGE, PoolLimits, RegionPool
from losswire.client._messages import thresholds
from losswire.client._messages.evaluation import Evaluation
from losswire.client._messages.fit import Fit
from losswire.client._messages.placed_array import (
    Array,
    PlacedArray,
    find_unsettled,
    is_missing_region,
    mark_settled,
    pending_error,
)
from losswire.client._messages.response import EvaluationResult, OneAnswer, read_result
from losswire.client._messages.template import TEMPLATES, key_of, placed_key_of
from losswire.v1 import tensor_service_pb2


class Regions:
    """The shared memory of one client. Any thread may use it."""

    def __init__(self, session: Session) -> None:
        """Begin with no region."""
        self.session = session
        """The facts that all calls of the client have in common."""
        self.staging = RegionPool(
            session,
            PoolLimits(
                max_regions=thresholds.MAX_STAGING_REGIONS,
                max_bytes=thresholds.MAX_STAGING_BYTES,
                min_region_bytes=thresholds.MIN_STAGING_BYTES,
                pause_seconds=thresholds.STAGING_PAUSE_SECONDS,
            ),
        )
        """The regions that large evaluations are copied through."""
        self._pages = RegionPool(
            session,
            PoolLimits(
                max_regions=thresholds.MAX_LEASES,
                max_bytes=thresholds.MAX_LEASES * ONE_PAGE,
                min_region_bytes=ONE_PAGE,
                pause_seconds=thresholds.LEASE_PAUSE_SECONDS,
            ),
        )
        """Regions of one page, for their leases."""
        self._calls = 0
        """The number of evaluations, up to the first that may open a lease."""
        self._lock = threading.RLock()
        self.own: tuple[Region, ...] = ()
        """The caller's own regions, in which inputs of any size may be."""
        _all_regions.add(self)

    def want_lease(self, timeout: float | None) -> bool:
        """Count an evaluation; returns whether `open_lease` should come before it."""
        if not self._pages.is_enabled:
            return False
        if self.own and any(region.lease.is_free for region in self.own):
            return False
        if self._calls < thresholds.LEASE_AFTER_CALLS:
            self._calls += 1
            return False
        if self._pages.has_free_lease():
            return False
        seconds = timeout or self.session.timeout
        return seconds >= thresholds.LEASE_MIN_TIMEOUT_SECONDS and self._pages.can_add()

    def open_lease(self) -> Steps[None]:
        """Open a lease for evaluations with no array in a region; without one, they go by gRPC."""
        return self._pages.add()

    def may_help(self, batch: Batch) -> bool:
        """Return, at no cost, whether shared memory is worth a try for an evaluation."""
        if self.own and (batch.out or not batch.is_small):
            return True
        return self.staging.is_enabled and batch.may_be_worth_staging

    def known_call(
        self, evaluation: Evaluation, out: Mapping[str, Array] | None
    ) -> Operation[EvaluationResult] | None:
        """Return the one call of an evaluation whose template is known; None for any other."""
        if out is not None and not self.own:
            return None
        leases, keyed = self.leases, key_of(evaluation)
        found = known_call(keyed, leases) if out is None else None
        if found is None and self.own:
            known = TEMPLATES.placed_request(placed_key_of(keyed, self._where, out))
            if known is not None:
                request, fit = known
                read = partial(_read, fit, out or {})
                found = Operation(EVALUATE, request, read, leases=leases)
        return found

    @property
    def leases(self) -> Sequence[Lease]:
        """The connections that a call may go over; any connection serves all regions."""
        return (*[region.lease for region in self.own], *self._pages.leases)

    def remember(self, batch: Batch, request: bytes) -> None:
        """Store the request of a valid evaluation whose arrays are in the caller's regions."""
        keyed = placed_key_of(key_of(batch.evaluation), self._where, batch.out)
        TEMPLATES.keep(keyed, batch.evaluation, request)

    def settle(self, arrays: Sequence[object], timeout: float | None) -> Steps[None]:
        """Wait until no call that was given up can write into some arrays any more.

        Such a call went over a lease, which still gets its answer, or by gRPC. A server computes
        evaluations that write into regions in the order of their arrival: when it has answered a
        later one that came by gRPC, too, those before it are done. Raises FailedPreconditionError
        when it cannot be asked, because the region is not this client's own.
        """
        seconds = timeout or self.session.timeout
        for root in find_unsettled(arrays):
            region = next((each for each in self.own if each.memory.has_root(root)), None)
            if region is None:
                raise pending_error()
            try:
                for lease in self.leases:
                    yield LocalStep(partial(lease.wait_for_owed, seconds))
                yield Operation(EVALUATE, region.memory.barrier(), lambda _: None)
            except LosswireError as error:
                if not is_missing_region(error):
                    raise
            mark_settled(root)

    def place(self, array: Array) -> PlacedArray | None:
        """Return an array with its place in the caller's regions; None when it is in none."""
        found = (region.place(array) for region in self.own)
        return next((placed for placed in found if placed is not None), None)

    def _where(self, array: Array) -> tuple[int, int] | None:
        for region in self.own:
            place = region.where(array)
            if place is not None:
                return place
        return None

    def forget_all(self, missing: SharedMemory | None) -> None:
        """Stop using all regions: a server that was started again has none of them.

        `missing` is the staging region that it did not know; None: one of the caller's own.
        """
        self.staging.forget_all(missing)
        with self._lock:
            for region in self.own:
                region.lost = True
            self.own = ()

    def open(self, nbytes: int) -> Steps[Region]:
        """Make a region for the caller; see `Client.region`."""
        if type(nbytes) is not int or nbytes < 1:
            raise ValueError(f"nbytes: expected a number of bytes greater than 0, got {nbytes!r}")
        if len(self.session.targets) != 1:
            raise ValueError("a region belongs to one server, and this client has several targets")
        if not mapping.HAVE_REGIONS:
            raise UnimplementedError("shared memory needs Linux", reason="NOT_SERVED")
        info = yield get_server_info()
        if not info.transports.region_socket:
            raise UnimplementedError(
                "the server shares no memory: it listens where other machines can call and has "
                "no --region-socket, or it was told to share none",
                reason="NOT_SERVED",
            )
        size = size_with_mark(nbytes)
        created = yield create_region(size)
        try:
            memory: SharedMemory = yield LocalStep(partial(self._fetch, created))
        except FailedPreconditionError:
            # The token lasts for seconds, and a busy machine may take longer.
            created = yield create_region(size)
            memory = yield LocalStep(partial(self._fetch, created))
        region = Region(memory, self._forget)
        with self._lock:
            self.own = (*self.own, region)
        return region

    def _fetch(self, created: tensor_service_pb2.CreateRegionResponse) -> SharedMemory:
        return SharedMemory(created, self.session.interrupt, inherited=True)

    def _forget(self, region: Region) -> None:
        with self._lock:
            self.own = tuple(each for each in self.own if each is not region)

    def close(self) -> None:
        """Close all of them; arrays in the caller's regions keep their contents.

        In another process than the one that made them, only that process's copies are closed.
        """
        if not self.session.is_inherited:
            self.session.interrupt.set()
        self.staging.close()
        self._pages.close()
        for region in self.own:
            region.close()

    def drop_in_child(self) -> None:
        """Drop, in a forked child, everything but the arrays of the caller's own regions."""
        self._lock = threading.RLock()
        self.staging.drop_in_child()
        self._pages.drop_in_child()


def _read(fit: Fit, out: Mapping[str, Array], answer: OneAnswer) -> EvaluationResult:
    return fit.check(read_result(answer.message.result, "region", out, answer.detached))


_all_regions: "weakref.WeakSet[Regions]" = weakref.WeakSet()


def _drop_in_child() -> None:
    for each in tuple(_all_regions):
        each.drop_in_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_drop_in_child)
