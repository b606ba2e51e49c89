"""One SummarizeLosses: batches are read, checked and computed a few at a time, concurrently."""

import asyncio
import math
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, TypeVar

from losswire.server import thresholds
from losswire.server.compute.paths import tiled_form
from losswire.server.compute.work import Work
from losswire.server.errors import DrainingError, ExpiredError, InvalidEvaluationError
from losswire.server.memory.budget import Reservation
from losswire.server.metrics.notes import note_evaluation
from losswire.server.pipeline.admit import demand
from losswire.server.pipeline.chunked.read_ahead import read_ahead
from losswire.server.pipeline.decode import Detached
from losswire.server.pipeline.evaluator import Evaluator
from losswire.server.pipeline.worker import is_brief
from losswire.server.summaries.accumulate import Accumulator, Response
from losswire.server.summaries.batch import (
    PATHED,
    check_shape,
    evaluations,
    is_in_regions,
    with_paths,
)
from losswire.server.summaries.columns import text_bytes
from losswire.server.summaries.compute_batch import Batch, BatchComputer, ComputedBatch
from losswire.server.summaries.header import Plan, make_plan
from losswire.summaries import MemoryNeededError
from losswire.v1 import loss_service_pb2, summary_pb2
from losswire.wire import Violation

Part = tuple[loss_service_pb2.SummarizeLossesRequest, Detached]
"""A part of the request stream, and the elements of tensors that were cut out of it, by path."""

Computing = asyncio.Future[list[ComputedBatch | None]]
"""A batch that the worker computes."""

_NUMBER_BYTES = 8

_T = TypeVar("_T")


class Summarizer:
    """Answers the calls that summarize data sets."""

    def __init__(self, evaluator: Evaluator) -> None:
        """Compute with an evaluator's worker, within its budget."""
        self.evaluator = evaluator
        self._is_draining = False
        self._readers: set[_Reader] = set()

    def drain(self) -> None:
        """Let all calls report what they have, and end; they can be continued elsewhere."""
        self._is_draining = True
        for each in self._readers:
            each.drain()

    async def summarize(
        self, parts: AsyncIterator[Part], deadline: float, reservation: Reservation | None = None
    ) -> AsyncGenerator[bytes | Response]:
        """Summarize the batches of one call: yields progress and reports, the final one last.

        `reservation` is the call's, which keeps the memory until the last answer is sent. Raises
        the error of the header or of a batch, after the progress of those before it; and
        DrainingError after a report, when the server shuts down.
        """
        reader = _Reader(parts, is_draining=self._is_draining)
        self._readers.add(reader)
        try:
            header, detached = await reader.header()
            note_evaluation(header.evaluation)
            plan = make_plan(header, detached, self.evaluator.registry)
            with self.evaluator.budget.join(reservation) as held:
                call = _Call(self.evaluator, plan, reader, held, deadline)
                async with aclosing(call.responses()) as responses:
                    async for response in responses:
                        yield response
        finally:
            self._readers.discard(reader)
        if reader.was_drained:
            raise DrainingError


class _Reader:
    """Reads the parts of one call, until they end or the server drains."""

    def __init__(self, parts: AsyncIterator[Part], *, is_draining: bool) -> None:
        self._parts = parts
        self._is_draining = is_draining
        self._waiting: asyncio.Timeout | None = None
        """The limit of the time that it waits for a part, while it does."""
        self.was_drained = False
        """Whether reading ended because the server drains."""

    async def header(self) -> tuple[summary_pb2.SummaryHeader, Detached]:
        """Read the first part."""
        first = await self._next()
        if self.was_drained:
            raise DrainingError
        if first is None or not first[0].HasField("header"):
            raise _wrong("header", "must be the first part, and is missing")
        return first[0].header, first[1]

    async def batches(self) -> AsyncGenerator[tuple[summary_pb2.SummaryBatch, Detached]]:
        """Yield the batches, with the elements that were cut out of each."""
        while (part := await self._next()) is not None:
            message, detached = part
            match message.WhichOneof("part"):
                case "batch":
                    found = {key.removeprefix("batch."): each for key, each in detached.items()}
                    yield message.batch, found
                case "header":
                    raise _wrong("header", "comes only once, as the first part")
                case _:
                    raise _wrong("part", "is not set")

    def drain(self) -> None:
        """Let reading end, also while it waits."""
        self._is_draining = True
        if self._waiting is not None and not self._waiting.expired():
            self._waiting.reschedule(asyncio.get_running_loop().time())

    async def _next(self) -> Part | None:
        """Wait for a part; None at the end, or when the server drains.

        Raises ExpiredError when none comes for too long.
        """
        seconds = thresholds.SUMMARY_SILENCE_SECONDS
        try:
            if not self._is_draining:
                async with asyncio.timeout(seconds) as self._waiting:
                    return await anext(self._parts, None)
        except TimeoutError:
            if not self._is_draining:
                message = f"no batch came for {seconds:g} seconds"
                raise ExpiredError(message) from None
        finally:
            self._waiting = None
        self.was_drained = True
        return None


@dataclass(slots=True)
class _Demand:
    """The memory that one call needs, in bytes."""

    header: int
    state: int = 0
    """Of the summary so far."""
    received: int = 0
    """Of the largest batch, as it is received."""
    computed: int = 0
    """Of the batch that takes most while it is computed."""

    @property
    def size_bytes(self) -> int:
        """All together. A report is as large as the state, and serialized once more."""
        in_transit = self.received * thresholds.CHUNKS_IN_TRANSIT
        return self.header + 3 * self.state + in_transit + self.computed


