"""A chunked call: reads, computes and answers a few parts at a time, all three concurrently."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial

from losswire.server import thresholds
from losswire.server.catalogue.registry import Registry
from losswire.server.compute.paths import tiled_form
from losswire.server.errors import InvalidEvaluationError
from losswire.server.event_loop import step_behind
from losswire.server.memory.budget import Budget, Kind, Reservation
from losswire.server.memory.patience import Patience, Sender
from losswire.server.memory.regions.places import MapRegion
from losswire.server.pipeline.admit import demand
from losswire.server.pipeline.chunked.accumulate import Accumulator, held_bytes
from losswire.server.pipeline.chunked.plan import Plan, make_plan
from losswire.server.pipeline.chunked.read_ahead import read_ahead
from losswire.server.pipeline.resolve import FindResident
from losswire.server.pipeline.worker import ComputeWorker, is_brief
from losswire.server.settings import Settings
from losswire.v1 import evaluation_pb2, loss_service_pb2
from losswire.wire import Violation

RunChecks = Callable[
    [Sequence[evaluation_pb2.Evaluation], Callable[[], Plan], Reservation, float], Awaitable[Plan]
]
"""Runs checks without blocking the event loop; see Evaluator.run_checks."""

Computing = asyncio.Future[list[bytes | None]]
"""A part that the worker computes; its result is the message of gradients."""

Part = memoryview | loss_service_pb2.EvaluateChunkedRequest
"""A part of the request stream: a payload of rows, or another message."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkedEvaluator:
    """Evaluates calls whose rows stream."""

    registry: Registry
    find_resident: FindResident
    map_region: MapRegion
    run_checks: RunChecks
    worker: ComputeWorker
    budget: Budget
    patience: Patience
    settings: Settings

    async def evaluate(
        self, parts: AsyncIterator[Part], deadline: float, reservation: Reservation | None = None
    ) -> AsyncGenerator[bytes | loss_service_pb2.EvaluateChunkedResponse]:
        """Evaluate one call: yields messages of gradients, and the result last.

        `reservation` is the call's, which keeps the memory until the result is sent. Raises the
        error of the header or of a part.
        """
        # Before any task begins that reads ahead, or waits to send.
        step_behind()
        with self.budget.join(reservation) as held:
            plan = await self._plan(parts, held, deadline)
            accumulator = Accumulator(plan, self.worker.device, self.worker.pause)
            first = min(plan.count, self._preferred_rows(plan))
            await self._reserve(held, plan, first, deadline)

            under_way: set[Computing] = set()

            async def computing() -> AsyncGenerator[Computing]:
                done = 0
                largest = first
                # The same for all parts, none of which may overtake another or run in its pauses.
                brief = tiled_form(plan.whole) is None and is_brief(plan.sized(first))
                async for payload in _payloads(parts, Sender(self.patience, held)):
                    rows = _count_rows(plan, done, payload)
                    if not rows:
                        continue
                    if rows > largest:
                        await self._reserve(held, plan, rows, deadline)
                        largest = rows
                    add = partial(accumulator.add, payload, done)
                    part = self.worker.start_task(add, deadline, is_brief=brief)
                    under_way.add(part)
                    part.add_done_callback(under_way.discard)
                    yield part
                    done += rows
                _check_end(plan, done)

            try:
                async with aclosing(read_ahead(computing(), thresholds.CHUNKS_AHEAD)) as in_order:
                    async for part in in_order:
                        if message := await self.worker.answer_of(part):
                            yield message
            finally:
                for part in tuple(under_way):
                    part.cancel()
            result = accumulator.result
            if result is None:
                result = await self.worker.run(accumulator.finish_empty, deadline)
            # With the message that is made of it, and gRPC's copy.
            copies = 1 + thresholds.SENDING_COPIES
            held.change_to(result.ByteSize() * copies, Kind.ANSWER)
            yield loss_service_pb2.EvaluateChunkedResponse(result=result)

    async def _plan(self, parts: AsyncIterator[Part], held: Reservation, deadline: float) -> Plan:
        """Read and check the header."""
        first = await anext(parts, None)
        if not isinstance(first, loss_service_pb2.EvaluateChunkedRequest) or not first.HasField(
            "header"
        ):
            raise _wrong("header", "must be the first part, and is missing")
        header = first.header
        record = self.registry.find(header.evaluation.loss)
        largest = self.settings.max_message_bytes
        make = partial(make_plan, header, record, largest, self.find_resident, self.map_region)
        return await self.run_checks([header.evaluation], make, held, deadline)

    def _preferred_rows(self, plan: Plan) -> int:
        """Count the rows of a chunk of the recommended size."""
        return max(1, self.settings.chunk_bytes // max(1, plan.packing.row_bytes))

    async def _reserve(self, held: Reservation, plan: Plan, rows: int, deadline: float) -> None:
        """Reserve the memory of a call whose parts have this many rows.

        Raises as `demand` and `Reservation.grow_to` do.
        """
        in_transit = thresholds.CHUNKS_IN_TRANSIT * rows * plan.packing.row_bytes
        part = demand(self.budget, [plan.sized(rows)], copied=self.worker.copies_inputs)
        await held.grow_to(part + in_transit + held_bytes(plan), deadline)


async def _payloads(parts: AsyncIterator[Part], sender: Sender) -> AsyncGenerator[memoryview]:
    """Yield the rows that follow the header; raises an error when they come too slowly."""
    iterator = aiter(parts)
    while (part := await _next(iterator, sender)) is not None:
        if not isinstance(part, memoryview):
            kind = "comes only once, as the first part" if part.HasField("header") else "is not set"
            raise _wrong("header" if part.HasField("header") else "part", kind)
        sender.moved_bytes += part.nbytes
        yield part


async def _next(parts: AsyncIterator[Part], sender: Sender) -> Part | None:
    """Wait for a part; None at the end."""
    with sender:
        return await anext(parts, None)


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
    """Refuse a call that ends before its last row."""
    if done < plan.count:
        raise _wrong("rows", f"end after {done} of the {plan.count} rows of the streamed inputs")


def _wrong(field: str, description: str) -> InvalidEvaluationError:
    return InvalidEvaluationError([Violation(field, description)])
