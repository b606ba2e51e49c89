"""From the bytes of a request to those of its answer: by a known form, or else by the line."""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from losswire.server.compute.work import Work
from losswire.server.pipeline.decode import NOTHING_DETACHED, Detached
from losswire.server.pipeline.encode import Encoded
from losswire.server.pipeline.evaluator import Evaluator, OnEvaluated
from losswire.server.prepared.cache import PreparedCache, PreparedEvaluation
from losswire.server.prepared.envelope import (
    Slice,
    many_evaluations,
    many_results,
    one_evaluation,
    result_prefix,
    streamed_evaluation,
    streamed_result,
)
from losswire.server.rpc.parse import parse
from losswire.v1 import evaluation_pb2, loss_service_pb2
from losswire.wire import DETACHED_FROM, detach

_AT_ONCE: Final = 32
"""After so many known evaluations, the event loop turns to others."""

_LEARNED_AT_ONCE: Final = 16
"""Of so many evaluations of one call the forms are kept, which takes longer than computing them."""

Deadline = Callable[[], float]
"""Tells when a call has to be answered, on the monotonic clock."""


class EvaluateHandlers:
    """Answers the requests that hold whole evaluations."""

    def __init__(self, line: Evaluator, most: int) -> None:
        """Take the line, and how many evaluations one call may hold."""
        self._evaluator = line
        self._most = most
        self._known = PreparedCache(line.engine.threads, line.regions.map_region)
        self._learns = line.engine.device.type == "cpu"

    async def one(
        self, request: bytes, deadline: Deadline
    ) -> bytes | loss_service_pb2.EvaluateResponse:
        """Answer an EvaluateRequest; raises whatever is wrong with it."""
        sent = one_evaluation(request)
        known = self._known.find(sent) if sent else None
        if sent is not None and known is not None:
            if not known.small:
                answer = await self._by_engine(known, sent, deadline())
            else:
                answer = known.answer_of(sent) if self._fits(known) else None
            if answer is not None:
                return answer
        message, detached = _parse_one(request)
        evaluation = message.evaluation
        encoded = await self._evaluator.encoded(
            evaluation, deadline(), self._learner([sent], [evaluation]), detached
        )
        if not encoded.apart:
            return loss_service_pb2.EvaluateResponse(result=encoded.message)
        parts = encoded.parts()
        return b"".join((result_prefix(sum(map(len, parts))), *parts))

    async def many(
        self, request: bytes, deadline: Deadline
    ) -> bytes | loss_service_pb2.EvaluateManyResponse:
        """Answer an EvaluateManyRequest; what is wrong with an item becomes its outcome."""
        sent = many_evaluations(request, self._most)
        known = await self._known_results(sent)
        if known:
            return many_results(known)
        message: loss_service_pb2.EvaluateManyRequest
        message = parse(loss_service_pb2.EvaluateManyRequest, request)
        evaluations = message.evaluations
        outcomes = await self._evaluator.outcomes(
            evaluations, deadline(), self._learner(sent, evaluations)
        )
        return loss_service_pb2.EvaluateManyResponse(outcomes=outcomes)

    async def item(
        self, request: bytes, deadline: float
    ) -> bytes | loss_service_pb2.EvaluateStreamResponse:
        """Answer an EvaluateStreamRequest; what is wrong with it becomes its outcome."""
        number, sent = streamed_evaluation(request)
        known = self._known.find(sent) if sent else None
        result = known.result_of(sent) if sent and known and self._fits(known) else None
        if result is not None:
            return streamed_result(number, result)
        message: loss_service_pb2.EvaluateStreamRequest
        message = parse(loss_service_pb2.EvaluateStreamRequest, request)
        outcome = await self._evaluator.outcome(
            message.evaluation, deadline, self._learner([sent], [message.evaluation])
        )
        return loss_service_pb2.EvaluateStreamResponse(id=message.id, outcome=outcome)

    def _fits(self, known: PreparedEvaluation) -> bool:
        """Tell whether an evaluation is small and there is memory for it."""
        if known.writes_regions and not self._evaluator.engine.is_idle:
            return False  # the engine says why
        # Nothing else runs until it is done: what is free now is free until then.
        return known.small and known.peak_bytes <= self._evaluator.admission.free_bytes

    async def _by_engine(
        self, known: PreparedEvaluation, sent: Slice, deadline: float
    ) -> bytes | None:
        """Compute what is large on the engine's thread; None when the line has to look at it."""
        with self._evaluator.admission.hold(known.peak_bytes):
            task = partial(known.large_answer_of, sent)
            return await self._evaluator.engine.run(task, deadline)

    async def _known_results(self, sent: Sequence[Slice]) -> list[bytes]:
        """Give the results of many evaluations, if all of them are small and known."""
        found: list[PreparedEvaluation] = []
        for each in sent:
            known = self._known.find(each)
            if known is None or not known.small or known.writes_regions:
                return []
            found.append(known)
        admission, wanted = self._evaluator.admission, sum(known.peak_bytes for known in found)
        if wanted > admission.free_bytes:
            return []
        results: list[bytes] = []
        with admission.hold(wanted):
            for known, each in zip(found, sent, strict=True):
                result = known.result_of(each)
                if result is None:
                    return []
                results.append(result)
                if not len(results) % _AT_ONCE:
                    await asyncio.sleep(0)
        return results

    def _learner(
        self, sent: Sequence[Slice | None], evaluations: Sequence[evaluation_pb2.Evaluation]
    ) -> OnEvaluated:
        """Give what keeps the forms of evaluations, where they were found in the request."""
        left = _LEARNED_AT_ONCE

        def learn(position: int, work: Work, result: Encoded) -> None:
            nonlocal left
            found = sent[position] if sent else None
            if found is None or not self._learns or not left or self._known.find(found):
                return
            left -= 1
            self._known.learn(found, evaluations[position], work, result)

        return learn


def _parse_one(request: bytes) -> tuple[loss_service_pb2.EvaluateRequest, Detached]:
    """Parse an EvaluateRequest, a large one without having protobuf copy its tensors."""
    if len(request) < DETACHED_FROM:
        return parse(loss_service_pb2.EvaluateRequest, request), NOTHING_DETACHED
    reader = partial(detach, message_type=loss_service_pb2.EvaluateRequest)
    message, found = parse(loss_service_pb2.EvaluateRequest, request, reader)
    return message, {path.removeprefix("evaluation."): each for path, each in found.items()}
