"""From the bytes of a request to its response: by a prepared evaluation, or else by decoding."""

import asyncio
import operator
from collections.abc import Callable, Sequence
from functools import partial

from losswire.server import thresholds
from losswire.server.compute.work import Work
from losswire.server.memory.budget import Reservation
from losswire.server.metrics.notes import note_about
from losswire.server.metrics.recorder import Recorder
from losswire.server.pipeline.decode import NOTHING_DETACHED, Detached
from losswire.server.pipeline.encode import Encoded
from losswire.server.pipeline.evaluator import Evaluator, OnEvaluated
from losswire.server.prepared.cache import PreparedCache, PreparedEvaluation
from losswire.server.prepared.envelope import (
    Slice,
    many_evaluations,
    one_evaluation,
    one_of_many_results,
    result_prefix,
    streamed_evaluation,
    streamed_result,
)
from losswire.server.rpc.parse import grows_beyond, parse, without_tensors
from losswire.server.rpc.request_id import current_request_id
from losswire.server.rpc.status import forget_frames, item_status
from losswire.v1 import evaluation_pb2, loss_service_pb2
from losswire.wire import DETACHED_FROM

Deadline = Callable[[], float]
"""Returns when a call has to be answered, on the monotonic clock."""


Compute = Callable[[Callable[[Slice], bytes | None], Slice], bytes | None]
"""Calls what computes a prepared evaluation; counts its time where somebody reads the counts."""


Find = Callable[[Slice], PreparedEvaluation | None]
"""Finds the prepared evaluation of a request; None: there is none."""


class EvaluateHandlers:
    """Answers the requests that hold whole evaluations."""

    def __init__(
        self, evaluator: Evaluator, max_evaluations: int, recorder: Recorder | None = None
    ) -> None:
        """Begin with an empty cache; one call holds at most `max_evaluations`."""
        self.evaluator = evaluator
        worker = evaluator.worker
        self.prepared = PreparedCache(worker.threads, evaluator.regions.map_region, worker.pause)
        self._max_evaluations = max_evaluations
        self._prepares = not evaluator.worker.copies_inputs
        self._compute: Compute = partial(recorder.run, "compute") if recorder else operator.call
        observed = recorder is not None and recorder.observer is not None
        self._find: Find = self._find_and_note if observed else self.prepared.find

    async def one(
        self, request: bytes, deadline: Deadline, reservation: Reservation | None = None
    ) -> bytes | loss_service_pb2.EvaluateResponse:
        """Answer an EvaluateRequest; raises the error of its evaluation.

        `reservation` is the call's, which keeps the memory until the answer is sent.
        """
        sent = one_evaluation(request)
        prepared = self._find(sent) if sent else None
        if sent is not None and prepared is not None:
            if not prepared.small:
                answer = await self._on_worker(prepared, sent, deadline(), reservation)
            else:
                answer = (
                    self._compute(prepared.answer_of, sent)
                    if self._computes_now(prepared)
                    else None
                )
            if answer is not None:
                return answer
        message, detached = _parse_one(request)
        evaluation = message.evaluation
        encoded = await self.evaluator.evaluate(
            evaluation, deadline(), self._preparer([sent], [evaluation]), detached, reservation
        )
        if not encoded.detached:
            return loss_service_pb2.EvaluateResponse(result=encoded.message)
        parts = encoded.parts()
        return b"".join((result_prefix(sum(map(len, parts))), *parts))

    async def many(
        self, request: bytes, deadline: Deadline, reservation: Reservation | None = None
    ) -> bytes | loss_service_pb2.EvaluateManyResponse:
        """Answer an EvaluateManyRequest; the error of an item becomes its outcome.

        `reservation` is that of `one`.
        """
        sent = await _find_many(request, self._max_evaluations)
        if answer := await self._prepared_answer(sent):
            return answer
        evaluations = (await _parse_many(request)).evaluations
        answers = await self.evaluator.evaluate_many(
            evaluations, deadline(), self._preparer(sent, evaluations), reservation
        )
        return loss_service_pb2.EvaluateManyResponse(outcomes=map(outcome_of, answers))

    async def item(
        self, request: bytes, deadline: float, reservation: Reservation
    ) -> bytes | loss_service_pb2.EvaluateStreamResponse:
        """Answer an EvaluateStreamRequest; an error becomes its outcome.

        `reservation` is the item's, which keeps the memory until the answer is sent.
        """
        number, sent = streamed_evaluation(request)
        prepared = self._find(sent) if sent else None
        result = (
            self._compute(prepared.result_of, sent)
            if sent and prepared and self._computes_now(prepared)
            else None
        )
        if result is not None:
            return streamed_result(number, result)
        message: loss_service_pb2.EvaluateStreamRequest
        message = parse(loss_service_pb2.EvaluateStreamRequest, request)
        answer: Encoded | Exception
        try:
            answer = await self.evaluator.evaluate(
                message.evaluation,
                deadline,
                self._preparer([sent], [message.evaluation]),
                reservation=reservation,
            )
        except Exception as error:  # noqa: BLE001 (the item's error is its answer)
            answer = error
        return loss_service_pb2.EvaluateStreamResponse(id=message.id, outcome=outcome_of(answer))

    def _find_and_note(self, sent: Slice) -> PreparedEvaluation | None:
        """Find a prepared evaluation, and note what it is for those who observe calls."""
        prepared = self.prepared.find(sent)
        if prepared is not None:
            note_about(prepared.about)
        return prepared

    def _computes_now(self, prepared: PreparedEvaluation) -> bool:
        """Return whether an evaluation can be computed on the event loop now."""
        return self.evaluator.computes_now(
            prepared.peak_bytes, small=prepared.small, writes_regions=prepared.writes_regions
        )

    async def _on_worker(
        self,
        prepared: PreparedEvaluation,
        sent: Slice,
        deadline: float,
        reservation: Reservation | None,
    ) -> bytes | None:
        """Compute a large evaluation on the worker; None when it has to be decoded instead."""
        with self.evaluator.budget.join(reservation) as held:
            await held.grow_to(prepared.peak_bytes, deadline)
            task, worker = partial(prepared.large_answer_of, sent), self.evaluator.worker
            if not prepared.writes_regions:
                return await worker.run(task, deadline, is_brief=prepared.is_brief)
            async with self.evaluator.write_order:
                started = worker.start_task(task, deadline)
            return await worker.answer_of(started)

    async def _prepared_answer(self, sent: Sequence[Slice]) -> bytes:
        """Answer many evaluations, if all of them are small and prepared; else returns nothing."""
        found: list[PreparedEvaluation] = []
        for each in sent:
            prepared = self._find(each)
            if prepared is None or not prepared.small or prepared.writes_regions:
                return b""
            found.append(prepared)
            if not len(found) % thresholds.MAX_FOUND_IN_A_ROW:
                await asyncio.sleep(0)
        budget, size_bytes = self.evaluator.budget, sum([each.peak_bytes for each in found])
        if size_bytes > budget.free_bytes:
            return b""
        parts: list[bytes] = []
        with budget.hold(size_bytes):
            for number, (prepared, each) in enumerate(zip(found, sent, strict=True), 1):
                result = self._compute(prepared.result_of, each)
                if result is None:
                    return b""
                parts += one_of_many_results(result)
                if not number % thresholds.MAX_PREPARED_IN_A_ROW:
                    await asyncio.sleep(0)
        return b"".join(parts)

    def _preparer(
        self, sent: Sequence[Slice | None], evaluations: Sequence[evaluation_pb2.Evaluation]
    ) -> OnEvaluated:
        """Return the callback that prepares evaluations which were found in the request's bytes."""
        left = thresholds.MAX_PREPARED_PER_CALL

        def prepare(position: int, work: Work, result: Encoded) -> None:
            nonlocal left
            found = sent[position] if sent else None
            if found is None or not self._prepares or not left or self.prepared.find(found):
                return
            left -= 1
            self.prepared.learn(found, evaluations[position], work, result)

        return prepare


