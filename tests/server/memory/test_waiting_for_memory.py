"""Calls wait for memory in one line: by kind and age, without starving, and not for long."""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable

import pytest

from losswire.server import thresholds
from losswire.server.errors import ExpiredError, OverLimitError, OverloadedError
from losswire.server.memory.budget import Budget, Kind, Reservation
from losswire.server.settings import MIB
from tests.support.inside import PATIENCE, until

_NEVER = math.inf

Body = Callable[[Budget], Awaitable[None]]


def _run(body: Body) -> None:
    """Run a test with a budget of 64 MiB, which is free again at its end."""

    async def run() -> None:
        budget = Budget(64 * MIB)
        async with asyncio.timeout(PATIENCE):
            await body(budget)
        assert budget.reserved_bytes == 0
        assert budget.by_kind == [0, 0, 0]
        assert not len(budget.line)

    asyncio.run(run())


class _Call:
    """A call that waits to grow, in a task of its own."""

    def __init__(self, held: Reservation, size: int, kind: Kind = Kind.COMPUTE) -> None:
        self.held = held
        self.task = asyncio.create_task(held.grow_to(size, _NEVER, kind))

    @property
    def is_granted(self) -> bool:
        """Whether it has what it wanted."""
        return self.task.done() and not self.task.exception()

    async def end(self) -> None:
        """End it, whatever it does."""
        self.task.cancel()
        await asyncio.wait([self.task])
        self.held.close()


async def _turn() -> None:
    """Let what is ready run."""
    for _ in range(5):
        await asyncio.sleep(0)


def test_the_oldest_call_goes_first() -> None:
    """By the age of the call, not by when it began to wait."""

    async def body(budget: Budget) -> None:
        all_of_it = budget.hold(60 * MIB)
        older, younger = budget.reservation(), budget.reservation()
        second = _Call(younger, 40 * MIB)
        await _turn()
        first = _Call(older, 40 * MIB)
        await _turn()
        all_of_it.close()
        await _turn()
        assert (first.is_granted, second.is_granted) == (True, False)
        older.close()
        await _turn()
        assert second.is_granted
        younger.close()

    _run(body)


def test_later_kinds_go_first() -> None:
    """Whoever was received is computed before anything else is received."""

    async def body(budget: Budget) -> None:
        all_of_it = budget.hold(60 * MIB)
        receives = _Call(budget.reservation(), 20 * MIB, Kind.RECEIVE)
        computes = _Call(budget.reservation(), 50 * MIB)
        await _turn()
        all_of_it.close()
        await _turn()
        assert (receives.is_granted, computes.is_granted) == (False, True)
        computes.held.close()
        await _turn()
        assert receives.is_granted
        receives.held.close()

    _run(body)


def test_small_calls_pass_for_a_moment_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """What fits passes one that waits for more, until that one has waited for long."""

    async def body(budget: Budget) -> None:
        busy = budget.hold(40 * MIB)
        large = _Call(budget.reservation(), 60 * MIB)
        await _turn()
        budget.hold(MIB).close()
        monkeypatch.setattr(thresholds, "PASS_SECONDS", 0.0)
        await asyncio.sleep(0.001)
        with pytest.raises(OverloadedError):
            budget.hold(MIB)
        budget.hold(thresholds.TINY_BYTES).close()
        busy.close()
        await _turn()
        assert large.is_granted
        large.held.close()

    _run(body)


def test_messages_take_half_at_most() -> None:
    """What comes leaves room for what is computed; one alone may be larger than the half."""

    async def body(budget: Budget) -> None:
        with budget.hold(20 * MIB, Kind.RECEIVE):
            with pytest.raises(OverloadedError):
                budget.hold(20 * MIB, Kind.RECEIVE)
            budget.hold(40 * MIB, Kind.COMPUTE).close()
        budget.hold(40 * MIB, Kind.RECEIVE).close()

    _run(body)


def test_one_reservation_moves_through_the_kinds() -> None:
    """Its bytes count as one kind at a time, and their sum is what is reserved."""

    async def body(budget: Budget) -> None:
        with budget.reservation() as held:
            held.raise_to(8 * MIB, Kind.RECEIVE)
            assert budget.by_kind == [8 * MIB, 0, 0]
            await held.grow_to(30 * MIB, _NEVER)
            assert budget.by_kind == [0, 30 * MIB, 0]
            held.change_to(MIB, Kind.ANSWER)
            assert budget.by_kind == [0, 0, MIB]
            assert budget.reserved_bytes == MIB

    _run(body)


def test_nobody_waits_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """OVERLOADED with a time to come back; at the deadline EXPIRED; for ever too large at once."""
    monkeypatch.setattr(thresholds, "ADMISSION_WAIT_SECONDS", 0.02)

    async def body(budget: Budget) -> None:
        with budget.hold(60 * MIB), budget.reservation() as held:
            with pytest.raises(OverloadedError) as overloaded:
                await held.grow_to(10 * MIB, _NEVER)
            assert overloaded.value.retry_after_ms == thresholds.BUDGET_RETRY_MS
            with pytest.raises(ExpiredError):
                await held.grow_to(10 * MIB, time.monotonic())
            with pytest.raises(OverLimitError):
                await held.grow_to(65 * MIB, _NEVER)

    _run(body)


def test_half_of_the_time_is_left_for_another_try(monkeypatch: pytest.MonkeyPatch) -> None:
    """A call with a deadline is refused before it."""
    monkeypatch.setattr(thresholds, "ADMISSION_WAIT_SECONDS", PATIENCE)

    async def body(budget: Budget) -> None:
        with budget.hold(60 * MIB), budget.reservation() as held, pytest.raises(OverloadedError):
            await held.grow_to(10 * MIB, time.monotonic() + 0.1)

    _run(body)


def test_who_gives_up_leaves_the_line() -> None:
    """A cancelled call holds up nobody, and a closed one gets nothing any more."""

    async def body(budget: Budget) -> None:
        busy = budget.hold(40 * MIB)
        large, other = (
            _Call(budget.reservation(), 60 * MIB),
            _Call(budget.reservation(), 30 * MIB),
        )
        closed = _Call(budget.reservation(), 30 * MIB)
        await _turn()
        assert len(budget.line) == 3
        closed.held.close()
        await large.end()
        busy.close()
        await _turn()
        assert other.is_granted
        other.held.close()
        await _turn()
        assert budget.reserved_bytes == 0
        await closed.end()

    _run(body)


def test_two_that_have_grown_half_way_do_not_block_each_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The younger one is shed, although the older one began to wait first."""
    monkeypatch.setattr(thresholds, "ADMISSION_WAIT_SECONDS", 0.02)

    async def body(budget: Budget) -> None:
        older, younger = budget.hold(30 * MIB), budget.hold(30 * MIB)
        first, second = _Call(older, 60 * MIB), _Call(younger, 60 * MIB)
        await until(second.task.done)
        assert isinstance(second.task.exception(), OverloadedError)
        younger.close()
        await _turn()
        assert first.is_granted
        older.close()

    _run(body)


def test_the_line_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """The youngest of too many is shed at once."""
    monkeypatch.setattr(thresholds, "MAX_WAITING", 2)

    async def body(budget: Budget) -> None:
        calls = []
        with budget.hold(60 * MIB):
            held = [budget.reservation() for _ in range(3)]
            for each in (held[2], held[0], held[1]):
                calls.append(_Call(each, 10 * MIB))
                await _turn()
            assert [call.task.done() for call in calls] == [True, False, False]
            assert isinstance(calls[0].task.exception(), OverloadedError)
            for call in calls[1:]:
                await call.end()

    _run(body)
