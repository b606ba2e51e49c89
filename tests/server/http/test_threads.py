"""Work in threads: its caller, when cancelled, waits for what has begun and drops what has not."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from losswire.server.http.threads import in_thread
from tests.support.inside import PATIENCE, until


def test_a_result_and_an_error_come_back() -> None:
    """As from the function itself."""

    async def run() -> None:
        assert await in_thread(lambda: 3) == 3
        with pytest.raises(ZeroDivisionError):
            await in_thread(lambda: 1 // 0)

    asyncio.run(run())


def test_who_is_cancelled_waits_for_what_has_begun() -> None:
    """However often: the memory that a thread uses stays reserved until it ends."""

    async def run() -> None:
        begun, may_end = threading.Event(), threading.Event()

        def work() -> None:
            begun.set()
            may_end.wait(PATIENCE)

        task = asyncio.ensure_future(in_thread(work))
        await until(begun.is_set)
        for _ in range(3):
            task.cancel()
            await asyncio.sleep(0.01)
            assert not task.done()
        may_end.set()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(run())


def test_what_has_not_begun_is_dropped() -> None:
    """Who is cancelled does not wait behind others, and the function is never called."""

    async def run() -> None:
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
        may_end, calls = threading.Event(), list[int]()
        first = asyncio.ensure_future(in_thread(lambda: may_end.wait(PATIENCE)))
        await asyncio.sleep(0)
        second = asyncio.ensure_future(in_thread(lambda: calls.append(1)))
        await asyncio.sleep(0)
        second.cancel()
        with pytest.raises(asyncio.CancelledError):
            await second
        may_end.set()
        assert await first
        await in_thread(lambda: None)
        assert not calls

    asyncio.run(run())
