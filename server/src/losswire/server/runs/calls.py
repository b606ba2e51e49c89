"""The calls on runs, which gRPC and HTTP share: within the budget, off the event loop."""

import math
from collections.abc import Callable, Iterable
from functools import partial
from typing import TypeVar

from losswire.server.errors import InvalidRunError
from losswire.server.memory.budget import Budget
from losswire.server.runs import thresholds
from losswire.server.runs.checks import DEFAULT_PAGE_SIZE, check_id, check_list
from losswire.server.runs.content import row_of, whole_run
from losswire.server.runs.keeper import RunKeeper
from losswire.server.runs.page_token import read_token, write_token
from losswire.server.runs.store import Filters, RunStore
from losswire.v1 import run_service_pb2
from losswire.wire import Violation

_R = TypeVar("_R")


class RunCalls:
    """The runs of one tenant. Everything but the arithmetic of sizes is done in store threads."""

    def __init__(self, keeper: RunKeeper, budget: Budget, tenant: str) -> None:
        """Serve a store; the budget holds the memory of messages."""
        self._keeper = keeper
        self._budget = budget
        self._tenant = tenant

    async def save(
        self, size_bytes: int, read: Callable[[], run_service_pb2.SaveRunRequest]
    ) -> run_service_pb2.SaveRunResponse:
        """Store a run of `size_bytes`, which `read` returns in a thread of the store."""
        task = partial(_save, read, self._tenant)
        return await self._with_memory(size_bytes * thresholds.SAVED_RUN_COPIES, task)

    async def get(
        self, run_id: str, use: Callable[[run_service_pb2.Run], _R], copies: int = 1
    ) -> _R:
        """Return what `use` makes of a run in a store thread, MissingRunError when there is none.

        `copies`: how many times the memory of a run is held that reading takes.
        """
        _refuse(check_id(run_id, "run_id"))
        size_bytes = await self._keeper.run(lambda store: store.size(self._tenant, run_id))
        task = partial(_get, run_id, self._tenant, use)
        return await self._with_memory(size_bytes * copies * thresholds.READ_RUN_COPIES, task)

    async def list(
        self, request: run_service_pb2.ListRunsRequest
    ) -> run_service_pb2.ListRunsResponse:
        """List runs in pages."""
        size_bytes = thresholds.STORE_PAGE_BYTES * thresholds.READ_RUN_COPIES
        return await self._with_memory(size_bytes, partial(_list, request, self._tenant))

    async def delete(self, run_id: str) -> bool:
        """Delete a run; returns whether there was one."""
        _refuse(check_id(run_id, "run_id"))
        return await self._keeper.run(lambda store: store.delete(self._tenant, run_id))

    async def _with_memory(self, size_bytes: int, task: Callable[[RunStore], _R]) -> _R:
        with self._budget.reservation() as reservation:
            await reservation.grow_to(size_bytes, math.inf)
            return await self._keeper.run(task)


def _save(
    read: Callable[[], run_service_pb2.SaveRunRequest], tenant: str, store: RunStore
) -> run_service_pb2.SaveRunResponse:
    listing, created = store.save(tenant, row_of(read().run, tenant))
    kept = run_service_pb2.Run.FromString(listing)
    return run_service_pb2.SaveRunResponse(run=kept, created=created)


def _get(run_id: str, tenant: str, use: Callable[[run_service_pb2.Run], _R], store: RunStore) -> _R:
    return use(run_service_pb2.Run.FromString(whole_run(*store.get(tenant, run_id))))


def _list(
    request: run_service_pb2.ListRunsRequest, tenant: str, store: RunStore
) -> run_service_pb2.ListRunsResponse:
    filters = Filters(loss=request.loss, name=request.name, labels=dict(request.labels))
    violations = [*check_list(request)]
    after = None
    if request.page_token:
        try:
            after = read_token(filters, request.page_token)
        except ValueError as error:
            violations.append(Violation("page_token", str(error)))
    _refuse(violations)
    page = store.list(
        tenant,
        filters,
        after,
        request.page_size or DEFAULT_PAGE_SIZE,
        thresholds.STORE_PAGE_BYTES,
    )
    return run_service_pb2.ListRunsResponse(
        runs=map(run_service_pb2.Run.FromString, page.listings),
        next_page_token="" if page.after is None else write_token(filters, page.after),
    )


def _refuse(violations: Iterable[Violation]) -> None:
    """Raise InvalidRunError if there are any."""
    found = list(violations)
    if found:
        raise InvalidRunError(found)
