"""Work off the event loop whose memory stays reserved until it ends."""

import asyncio
import contextvars
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import suppress
from typing import Final, TypeVar

ResultT = TypeVar("ResultT")

BODIES: Final = ThreadPoolExecutor(1, thread_name_prefix="losswire-http-bodies")
"""Turns bodies into arrays, and arrays into answers.

One thread, because this holds the interpreter's lock: with six, the event loop waited among them,
and a health check beside 16 callers with a million numbers each took 50 ms (median); now 10.
"""

FIGURES: Final = ThreadPoolExecutor(1, thread_name_prefix="losswire-http-figures")
"""Makes figures of summaries, which takes seconds where there are thousands of slices: no body
waits behind them."""


async def in_thread(function: Callable[[], ResultT], executor: Executor | None = BODIES) -> ResultT:
    """Return what a function returns in another thread; None: one of asyncio's, for files.

    A thread cannot be interrupted: who is cancelled waits for a function that has begun, so that
    what holds its memory is not released before. One that has not begun is dropped.
    """
    waiting = [function]
    context = contextvars.copy_context()

    def run() -> ResultT | None:
        try:
            begun = waiting.pop()
        except IndexError:
            return None
        return context.run(begun)

    running = asyncio.get_running_loop().run_in_executor(executor, run)
    try:
        result = await asyncio.shield(running)
    except asyncio.CancelledError:
        # Taking it away from the thread and beginning it exclude each other.
        if waiting:
            with suppress(IndexError):
                waiting.pop()
                raise
        await _ended(running)
        raise
    return result  # type: ignore[return-value]  # None only for one that was dropped


async def _ended(running: "asyncio.Future[ResultT]") -> None:
    """Wait for the end of what runs, however often this is cancelled."""
    while not running.done():
        with suppress(asyncio.CancelledError):
            await asyncio.wait([running])
    if not running.cancelled():
        # Nobody is told, and nothing is logged.
        running.exception()
