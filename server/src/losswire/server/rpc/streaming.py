"""Answers the requests of a stream with bounded work in flight."""

import asyncio
import types
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Generator
from typing import Any, TypeVar

from losswire.server.errors import DrainingError
from losswire.server.rpc.drain import Drain
from losswire.server.rpc.status import forget_frames_soon

RequestT = TypeVar("RequestT")
AnswerT = TypeVar("AnswerT")


async def answer_stream(
    requests: AsyncIterator[RequestT],
    answer: Callable[[RequestT], Coroutine[Any, Any, AnswerT]],
    max_in_flight: int,
    drain: Drain,
) -> AsyncGenerator[AnswerT]:
    """Answer requests concurrently; yields each answer as soon as it is ready.

    Reads no further request while `max_in_flight` are unanswered or their answers are not
    consumed, which slows a sender down by gRPC's flow control. When this generator is closed,
    everything in flight is cancelled.

    Raises DrainingError when the server drains, after the answers to what was read.
    """
    answers: asyncio.Queue[AnswerT | None] = asyncio.Queue()
    free = asyncio.Semaphore(max_in_flight)

    async def answer_later(answering: Coroutine[Any, Any, AnswerT], awaited: Any) -> None:  # noqa: ANN401
        answers.put_nowait(await drive_started(answering, awaited))

    async def read_each(group: asyncio.TaskGroup) -> None:
        async for request in requests:
            await free.acquire()
            answering = answer(request)
            try:
                # A request that waits for nothing is cheaper without a task.
                awaited = answering.send(None)
            except StopIteration as done:
                answers.put_nowait(done.value)
            else:
                group.create_task(answer_later(answering, awaited))

    async def read() -> bool:
        """Read until the requests end; returns whether the server's draining ended them."""
        try:
            async with asyncio.TaskGroup() as group:
                reading = group.create_task(read_each(group))
                with drain.telling(reading.cancel):
                    await asyncio.wait([reading])
        except BaseException as error:
            # The frame of the group that waits keeps the error, which keeps it in turn.
            forget_frames_soon(error)
            raise
        finally:
            answers.put_nowait(None)
        return reading.cancelled()

    reader = asyncio.create_task(read())
    try:
        while (each := await answers.get()) is not None:
            yield each
            free.release()
        if await _result(reader):
            raise DrainingError
    finally:
        reader.cancel()
        # It has the requests, which their owner can close only once it is done.
        await asyncio.wait([reader])


@types.coroutine
def drive_started(
    started: Coroutine[Any, Any, AnswerT],
    awaited: Any,  # noqa: ANN401 (an event loop's own)
) -> Generator[Any, Any, AnswerT]:
    """Continue a coroutine that was started and awaits something; returns its result."""
    try:
        while True:
            try:
                found = yield awaited
            except BaseException as error:  # noqa: BLE001 (the coroutine handles cancellation)
                awaited = started.throw(error)
            else:
                awaited = started.send(found)
    except StopIteration as done:
        answer: AnswerT = done.value
        return answer


async def _result(reader: asyncio.Task[bool]) -> bool:
    """Return the reader's result; raises its error without the group in which it is wrapped."""
    try:
        return await reader
    except ExceptionGroup as group:
        raise group.exceptions[0] from None
