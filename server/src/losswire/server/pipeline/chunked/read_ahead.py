"""Reads ahead of a consumer, by a bounded number of items."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TypeVar

ItemT = TypeVar("ItemT")


async def read_ahead(source: AsyncGenerator[ItemT], depth: int) -> AsyncGenerator[ItemT]:
    """Yield the items of a source that goes on meanwhile: up to `depth` items wait in a queue.

    The source has one further item ready before it has to wait. Raises the source's error
    after the items that came before it. Closing this generator closes the source.
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
