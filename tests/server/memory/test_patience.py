"""Peers who hold memory too slowly are ended while others wait for it: as many as that takes."""

import asyncio
import math
import time

import pytest

from losswire.server import thresholds
from losswire.server.memory.budget import Budget
from losswire.server.memory.patience import Patience
from losswire.server.settings import MIB
from tests.support.inside import PATIENCE, until


class _Peer:
    """A peer who holds memory and moves nothing."""

    def __init__(
        self, budget: Budget, size_bytes: int, seconds: float, ended: "list[_Peer]"
    ) -> None:
        self.reservation = budget.hold(size_bytes)
        self.since = time.monotonic() - seconds
        self.moved_bytes = 0
        self._ended = ended

    def end(self, *, pressed: bool) -> None:
        """Give the memory back."""
        assert pressed
        self._ended.append(self)
        self.reservation.close()


def test_as_many_are_ended_as_all_who_wait_need(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two wait for 20 MiB each: at once, the two slowest of three end who hold as much."""
    monkeypatch.setattr(thresholds, "PASS_SECONDS", 0.0)

    async def body() -> None:
        budget = Budget(64 * MIB)
        patience = Patience(budget)
        ended: list[_Peer] = []
        slow, slower, slowest = (_Peer(budget, 20 * MIB, each, ended) for each in (3.0, 4.0, 5.0))
        for each in (slower, slow, slowest):
            patience.begin(each)
        calls = [budget.reservation(), budget.reservation()]
        async with asyncio.timeout(PATIENCE), asyncio.TaskGroup() as waiting:
            for call in calls:
                waiting.create_task(call.grow_to(20 * MIB, math.inf))
            await until(lambda: bool(ended))
            assert ended == [slowest, slower]
        patience.stop(slow)
        slow.reservation.close()
        for call in calls:
            call.close()
        assert budget.reserved_bytes == 0

    asyncio.run(body())


def test_nobody_is_ended_for_those_who_have_just_come(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who waits for a moment only may get memory without anybody's end."""
    monkeypatch.setattr(thresholds, "PASS_SECONDS", PATIENCE)
    monkeypatch.setattr(thresholds, "PATIENCE_STEP_SECONDS", 0.001)

    async def body() -> None:
        budget = Budget(64 * MIB)
        patience = Patience(budget)
        ended: list[_Peer] = []
        slow, busy = _Peer(budget, 20 * MIB, 3.0, ended), budget.hold(40 * MIB)
        patience.begin(slow)
        with budget.reservation() as call:
            waiting = asyncio.create_task(call.grow_to(30 * MIB, math.inf))
            await asyncio.sleep(0.05)
            assert not ended
            busy.close()
            await waiting
        patience.stop(slow)

    asyncio.run(body())
