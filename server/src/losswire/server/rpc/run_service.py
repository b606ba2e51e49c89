"""The gRPC service of runs that are kept."""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, TypeVar

import grpc

from losswire.server import thresholds
from losswire.server.errors import InvalidRunError
from losswire.server.memory.budget import Budget
from losswire.server.memory.residents import TENANT
from losswire.server.rpc.parse import parse
from losswire.server.runs.checks import DEFAULT_PAGE_SIZE, check_id, check_list
from losswire.server.runs.content import row_of, whole_run
from losswire.server.runs.keeper import RunKeeper
from losswire.server.runs.page_token import read_token, write_token
from losswire.server.runs.store import Filters, RunStore
from losswire.v1 import run_service_pb2, run_service_pb2_grpc
from losswire.wire import Violation

Context = grpc.aio.ServicerContext[Any, Any]
_R = TypeVar("_R")


class RunService(run_service_pb2_grpc.RunServiceServicer):
    """Runs that are kept. Everything but the arithmetic of sizes happens in the store's threads."""

    def __init__(self, keeper: RunKeeper, budget: Budget) -> None:
        """Serve a store; the budget holds the memory of messages."""
        self._keeper = keeper
        self._budget = budget

    async def SaveRun(self, request: Any, context: Context) -> Any:  # noqa: ANN401 (bytes)
        """Keep a run."""
        del context
        size_bytes = len(request) * thresholds.SAVED_RUN_COPIES
        return await self._with_memory(size_bytes, partial(_save, request, TENANT))

    async def GetRun(self, request: run_service_pb2.GetRunRequest, context: Context) -> Any:  # noqa: ANN401 (bytes)
        """Return a run."""
        del context
        _refuse(check_id(request.run_id, "run_id"))
        size_bytes = await self._keeper.run(lambda store: store.size(TENANT, request.run_id))
        return await self._with_memory(
            size_bytes * thresholds.READ_RUN_COPIES, partial(_get, request.run_id, TENANT)
        )

    async def ListRuns(
        self, request: run_service_pb2.ListRunsRequest, context: Context
    ) -> run_service_pb2.ListRunsResponse:
        """List runs in pages."""
        del context
        size_bytes = thresholds.STORE_PAGE_BYTES * thresholds.READ_RUN_COPIES
        return await self._with_memory(size_bytes, partial(_list, request, TENANT))

    async def DeleteRun(
        self, request: run_service_pb2.DeleteRunRequest, context: Context
    ) -> run_service_pb2.DeleteRunResponse:
        """Delete a run."""
        del context
        _refuse(check_id(request.run_id, "run_id"))
        deleted = await self._keeper.run(lambda store: store.delete(TENANT, request.run_id))
        return run_service_pb2.DeleteRunResponse(deleted=deleted)

    async def _with_memory(self, size_bytes: int, task: Callable[[RunStore], _R]) -> _R:
        with self._budget.hold(size_bytes):
            return await self._keeper.run(task)


def _save(request: bytes, tenant: str, store: RunStore) -> run_service_pb2.SaveRunResponse:
    message: run_service_pb2.SaveRunRequest
    message = parse(run_service_pb2.SaveRunRequest, request, max_fields=thresholds.MAX_RUN_FIELDS)
    listing, created = store.save(tenant, row_of(message.run, tenant))
    kept = run_service_pb2.Run.FromString(listing)
    return run_service_pb2.SaveRunResponse(run=kept, created=created)


def _get(run_id: str, tenant: str, store: RunStore) -> bytes:
    run = run_service_pb2.Run.FromString(whole_run(*store.get(tenant, run_id)))
    return run_service_pb2.GetRunResponse(run=run).SerializeToString()


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