class _Submitted(NamedTuple):
    """A batch that the worker has."""

    part: Computing
    reports: bool
    """Whether a report follows it."""
    in_regions: bool
    """Whether its caller waits until regions are no longer read."""


class _Call:
    """One call whose header was accepted."""

    def __init__(
        self,
        evaluator: Evaluator,
        plan: Plan,
        reader: _Reader,
        reservation: Reservation,
        deadline: float,
    ) -> None:
        self._evaluator = evaluator
        self._worker = evaluator.worker
        self._plan = plan
        self._reader = reader
        self._reservation = reservation
        self._deadline = deadline
        worker = self._worker
        self._computer = BatchComputer(plan, worker.device, worker.pause, evaluator.read_tensor)
        self._accumulator = Accumulator(plan)
        self._demand = _Demand(plan.held_bytes)
        self._under_way: deque[Computing] = deque()
        self._is_brief = True
        self._told = -math.inf
        """When progress was sent last, on the monotonic clock."""

    async def responses(self) -> AsyncGenerator[bytes | Response]:
        """Yield progress and reports."""
        await self._reserve()
        accumulator = self._accumulator
        # The summary is kept off the worker's thread, which computes the next batch meanwhile.
        await self._reserve(state=await self._within_memory(accumulator.resume))
        source = read_ahead(self._computing(), thresholds.CHUNKS_AHEAD)
        try:
            async with aclosing(source) as in_order:
                async for each in in_order:
                    computed = await self._worker.answer_of(each.part)
                    self._under_way.popleft()
                    if computed is None:
                        continue
                    due = each.reports or each.in_regions or self._is_progress_due()
                    add = partial(accumulator.add, computed, progress=due)
                    progress = await self._within_memory(add)
                    if progress is not None:
                        yield progress
                    if each.reports:
                        yield await asyncio.to_thread(accumulator.report)
        finally:
            if self._under_way:
                for part in self._under_way:
                    part.cancel()
                # From now on nobody reads the batches, which may be in the caller's memory.
                await asyncio.to_thread(self._computer.stop)
        final = not self._reader.was_drained
        yield await asyncio.to_thread(accumulator.report, final=final)

    async def _within_memory(self, grow: Callable[..., _T]) -> _T:
        """Let the summary grow in a thread, once the memory that this may take is reserved."""
        while True:
            try:
                return await asyncio.to_thread(grow, limit_bytes=self._demand.state)
            except MemoryNeededError as error:
                # In steps: what grows with each batch is not measured twice each time.
                steps = -(-error.needed_bytes // thresholds.SUMMARY_STEP_BYTES)
                await self._reserve(state=steps * thresholds.SUMMARY_STEP_BYTES)

    def _is_progress_due(self) -> bool:
        """Return whether a batch that was computed is worth a message: not many are a second."""
        now = time.monotonic()
        if self._under_way and now - self._told < thresholds.PROGRESS_SECONDS:
            return False
        self._told = now
        return True

    async def _computing(self) -> AsyncGenerator[_Submitted]:
        """Check the batches and submit them to the worker."""
        number = 0
        async for message, detached in self._reader.batches():
            works = await self._check(message, detached, number)
            await self._reserve_batch(message, detached, works)
            batch = Batch(number=number, message=message, detached=detached, works=works)
            # None may overtake another or run in its pauses.
            self._is_brief &= all(tiled_form(each) is None and is_brief(each) for each in works)
            part: Computing = self._worker.start_task(
                partial(self._computer.compute, batch), self._deadline, is_brief=self._is_brief
            )
            self._under_way.append(part)
            every = self._plan.report_every
            reports = message.report or bool(every and not (number + 1) % every)
            yield _Submitted(part, reports, is_in_regions(message))
            number += 1

    async def _check(
        self, message: summary_pb2.SummaryBatch, detached: Detached, number: int
    ) -> list[Work]:
        """Check the evaluations of a batch; raises their errors with paths of the call."""
        check_shape(self._plan, message, number)
        works = []
        names = self._plan.settings.candidates or ("",)
        found = evaluations(self._plan, message, detached, number)
        for name, (evaluation, elements, origins) in zip(names, found, strict=True):
            try:
                works.append(
                    await self._evaluator.check(evaluation, elements, deadline=self._deadline)
                )
            except PATHED as error:
                raise with_paths(error, origins, number, name) from None
        return works

    async def _reserve_batch(
        self, message: summary_pb2.SummaryBatch, detached: Detached, works: Sequence[Work]
    ) -> None:
        """Reserve the memory of a batch; raises as `demand` and `Reservation.grow_to` do."""
        needed = self._demand
        received = message.ByteSize() + sum(each.nbytes for each in detached.values())
        needed.received = max(needed.received, received + text_bytes(message))
        # Row losses, and the arrays that weights and columns become.
        values = sum(math.prod(each.values_shape) for each in works)
        arrays = thresholds.ROW_ARRAYS + len(self._plan.columns)
        computed = demand(self._evaluator.budget, works, copied=self._worker.copies_inputs)
        computed += values * arrays * _NUMBER_BYTES
        needed.computed = max(needed.computed, computed)
        await self._reserve()

    async def _reserve(self, *, state: int = 0) -> None:
        """Reserve the memory that is needed by now, `state` of it for the summary."""
        self._demand.state = max(self._demand.state, state)
        await self._reservation.grow_to(self._demand.size_bytes, self._deadline)


def _wrong(field: str, description: str) -> InvalidEvaluationError:
    return InvalidEvaluationError([Violation(field, description)])
