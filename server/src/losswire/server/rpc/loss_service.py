"""The gRPC service of losses: methods that evaluate hand their request to a handler."""

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from losswire.server.catalogue.describe import describe
from losswire.server.memory.budget import Reservation
from losswire.server.rpc.calls import Call, Context
from losswire.server.rpc.drain import Drain
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


class LossService(loss_service_pb2_grpc.LossServiceServicer):
    """Losses and their gradients."""

    def __init__(
        self,
        handlers: EvaluateHandlers,
        summarizer: Summarizer,
        settings: Settings,
        worker_id: str,
        drain: Drain,
    ) -> None:
        """Answer with these handlers, within the settings' limits, as this process.

        Open streams end when the server drains.
        """
        self._evaluator = handlers.evaluator
        self._handlers = handlers
        self._summarizer = summarizer
        self._settings = settings
        self._worker_id = worker_id
        self._drain = drain

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

    def Evaluate(self, request: Any, context: Any) -> Any:  # noqa: ANN401 (a Call; a coroutine)
        """Evaluate one batch."""
        call: Call = context
        return self._handlers.one(request, call.deadline, call.reservation)

    def EvaluateMany(self, request: Any, context: Any) -> Any:  # noqa: ANN401 (a Call; a coroutine)
        """Evaluate many small batches."""
        call: Call = context
        return self._handlers.many(request, call.deadline, call.reservation)

    async def EvaluateStream(
        self,
        requests: AsyncIterator[Any],
        context: Any,  # noqa: ANN401 (a Call)
    ) -> AsyncIterator[Any]:
        """Evaluate a sequence of batches; each is answered as soon as it is done."""
        call: Call = context
        deadline = call.stream_deadline()
        held: set[Reservation] = set()

        async def answer(
            item: tuple[bytes, Reservation],
        ) -> tuple[bytes | loss_service_pb2.EvaluateStreamResponse, Reservation]:
            request, reservation = item
            held.add(reservation)
            return await self._handlers.item(request, deadline, reservation), reservation

        limit = self._settings.max_in_flight_per_stream
        try:
            async with aclosing(answer_stream(requests, answer, limit, self._drain)) as answers:
                async for response, reservation in answers:
                    yield response
                    held.discard(reservation)
                    reservation.close()
        finally:
            for each in held:
                each.close()

    def EvaluateChunked(self, requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:  # noqa: ANN401 (a Call)
        """Evaluate one batch of any size, whose rows come in parts."""
        call: Call = context
        return self._evaluator.chunked.evaluate(requests, call.stream_deadline(), call.reservation)

    def SummarizeLosses(self, requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:  # noqa: ANN401 (a Call)
        """Summarize a loss over a data set, whose batches come in parts."""
        call: Call = context
        parts, deadline = summary_parts(requests), call.stream_deadline()
        return self._summarizer.summarize(parts, deadline, call.reservation)
