"""A chunked call: reading, computing and answering go on side by side, a few parts at a time."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np

from losswire.server.admit import Admission, Reservation
from losswire.server.chunked.gather import Gathering, size_of
from losswire.server.chunked.plan import Plan, make_plan
from losswire.server.decode import Find
from losswire.server.engine import Engine
from losswire.server.errors import ExpiredError, InvalidEvaluationError
from losswire.server.pump import ahead
from losswire.server.regions.places import Borrow
from losswire.server.registry import Registry
from losswire.server.settings import Settings
from losswire.server.values import Array
from losswire.server.work import Work
from losswire.v1 import evaluation_pb2, loss_service_pb2
from losswire.wire import GRADIENT_ROWS, MalformedTensorError, Violation, bytes_of

_AHEAD: Final = 1
"""How many parts wait to be computed, and how many answers to be sent."""

_IN_TRANSIT: Final = 6
"""How many parts there are at a time beside the one that is computed: arriving, waiting
and computed ones, with one each in the hands of gRPC."""

_FACTORS_TOGETHER: Final = 4
"""How many parts' factors make a message: a message costs more than what there is in it."""

SILENCE_SECONDS: Final = 60.0
"""How long a sender may be silent, while memory is reserved for it. A part that is not read
because the answers to others are not taken does not count."""

_OFF_LOOP_BYTES: Final = 256 * 1024
"""From this size on, checking values takes long enough to leave the event loop for."""

Judge = Callable[[Sequence[evaluation_pb2.Evaluation], Callable[[], Plan]], Awaitable[Plan]]
"""Judges evaluations where that blocks nobody, holding what it takes; see Line.judge."""

Part = memoryview | loss_service_pb2.EvaluateChunkedRequest
"""A part as it comes: a payload of rows, or another message."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkedDoor:
    """Evaluates calls whose rows stream."""

    registry: Registry
    find: Find
    borrow: Borrow
    judge: Judge
    engine: Engine
    admission: Admission
    settings: Settings

    async def evaluate(
        self, parts: AsyncIterator[Part], deadline: float
    ) -> AsyncGenerator[bytes | loss_service_pb2.EvaluateChunkedResponse]:
        """Evaluate one call: gives messages of gradients, and the result at last.

        Raises whatever is wrong with the header or a part.
        """
        plan = await self._plan(parts)
        gathering = Gathering(plan, self.engine.device)
        with self.admission.reservation() as reservation:
            first = min(plan.count, self._preferred_rows(plan))
            self._reserve(reservation, plan, plan.sized(first))
            denominator = await self.engine.run(gathering.begin, deadline)

            async def computed() -> AsyncGenerator[bytes]:
                done = 0
                waiting: list[list[Array]] = []
                together = _FACTORS_TOGETHER if plan.whole.factored else 1
                async with aclosing(ahead(_payloads(parts), _AHEAD)) as arriving:
                    async for payload in arriving:
                        part = await _part(plan, done, payload, denominator)
                        if part is None:
                            continue
                        self._reserve(reservation, plan, part)
                        step = partial(gathering.add, part, done)
                        gradients = await self.engine.run(step, deadline)
                        done += part.values_shape[0]
                        if gradients:
                            waiting.append(gradients)
                        if waiting and (len(waiting) == together or done == plan.count):
                            yield _message(waiting)
                            waiting.clear()
                _check_end(plan, done)

            async with aclosing(ahead(computed(), _AHEAD)) as messages:
                async for message in messages:
                    yield message
            result = await self.engine.run(gathering.finish, deadline)
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
        make = partial(make_plan, header, record, self.find, most, self.borrow)
        return await self.judge([header.evaluation], make)

    def _preferred_rows(self, plan: Plan) -> int:
        """Count the rows of a part of the size that is recommended."""
        return max(1, self.settings.preferred_chunk_bytes // max(1, plan.packing.row_bytes))

    def _reserve(self, reservation: Reservation, plan: Plan, part: Work) -> None:
        """Hold what parts of this size take; raises what Admission does."""
        in_transit = _IN_TRANSIT * part.values_shape[0] * plan.packing.row_bytes
        reservation.raise_to(self.admission.demand([part]) + in_transit + size_of(plan))


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


async def _part(
    plan: Plan, start: int, payload: memoryview, denominator: float | None
) -> Work | None:
    """Make the work of a part, its values checked; None of an empty one."""
    row_bytes = plan.packing.row_bytes
    if not payload.nbytes:
        return None
    if not row_bytes or payload.nbytes % row_bytes:
        text = f"has {payload.nbytes} bytes; a row of all streamed inputs takes {row_bytes}"
        raise _wrong("rows", text)
    stop = start + payload.nbytes // row_bytes
    if stop > plan.count:
        raise _wrong("rows", f"holds rows up to {stop}; the streamed inputs have {plan.count}")

    def make() -> Work:
        try:
            arrays = plan.packing.split(payload)
        except MalformedTensorError as error:
            raise InvalidEvaluationError(error.violations) from None
        rows = dict(zip(plan.streamed, arrays, strict=True))
        part = plan.part(start, stop, rows, denominator)
        plan.check_values(part, start)
        return part

    if payload.nbytes < _OFF_LOOP_BYTES or not plan.checks_values:
        return make()
    return await asyncio.to_thread(make)


def _check_end(plan: Plan, done: int) -> None:
    """Refuse a call that ends before its rows do."""
    if done < plan.count:
        raise _wrong("rows", f"end after {done} of the {plan.count} rows of the streamed inputs")


def _message(parts: list[list[Array]]) -> bytes:
    """Make the gradients of some parts one message: all rows of the first, then of the second."""
    joined = parts[0] if len(parts) == 1 else list(map(np.concatenate, zip(*parts, strict=True)))
    return GRADIENT_ROWS.encode([bytes_of(each) for each in joined])


def _wrong(field: str, description: str) -> InvalidEvaluationError:
    return InvalidEvaluationError([Violation(field, description)])
