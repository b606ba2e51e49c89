"""A chunked call: reading, computing and answering go on side by side, a few parts at a time."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import Final

from losswire.server.catalogue.registry import Registry
from losswire.server.errors import ExpiredError, InvalidEvaluationError
from losswire.server.memory.regions.places import MapRegion
from losswire.server.pipeline.admit import Admission, Reservation
from losswire.server.pipeline.chunked.accumulate import Accumulator, size_of
from losswire.server.pipeline.chunked.plan import Plan, make_plan
from losswire.server.pipeline.decode import Find
from losswire.server.pipeline.worker import ComputeWorker
from losswire.server.rpc.streaming import ahead
from losswire.server.settings import Settings
from losswire.v1 import evaluation_pb2, loss_service_pb2
from losswire.wire import Violation

_AHEAD: Final = 1
"""How many parts wait at the engine, beside the one that is awaited and the one just given."""

_IN_TRANSIT: Final = 6
"""How many parts there are at a time beside the one that is computed: arriving, waiting
and computed ones, with one each in the hands of gRPC."""

SILENCE_SECONDS: Final = 60.0
"""How long a sender may be silent, while memory is reserved for it. A part that is not read
because the answers to others are not taken does not count."""

Judge = Callable[[Sequence[evaluation_pb2.Evaluation], Callable[[], Plan]], Awaitable[Plan]]
"""Judges evaluations where that blocks nobody, holding what it takes; see Evaluator.run_checks."""

Computing = asyncio.Future[list[bytes | None]]
"""A part at the engine, which gives its message of gradients."""

Part = memoryview | loss_service_pb2.EvaluateChunkedRequest
"""A part as it comes: a payload of rows, or another message."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkedDoor:
    """Evaluates calls whose rows stream."""

    registry: Registry
    find: Find
    map_region: MapRegion
    run_checks: Judge
    engine: ComputeWorker
    admission: Admission
    settings: Settings

    async def evaluate(
        self, parts: AsyncIterator[Part], deadline: float
    ) -> AsyncGenerator[bytes | loss_service_pb2.EvaluateChunkedResponse]:
        """Evaluate one call: gives messages of gradients, and the result at last.

        Raises whatever is wrong with the header or a part.
        """
        plan = await self._plan(parts)
        gathering = Accumulator(plan, self.engine.device)
        with self.admission.reservation() as reservation:
            first = min(plan.count, self._preferred_rows(plan))
            self._reserve(reservation, plan, first)

            under_way: set[Computing] = set()

            async def computing() -> AsyncGenerator[Computing]:
                done = 0
                held = first
                async for payload in _payloads(parts):
                    rows = _count_rows(plan, done, payload)
                    if not rows:
                        continue
                    if rows > held:
                        self._reserve(reservation, plan, rows)
                        held = rows
                    part = self.engine.start_task(partial(gathering.add, payload, done), deadline)
                    under_way.add(part)
                    part.add_done_callback(under_way.discard)
                    yield part
                    done += rows
                _check_end(plan, done)

            try:
                async with aclosing(ahead(computing(), _AHEAD)) as in_order:
                    async for part in in_order:
                        if message := await self.engine.answer_of(part):
                            yield message
            finally:
                for part in tuple(under_way):
                    part.cancel()
            result = gathering.result
            if result is None:
                result = await self.engine.run(gathering.finish_empty, deadline)
        yield loss_service_pb2.EvaluateChunkedResponse(result=result)

    async def _plan(self, parts: AsyncIterator[Part]) -> Plan:
        """Read and judge the header."""
        first = await anext(parts, None)
        if not isinstance(first, loss_service_pb2.EvaluateChunkedRequest) or not first.HasField(
            "header"
        ):
            raise _wrong("header", "must be the first part, and is missing")
        header = first.header
        record = self.registry.find(header.evaluation.loss)
        most = self.settings.max_message_bytes
        make = partial(make_plan, header, record, self.find, most, self.map_region)
        return await self.run_checks([header.evaluation], make)

    def _preferred_rows(self, plan: Plan) -> int:
        """Count the rows of a part of the size that is recommended."""
        return max(1, self.settings.chunk_bytes // max(1, plan.packing.row_bytes))

    def _reserve(self, reservation: Reservation, plan: Plan, rows: int) -> None:
        """Hold what parts of so many rows take; raises what Admission does."""
        in_transit = _IN_TRANSIT * rows * plan.packing.row_bytes
        reservation.raise_to(self.admission.demand([plan.sized(rows)]) + in_transit + size_of(plan))


async def _payloads(parts: AsyncIterator[Part]) -> AsyncGenerator[memoryview]:
    """Give the rows that follow the header; ExpiredError when none come for too long."""
    iterator = aiter(parts)
    while (part := await _next(iterator)) is not None:
        if not isinstance(part, memoryview):
            kind = "comes only once, as the first part" if part.HasField("header") else "is not set"
            raise _wrong("header" if part.HasField("header") else "part", kind)
        yield part


async def _next(parts: AsyncIterator[Part]) -> Part | None:
    """Wait for a part; None at the end."""
    try:
        async with asyncio.timeout(SILENCE_SECONDS):
            return await anext(parts, None)
    except TimeoutError:
        message = f"no part of the chunked call came for {SILENCE_SECONDS:g} seconds"
        raise ExpiredError(message) from None


def _count_rows(plan: Plan, start: int, payload: memoryview) -> int:
    """Count the rows of a part, the first of which is number `start`."""
    row_bytes = plan.packing.row_bytes
    if not payload.nbytes:
        return 0
    if not row_bytes or payload.nbytes % row_bytes:
        text = f"has {payload.nbytes} bytes; a row of all streamed inputs takes {row_bytes}"
        raise _wrong("rows", text)
    rows = payload.nbytes // row_bytes
    if start + rows > plan.count:
        text = f"holds rows up to {start + rows}; the streamed inputs have {plan.count}"
        raise _wrong("rows", text)
    return rows


def _check_end(plan: Plan, done: int) -> None:
    """Refuse a call that ends before its rows do."""
    if done < plan.count:
        raise _wrong("rows", f"end after {done} of the {plan.count} rows of the streamed inputs")


def _wrong(field: str, description: str) -> InvalidEvaluationError:
    return InvalidEvaluationError([Violation(field, description)])