async def _find_many(request: bytes, most: int) -> list[Slice]:
    """Find the evaluations in an EvaluateManyRequest.

    Returns none when the request has other fields, or more than `most` evaluations.
    """
    found: list[Slice] = []
    start = 0
    while 0 <= start < len(request) and len(found) < most:
        in_a_row = min(thresholds.MAX_FOUND_IN_A_ROW, most - len(found))
        more, start = many_evaluations(request, start, in_a_row)
        found += more
        if len(more) == thresholds.MAX_FOUND_IN_A_ROW:
            await asyncio.sleep(0)
    return found if start == len(request) else []


def outcome_of(answer: Encoded | Exception) -> evaluation_pb2.EvaluationOutcome:
    """Return the outcome of one item: its result, or the status of its error."""
    if isinstance(answer, Exception):
        status = item_status(answer, current_request_id())
        forget_frames(answer)
        return evaluation_pb2.EvaluationOutcome(error=status)
    return evaluation_pb2.EvaluationOutcome(result=answer.whole())


def _parse_one(request: bytes) -> tuple[loss_service_pb2.EvaluateRequest, Detached]:
    """Parse an EvaluateRequest; the tensors of a large one are not copied by protobuf."""
    if len(request) < DETACHED_FROM:
        return parse(loss_service_pb2.EvaluateRequest, request), NOTHING_DETACHED
    reader = without_tensors(loss_service_pb2.EvaluateRequest)
    message, found = parse(loss_service_pb2.EvaluateRequest, request, reader)
    return message, {path.removeprefix("evaluation."): each for path, each in found.items()}


async def _parse_many(request: bytes) -> loss_service_pb2.EvaluateManyRequest:
    """Parse an EvaluateManyRequest, off the event loop when it is large."""
    kind = loss_service_pb2.EvaluateManyRequest
    read = partial(parse, kind, request, max_parsed_bytes=thresholds.MAX_MANY_PARSED_BYTES)
    if not grows_beyond(kind, request, thresholds.PARSED_AT_ONCE_BYTES):
        return read()  # type: ignore[no-any-return]
    return await asyncio.to_thread(read)
