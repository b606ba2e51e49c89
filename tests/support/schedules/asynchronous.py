"""Schedules with the client for asyncio."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from losswire.client import AsyncClient
from tests.support.schedules.actions import act_of
from tests.support.schedules.blocking import check_afterwards
from tests.support.schedules.scene import (
    EXPECTED,
    RARE,
    RETRY,
    SECONDS,
    Arrays,
    Schedule,
    Server,
)


def run_asyncio(schedule: Schedule, server: Server) -> None:
    """Run a schedule with the client for asyncio."""
    dice = np.random.default_rng(schedule.number)

    async def body() -> Arrays:
        client = AsyncClient(server.listen, timeout=SECONDS, retry=RETRY)
        region = await client.region(3 << 20)
        arrays = Arrays(region, schedule.kind, dice)
        for _ in range(10 if schedule.kind == "small" else 1):
            one = {"input": arrays.input[:1], "target": arrays.target[:1]}
            await client.evaluate("mse_loss", one)
        held: list[Any] = [client, region]
        timeout = schedule.delay + 2e-4 if schedule.way == "timeout" else SECONDS
        arguments = arrays.arguments()

        async def evaluate() -> None:
            try:
                result = await client.evaluate(**arguments, timeout=timeout)
            except EXPECTED:
                return
            arrays.check_result(schedule, result)

        stopped = schedule.state in ("sent in part", "computing")
        with server.stopped(really=stopped):
            if schedule.state == "before sending":
                await _end_async(schedule, server, held, arrays, [])
            calls = [asyncio.ensure_future(evaluate()) for _ in range(3)]
            if schedule.state != "before sending":
                await asyncio.sleep(0.02 if stopped else schedule.delay)
                await _end_async(schedule, server, held, arrays, calls)
            if stopped:
                await asyncio.sleep(0.02)
        await asyncio.gather(*calls, return_exceptions=True)
        arrays.check_contents(schedule, "after the end")
        for _ in range(3):
            with suppress(*(EXPECTED if schedule.way in ("close", "with") else ())):
                arrays.check_result(schedule, await client.evaluate(**arrays.arguments()))
        region.close()
        await client.close()
        return arrays

    arrays = asyncio.run(body())
    arrays.check_contents(schedule, "in the end")
    check_afterwards(schedule, server, [], arrays)


async def _end_async(
    schedule: Schedule,
    server: Server,
    held: list[Any],
    arrays: Arrays,
    calls: Sequence["asyncio.Task[None]"],
) -> None:
    if schedule.way == "cancel":
        for each in calls:
            each.cancel()
    elif schedule.way == "close":
        await held[0].close()
    elif schedule.way == "with":
        with suppress(ValueError):
            async with held[0]:
                raise ValueError
    elif schedule.way in RARE:
        await asyncio.to_thread(act_of(schedule, server, held, arrays))
    elif schedule.way.startswith("fork"):
        # The child has no loop of its own: it may only close.
        held = [_ClosesLater(held[0]), held[1]]
        act_of(schedule, server, held, arrays)()


class _ClosesLater:
    """A client for asyncio in a forked child, where its loop is not to be used."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client

    def close(self) -> None:
        """Close it without a loop: nothing of it may have to be awaited."""
        with suppress(StopIteration):
            self._client.close().send(None)

    def evaluate(self, **arguments: Any) -> None:  # noqa: ANN401 (any arguments)
        """Evaluate as far as can be without a loop."""
        self._client.evaluate(**arguments).send(None)

    def __enter__(self) -> None:
        """Do nothing."""

    def __exit__(self, *_: object) -> None:
        self.close()
