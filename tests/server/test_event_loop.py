"""The event loop on which bulk transfers step behind everything else."""

import asyncio
from collections.abc import Callable, Coroutine
from contextvars import Context, copy_context
from typing import Any

import pytest

from losswire.server import event_loop, thresholds

Main = Callable[[list[str]], Coroutine[Any, Any, None]]


async def _steps(name: str, count: int, order: list[str]) -> None:
    """Take some steps, each as soon as it may."""
    for _ in range(count):
        order.append(name)
        await asyncio.sleep(0)


async def _bulk(count: int, order: list[str]) -> None:
    event_loop.step_behind()
    await _steps("bulk", count, order)


def _bulk_context() -> Context:
    """Return the context of a bulk transfer."""
    context = copy_context()
    context.run(event_loop.step_behind)
    return context


def _order(main: Main) -> list[str]:
    order: list[str] = []
    event_loop.run(main(order))
    return order


def test_others_go_first() -> None:
    """Run one step of a bulk transfer at most for each few steps of another task."""

    async def main(order: list[str]) -> None:
        transfers = [asyncio.create_task(_bulk(100, order)) for _ in range(5)]
        await asyncio.sleep(0)
        await _steps("small", 12, order)
        for each in transfers:
            each.cancel()
        await asyncio.wait(transfers)

    order = _order(main)
    # A task learns only in its first step that it is a bulk transfer.
    between = order[order.index("small") : len(order) - order[::-1].index("small")]
    assert between.count("small") == 12
    assert between.count("bulk") <= 12 / thresholds.BULK_TURNS_PASSED + 1


def test_bulk_transfers_get_on() -> None:
    """Finish a bulk transfer beside a task that always has something to do."""

    async def main(order: list[str]) -> None:
        busy = asyncio.create_task(_steps("small", 1_000_000, order))
        await asyncio.create_task(_bulk(50, order))
        busy.cancel()

    order = _order(main)
    assert order.count("bulk") == 50
    assert order.count("small") <= 50 * (thresholds.BULK_TURNS_PASSED + 2)


def test_bulk_transfers_take_turns() -> None:
    """Take the steps of bulk transfers in the order in which they became ready."""

    async def bulk(name: str, order: list[str]) -> None:
        event_loop.step_behind()
        await _steps(name, 3, order)

    async def main(order: list[str]) -> None:
        await asyncio.gather(*(bulk(name, order) for name in "abc"))

    assert _order(main) == list("abcabcabc")


def test_tasks_of_a_bulk_transfer_belong_to_it() -> None:
    """Let the tasks step behind that a bulk transfer starts, and not those of others."""

    async def main(order: list[str]) -> None:
        async def transfer() -> None:
            event_loop.step_behind()
            begun.set()
            await asyncio.gather(*(_steps("bulk", 100, order) for _ in range(3)))

        begun = asyncio.Event()
        transferring = asyncio.create_task(transfer())
        await begun.wait()
        await _steps("small", 12, order)
        transferring.cancel()

    order = _order(main)
    assert order.count("small") == 12
    assert order.count("bulk") <= 12 / thresholds.BULK_TURNS_PASSED + 1


def test_a_step_that_is_cancelled_is_not_run() -> None:
    """Skip a call in the context of a bulk transfer that was cancelled, and run the next ones."""

    async def main(order: list[str]) -> None:
        loop, context, done = asyncio.get_running_loop(), _bulk_context(), asyncio.Event()
        loop.call_soon(order.append, "first", context=context)
        loop.call_soon(order.append, "cancelled", context=context).cancel()
        loop.call_soon(order.append, "last", context=context)
        loop.call_soon(done.set, context=context)
        await done.wait()

    assert _order(main) == ["first", "last"]


def test_a_step_that_fails_stops_nothing() -> None:
    """Report the error of a call in the context of a bulk transfer, and go on."""
    reported: list[dict[str, Any]] = []

    def fail() -> None:
        raise ValueError("on purpose")

    async def main(order: list[str]) -> None:
        loop, context, done = asyncio.get_running_loop(), _bulk_context(), asyncio.Event()
        loop.set_exception_handler(lambda _, details: reported.append(details))
        loop.call_soon(fail, context=context)
        loop.call_soon(order.append, "next", context=context)
        loop.call_soon(done.set, context=context)
        await done.wait()

    assert _order(main) == ["next"]
    assert [str(each["exception"]) for each in reported] == ["on purpose"]


def test_an_interrupt_leaves_the_loop() -> None:
    """Raise KeyboardInterrupt out of a step of a bulk transfer, as asyncio does."""

    async def main(order: list[str]) -> None:
        del order

        def interrupt() -> None:
            raise KeyboardInterrupt

        asyncio.get_running_loop().call_soon(interrupt, context=_bulk_context())
        await asyncio.Event().wait()

    with pytest.raises(KeyboardInterrupt):
        _order(main)
