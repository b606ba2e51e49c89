"""The gRPC service of losses: methods that evaluate hand their request to a handler."""

import time
from collections.abc import AsyncIterator
from typing import Any

import grpc

from losswire.server.catalogue.describe import describe
from losswire.server.rpc.handlers import EvaluateHandlers
from losswire.server.rpc.server_info import server_info
from losswire.server.rpc.streaming import answer_stream
from losswire.server.rpc.summary_parts import summary_parts
from losswire.server.settings import Settings
from losswire.server.summaries.call import Summarizer
from losswire.v1 import (
    loss_service_pb2,
    loss_service_pb2_grpc,
)

Context = grpc.aio.ServicerContext[Any, Any]


def _deadline(context: Context) -> float:
    """Return the call's deadline on the monotonic clock; infinite when it has none."""
    remaining: float | None = context.time_remaining()
    return float("inf") if remaining is None else time.monotonic() + remaining


class LossService(loss_service_pb2_grpc.LossServiceServicer):
    """Losses and their gradients."""

    def __init__(
        self,
        handlers: EvaluateHandlers,
        summarizer: Summarizer,
        settings: Settings,
        worker_id: str,
    ) -> None:
        """Answer with these handlers, within the settings' limits, as this process."""
        self._evaluator = handlers.evaluator
        self._handlers = handlers
        self._summarizer = summarizer
        self._settings = settings
        self._worker_id = worker_id

    async def ListLosses(
        self, request: loss_service_pb2.ListLossesRequest, context: Context
    ) -> loss_service_pb2.ListLossesResponse:
        """List every loss."""
        del request, context
        return loss_service_pb2.ListLossesResponse(losses=map(describe, self._evaluator.registry))

    async def GetServerInfo(
        self, request: loss_service_pb2.GetServerInfoRequest, context: Context
    ) -> loss_service_pb2.GetServerInfoResponse:
        """Return versions, device, limits and transports."""
        del request, context
        return server_info(self._evaluator, self._settings, self._worker_id)

    def Evaluate(self, request: Any, context: Context) -> Any:  # noqa: ANN401 (a coroutine)
        """Evaluate one batch."""
        return self._handlers.one(request, lambda: _deadline(context))

    def EvaluateMany(self, request: Any, context: Context) -> Any:  # noqa: ANN401 (a coroutine)
        """Evaluate many small batches."""
        return self._handlers.many(request, lambda: _deadline(context))

    def EvaluateStream(self, requests: AsyncIterator[Any], context: Context) -> AsyncIterator[Any]:
        """Evaluate a sequence of batches; each is answered as soon as it is done."""
        deadline = _deadline(context)

        async def answer(request: bytes) -> bytes | loss_service_pb2.EvaluateStreamResponse:
            return await self._handlers.item(request, deadline)

        return answer_stream(requests, answer, self._settings.max_in_flight_per_stream)

    def EvaluateChunked(
        self,
        requests: AsyncIterator[Any],
        context: Context,
    ) -> AsyncIterator[Any]:
        """Evaluate one batch of any size, whose rows come in parts."""
        return self._evaluator.chunked.evaluate(requests, _deadline(context))

    def SummarizeLosses(self, requests: AsyncIterator[Any], context: Context) -> AsyncIterator[Any]:
        """Summarize a loss over a data set, whose batches come in parts."""
        return self._summarizer.summarize(summary_parts(requests), _deadline(context))
