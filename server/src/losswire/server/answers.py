"""From the bytes of a request to those of its answer: by a known form, or else by the line."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

from losswire.server.envelopes import (
    many_evaluations,
    many_results,
    one_evaluation,
    one_result,
    streamed_evaluation,
    streamed_result,
)
from losswire.server.known import KnownForms
from losswire.server.line import Line, Met
from losswire.server.parse import parse
from losswire.server.work import Work
from losswire.v1 import evaluation_pb2, loss_service_pb2

_AT_ONCE: Final = 32
"""After so many known evaluations, the event loop turns to others."""

Deadline = Callable[[], float]
"""Tells when a call has to be answered, on the monotonic clock."""


class Answers:
    """Answers the requests that hold whole evaluations."""

    def __init__(self, line: Line, most: int) -> None:
        """Take the line, and how many evaluations one call may hold."""
        self._line = line
        self._most = most
        self._known = KnownForms(line.admission)
        self._learns = line.engine.device.type == "cpu"

    async def one(
        self, request: bytes, deadline: Deadline
    ) -> bytes | loss_service_pb2.EvaluateResponse:
        """Answer an EvaluateRequest; raises whatever is wrong with it."""
        sent = one_evaluation(request)
        known = self._known.evaluate(sent) if sent else None
        if known is not None:
            return one_result(known)
        message: loss_service_pb2.EvaluateRequest
        message = parse(loss_service_pb2.EvaluateRequest, request)
        result = await self._line.evaluate(
            message.evaluation,
            deadline(),
            self._learner([sent] if sent else [], [message.evaluation]),
        )
        return loss_service_pb2.EvaluateResponse(result=result)

    async def many(
        self, request: bytes, deadline: Deadline
    ) -> bytes | loss_service_pb2.EvaluateManyResponse:
        """Answer an EvaluateManyRequest; what is wrong with an item becomes its outcome."""
        sent = many_evaluations(request, self._most)
        known = await self._known_results(sent)
        if known is not None:
            return many_results(known)
        message: loss_service_pb2.EvaluateManyRequest
        message = parse(loss_service_pb2.EvaluateManyRequest, request)
        evaluations = message.evaluations
        outcomes = await self._line.outcomes(
            evaluations, deadline(), self._learner(sent, evaluations)
        )
        return loss_service_pb2.EvaluateManyResponse(outcomes=outcomes)

    async def item(
        self, request: bytes, deadline: float
    ) -> bytes | loss_service_pb2.EvaluateStreamResponse:
        """Answer an EvaluateStreamRequest; what is wrong with it becomes its outcome."""
        number, sent = streamed_evaluation(request)
        known = self._known.evaluate(sent) if sent else None
        if known is not None:
            return streamed_result(number, known)
        message: loss_service_pb2.EvaluateStreamRequest
        message = parse(loss_service_pb2.EvaluateStreamRequest, request)
        outcome = await self._line.outcome(
            message.evaluation,
            deadline,
            self._learner([sent] if sent else [], [message.evaluation]),
        )
        return loss_service_pb2.EvaluateStreamResponse(id=message.id, outcome=outcome)

    def _learner(
        self, sent: Sequence[bytes], evaluations: Sequence[evaluation_pb2.Evaluation]
    ) -> Met:
        """Give what keeps the forms of evaluations that were sent in some bytes; none: nothing."""

        def learn(position: int, work: Work, result: evaluation_pb2.EvaluationResult) -> None:
            if sent and self._learns and not self._known.holds(sent[position]):
                self._known.learn(sent[position], evaluations[position], work, result)

        return learn

    async def _known_results(self, sent: Sequence[bytes]) -> list[bytes] | None:
        """Give the results of many evaluations, if all of them are known."""
        found: list[bytes] = []
        for each in sent:
            result = self._known.evaluate(each)
            if result is None:
                return None
            found.append(result)
            if not len(found) % _AT_ONCE:
                await asyncio.sleep(0)
        return found or None
