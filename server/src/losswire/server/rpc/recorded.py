"""Counts calls, around the guard, where somebody reads the counts.

The guard makes bytes of all responses, whose sizes are counted.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import Any, Final

import grpc

from losswire.server import thresholds
from losswire.server.memory.budget import Reservation
from losswire.server.metrics.notes import CallNotes
from losswire.server.metrics.recorder import Method, Recorder
from losswire.server.rpc.calls import Begin, Call, Context
from losswire.server.rpc.lease_calls import Respond
from losswire.server.rpc.request_id import current_request_id, new_request_id
from losswire.wire import LEASE_HEADER

EVALUATE: Final = "losswire.v1.LossService/Evaluate"
"""The method that calls over a lease are counted as."""

_LATE_SECONDS: Final = 0.05
"""How long before the deadline a cancellation counts as late. The time limit begins at the caller,
whose cancellation comes first, by as long as the call took to arrive."""

_NAMES: Final = {each.value[0]: each.name for each in grpc.StatusCode}


def recorded_response(behavior: Any, begin: Begin, method: Method) -> Callable[..., Any]:  # noqa: ANN401 (a guarded method)
    """Return a guarded method with one response that counts its calls."""

    async def count(unused: object, context: Context) -> bytes:
        began = method.begin()
        notes = _note(method, context)
        call = begin(context)
        try:
            response: bytes = await behavior(unused, call)
        except BaseException as error:
            method.end(_status_of(error, context), began, call.received_bytes, 0, notes)
            raise
        method.end("OK", began, call.received_bytes, len(response), notes)
        return response

    return count


def recorded_stream(behavior: Any, begin: Begin, method: Method) -> Callable[..., Any]:  # noqa: ANN401 (a guarded method)
    """Return a guarded method with a stream of responses that counts its calls."""

    async def count(unused: object, context: Context) -> AsyncIterator[bytes]:
        began = method.begin()
        notes = _note(method, context)
        call = begin(context)
        sent = 0
        status = "OK"
        try:
            async with aclosing(behavior(unused, call)) as responses:
                async for response in responses:
                    sent += len(response)
                    yield response
            await _wait_for_cancellation(call)
            if context.time_remaining() == 0:
                status = "DEADLINE_EXCEEDED"
        except BaseException as error:
            status = _status_of(error, context)
            raise
        finally:
            method.end(status, began, call.received_bytes, sent, notes)

    return count


def recorded_lease(respond: Respond, recorder: Recorder) -> Respond:
    """Return what answers the requests of a lease, and counts them as calls of Evaluate."""
    method = recorder.method(EVALUATE)

    async def count(request: bytes, deadline: float, reservation: Reservation) -> bytes:
        began = method.begin()
        recorder.lease_calls += 1
        notes = method.note(tuple)
        try:
            answer = await respond(request, deadline, reservation)
        except BaseException:
            method.end("CANCELLED", began, len(request), 0, notes)
            raise
        if notes is not None:
            notes.request_id = current_request_id()
        _, code = LEASE_HEADER.unpack_from(answer)
        method.end(_NAMES[code], began, len(request), len(answer), notes)
        return answer

    return count


def _note(method: Method, context: Context) -> CallNotes | None:
    """Begin the notes of a call, with its id; None where nobody observes calls."""
    metadata: Any = context.invocation_metadata
    notes = method.note(metadata)
    if notes is not None:
        notes.request_id = new_request_id()
    return notes


async def _wait_for_cancellation(call: Call) -> None:
    """Wait for a cancellation that the end of the messages has announced.

    A stream that its caller cancels first looks like one that the caller has finished; the
    cancellation follows within some microseconds.
    """
    left = call.ended + thresholds.CANCELLATION_SECONDS - time.monotonic()
    if left > 0:
        await asyncio.sleep(left)


def _status_of(error: BaseException, context: Context) -> str:
    """Return the name of the status with which a call ends by an error."""
    if isinstance(error, asyncio.CancelledError | GeneratorExit):
        return "DEADLINE_EXCEEDED" if _is_late(context) else "CANCELLED"
    code: Any = context.code()
    return _NAMES.get(code.value[0] if isinstance(code, grpc.StatusCode) else code, "UNKNOWN")


def _is_late(context: Context) -> bool:
    """Return whether a call that has ended was as good as at its deadline."""
    remaining: Any = context.time_remaining()
    return remaining is not None and remaining <= _LATE_SECONDS
