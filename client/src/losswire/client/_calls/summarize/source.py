"""An asynchronous sequence, read by a thread."""

import asyncio
from collections.abc import AsyncIterable, Iterator
from concurrent.futures import CancelledError, Future
from typing import Any, Final

_END: Final = object()


class AsyncSource:
    """Reads an asynchronous sequence from another thread than the event loop's."""

    def __init__(self, items: AsyncIterable[Any], loop: asyncio.AbstractEventLoop) -> None:
        """Begin at the first item; the sequence is read on the loop."""
        self._items = items.__aiter__()
        self._loop = loop
        self._waiting: Future[Any] | None = None
        self._stopped = False

    def stop(self) -> None:
        """End the sequence for its reader, from any thread."""
        self._stopped = True
        waiting = self._waiting
        if waiting is not None:
            waiting.cancel()

    def __iter__(self) -> Iterator[Any]:
        while not self._stopped:
            self._waiting = asyncio.run_coroutine_threadsafe(self._next(), self._loop)
            if self._stopped:
                self._waiting.cancel()
            try:
                item = self._waiting.result()
            except CancelledError:
                if self._stopped:
                    return
                raise
            if item is _END:
                return
            yield item

    async def _next(self) -> Any:
        return await anext(self._items, _END)


def readable(data: Any) -> Any:
    """Return data that a thread can read; called on the event loop of asynchronous data."""
    if isinstance(data, AsyncIterable):
        return AsyncSource(data, asyncio.get_running_loop())
    return data
