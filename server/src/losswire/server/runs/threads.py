"""The threads that talk to the database, so that the event loop never waits for it."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from losswire.server.errors import OverloadedError
from losswire.server.runs import thresholds

_R = TypeVar("_R")


class StoreThreads:
    """A few threads and a short queue, for callers on the event loop."""

    def __init__(
        self,
        threads: int = thresholds.STORE_THREADS,
        max_waiting: int = thresholds.STORE_MAX_WAITING,
    ) -> None:
        """Start no thread before it is needed."""
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="losswire-runs")
        self._lock = threading.Lock()
        self._room = threads + max_waiting

    async def run(self, task: Callable[[], _R]) -> _R:
        """Call a function in a thread.

        A caller that goes away leaves the queue; a function that has begun is finished. Raises
        OverloadedError when the queue is full.
        """
        self._enter()
        future: Future[_R] = self._executor.submit(task)
        future.add_done_callback(self._leave)
        return await asyncio.wrap_future(future)

    async def close(self) -> None:
        """Wait for the functions that have begun, and drop the others."""
        await asyncio.to_thread(self._executor.shutdown, wait=True, cancel_futures=True)

    def _enter(self) -> None:
        with self._lock:
            if not self._room:
                message = "too many calls wait for the store of runs"
                raise OverloadedError(message, thresholds.STORE_RETRY_MS)
            self._room -= 1

    def _leave(self, _: object) -> None:
        with self._lock:
            self._room += 1
