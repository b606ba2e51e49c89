"""Streams with bounded work in flight."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import TypeVar

ItemT = TypeVar("ItemT")
RequestT = TypeVar("RequestT")
AnswerT = TypeVar("AnswerT")


async def pump(
    requests: AsyncIterator[RequestT],
    answer: Callable[[RequestT], Awaitable[AnswerT]],
    most_in_flight: int,
) -> AsyncIterator[AnswerT]:
    """Answer requests concurrently, giving each answer as soon as it is there.

    Reads no further request while `most_in_flight` are unanswered or their
    answers untaken, which holds back a sender through gRPC's flow control. When
    the caller of this generator goes away, everything in flight is cancelled.
    """
    answers: asyncio.Queue[AnswerT | None] = asyncio.Queue()
    free = asyncio.Semaphore(most_in_flight)

    async def answer_one(request: RequestT) -> None:
        answers.put_nowait(await answer(request))

    async def read() -> None:
        try:
            async with asyncio.TaskGroup() as group:
                async for request in requests:
                    await free.acquire()
                    group.create_task(answer_one(request))
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
