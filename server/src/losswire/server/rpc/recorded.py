"""Counts calls, around the guard, where somebody reads the counts.

Responses are serialized here, because their sizes are counted; gRPC then gets bytes.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from typing import Any, Final

import grpc

from losswire.server.metrics.recorder import Method, Recorder
from losswire.server.rpc.lease_calls import Respond
from losswire.wire import LEASE_HEADER

Context = grpc.aio.ServicerContext[Any, Any]
Serialize = Callable[[Any], bytes]

EVALUATE: Final = "losswire.v1.LossService/Evaluate"
"""The method that calls over a lease are counted as."""

_CANCELLATION_SECONDS: Final = 0.001
"""How long after the end of a stream its cancellation may come. Of 100 cancelled streams, half
looked finished without a wait, and none after a millisecond."""

_LATE_SECONDS: Final = 0.05
"""How long before the deadline a cancellation counts as late. The time limit begins at the caller,
whose cancellation comes first, by as long as the call took to arrive."""

_NAMES: Final = {each.value[0]: each.name for each in grpc.StatusCode}


def recorded_response(behavior: Any, serialize: Serialize, method: Method) -> Callable[..., Any]:  # noqa: ANN401 (a guarded method)
    """Return a guarded method with one response that counts its calls."""

    async def count(request: Any, context: Context) -> bytes:  # noqa: ANN401 (bytes, or a stream of them)
        began = method.begin()
        received = _Sizes()
        if isinstance(request, bytes):
            received.total = len(request)
        else:
            request = received.each_of(request)
        try:
            response = serialize(await behavior(request, context))
        except BaseException as error:
            method.end(_status_of(error, context), began, received.total, 0)
            raise
        method.end("OK", began, received.total, len(response))
        return response

    return count


def recorded_stream(behavior: Any, serialize: Serialize, method: Method) -> Callable[..., Any]:  # noqa: ANN401 (a guarded method)
    """Return a guarded method with a stream of responses that counts its calls."""

    async def count(requests: Any, context: Context) -> AsyncIterator[bytes]:  # noqa: ANN401 (a stream of bytes)
        began = method.begin()
        received, sent = _Sizes(), 0
        status = "OK"
        try:
            async with aclosing(behavior(received.each_of(requests), context)) as responses:
                async for response in responses:
                    data = serialize(response)
                    sent += len(data)
                    yield data
            await received.wait_for_cancellation()
            if context.time_remaining() == 0:
                status = "DEADLINE_EXCEEDED"
        except BaseException as error:
            status = _status_of(error, context)
            raise
        finally:
            method.end(status, began, received.total, sent)

    return count


def recorded_lease(respond: Respond, recorder: Recorder) -> Respond:
    """Return what answers the requests of a lease, and counts them as calls of Evaluate."""
    method = recorder.method(EVALUATE)

    async def count(request: bytes, deadline: float) -> bytes:
        began = method.begin()
        recorder.lease_calls += 1
        try:
            answer = await respond(request, deadline)
        except BaseException:
            method.end("CANCELLED", began, len(request), 0)
            raise
        _, code = LEASE_HEADER.unpack_from(answer)
        method.end(_NAMES[code], began, len(request), len(answer))
        return answer

    return count


class _Sizes:
    """The bytes of the messages of one stream."""

    __slots__ = ("_ended", "total")

    def __init__(self) -> None:
        self.total = 0
        self._ended = float("-inf")

    async def each_of(self, messages: AsyncIterator[bytes]) -> AsyncGenerator[bytes]:
        """Yield messages, whose sizes are added up."""
        async for message in messages:
            self.total += len(message)
            yield message
        self._ended = time.monotonic()

    async def wait_for_cancellation(self) -> None:
        """Let a cancellation arrive that the end of the messages has announced.

        A stream that its caller cancels first looks like one that the caller has finished; the
        cancellation follows within some microseconds.
        """
        left = self._ended + _CANCELLATION_SECONDS - time.monotonic()
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
