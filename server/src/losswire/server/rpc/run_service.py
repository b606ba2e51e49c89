"""The gRPC service of runs that are kept."""

from functools import partial
from typing import Any

import grpc

from losswire.server import thresholds
from losswire.server.memory.budget import Budget
from losswire.server.memory.residents import TENANT
from losswire.server.rpc.parse import parse
from losswire.server.runs.calls import RunCalls
from losswire.server.runs.keeper import RunKeeper
from losswire.v1 import run_service_pb2, run_service_pb2_grpc

Context = grpc.aio.ServicerContext[Any, Any]


class RunService(run_service_pb2_grpc.RunServiceServicer):
    """Runs that are kept."""

    def __init__(self, keeper: RunKeeper, budget: Budget) -> None:
        """Serve a store; the budget holds the memory of messages."""
        self._calls = RunCalls(keeper, budget, TENANT)

    async def SaveRun(self, request: Any, context: Context) -> Any:  # noqa: ANN401 (bytes)
        """Keep a run."""
        del context
        read = partial(
            parse,
            run_service_pb2.SaveRunRequest,
            request,
            max_parsed_bytes=thresholds.MAX_SUMMARY_PARSED_BYTES,
        )
        return await self._calls.save(len(request), read)

    async def GetRun(self, request: run_service_pb2.GetRunRequest, context: Context) -> Any:  # noqa: ANN401 (bytes)
        """Return a run."""
        del context
        return await self._calls.get(request.run_id, _response)

    async def ListRuns(
        self, request: run_service_pb2.ListRunsRequest, context: Context
    ) -> run_service_pb2.ListRunsResponse:
        """List runs in pages."""
        del context
        return await self._calls.list(request)

    async def DeleteRun(
        self, request: run_service_pb2.DeleteRunRequest, context: Context
    ) -> run_service_pb2.DeleteRunResponse:
        """Delete a run."""
        del context
        return run_service_pb2.DeleteRunResponse(deleted=await self._calls.delete(request.run_id))


def _response(run: run_service_pb2.Run) -> bytes:
    return run_service_pb2.GetRunResponse(run=run).SerializeToString()
