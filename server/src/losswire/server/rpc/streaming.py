"""Streams with bounded work in flight."""

import asyncio
import types
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Generator
from contextlib import aclosing
from typing import Any, TypeVar

ItemT = TypeVar("ItemT")
RequestT = TypeVar("RequestT")
AnswerT = TypeVar("AnswerT")


async def answer_stream(
    requests: AsyncIterator[RequestT],
    answer: Callable[[RequestT], Coroutine[Any, Any, AnswerT]],
    most_in_flight: int,
) -> AsyncIterator[AnswerT]:
    """Answer requests concurrently, giving each answer as soon as it is there.

    Reads no further request while `most_in_flight` are unanswered or their
    answers untaken, which holds back a sender through gRPC's flow control. When
    the caller of this generator goes away, everything in flight is cancelled.
    """
    answers: asyncio.Queue[AnswerT | None] = asyncio.Queue()
    free = asyncio.Semaphore(most_in_flight)

    async def answer_later(answering: Coroutine[Any, Any, AnswerT], awaited: Any) -> None:  # noqa: ANN401
        answers.put_nowait(await drive_started(answering, awaited))

    async def read() -> None:
        try:
            async with asyncio.TaskGroup() as group:
                async for request in requests:
                    await free.acquire()
                    answering = answer(request)
                    try:
                        # What need not wait for anything is cheaper without a task of its own.
                        awaited = answering.send(None)
                    except StopIteration as done:
                        answers.put_nowait(done.value)
                    else:
                        group.create_task(answer_later(answering, awaited))
        finally:
            answers.put_nowait(None)

    reader = asyncio.create_task(read())
    try:
        while (each := await answers.get()) is not None:
            yield each
            free.release()
        await _first_error(reader)
    finally:
        reader.cancel()


@types.coroutine
def drive_started(
    started: Coroutine[Any, Any, AnswerT],
    awaited: Any,  # noqa: ANN401 (what event loops pass around)
) -> Generator[Any, Any, AnswerT]:
    """Go on with a coroutine that was started and awaits something; gives what it returns."""
    try:
        while True:
            try:
                found = yield awaited
            except BaseException as error:  # noqa: BLE001 (a cancellation is its own affair)
                awaited = started.throw(error)
            else:
                awaited = started.send(found)
    except StopIteration as done:
        answer: AnswerT = done.value
        return answer


async def ahead(source: AsyncGenerator[ItemT], depth: int) -> AsyncGenerator[ItemT]:
    """Give the items of a source, which works on meanwhile: up to `depth` items wait.

    The source holds one more in its hand before it has to wait. Raises what the source
    raises, after the items that came before. Closing this closes the source.
    """
    waiting: asyncio.Queue[tuple[ItemT] | Exception | None] = asyncio.Queue(depth)

    async def work() -> None:
        try:
            async with aclosing(source):
                async for item in source:
                    await waiting.put((item,))
        except Exception as error:  # noqa: BLE001 (raised where the items are taken)
            await waiting.put(error)
        else:
            await waiting.put(None)

    worker = asyncio.create_task(work())
    try:
        while (each := await waiting.get()) is not None:
            if isinstance(each, Exception):
                raise each
            yield each[0]
    finally:
        worker.cancel()
        await asyncio.wait([worker])


async def _first_error(reader: asyncio.Task[None]) -> None:
    """Raise what ended the reader, out of the group that a TaskGroup wraps it in."""
    try:
        await reader
    except ExceptionGroup as group:
        raise group.exceptions[0] from None
