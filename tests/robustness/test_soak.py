"""A server holds no more after many calls than after few."""

from collections.abc import Sequence

import pytest

from tests.support.doors import open_doors
from tests.support.soak import record, tier
from tests.support.steadiness import Reading, check_steady, slope
from tests.support.traffic import Traffic, traffic
from tests.support.vitals import Vitals, vitals

_MIB = 1 << 20


def _readings(callers: Traffic, pid: int, rounds: int, calls: int) -> list[Reading]:
    """Make so many rounds of calls; returns what a process held after each."""
    found = []
    for number in range(1, rounds + 1):
        done = callers.run(calls)
        assert (done.failed, done.wrong) == (0, 0), done.errors
        found.append(Reading(number * calls, vitals(pid)))
    return found


def _behind_warm_up(readings: Sequence[Reading]) -> Sequence[Reading]:
    """Leave out the first quarter, in which caches fill."""
    return readings[len(readings) // 4 :]


def test_many_calls_leave_nothing_in_the_server() -> None:
    """Small, large, streamed, refused and plain calls: memory, descriptors and threads stay."""
    rounds, calls = tier(short=8, soak=60), tier(short=600, soak=10_000)
    with open_doors() as doors, traffic(doors.grpc) as callers:
        readings = _behind_warm_up(_readings(callers, doors.pid, rounds, calls))
    grown = slope(readings)
    record("memory's slope in 600,000 mixed calls", grown, unit="MiB/100k calls", required="<= 1")
    for name in ("descriptors", "threads"):
        numbers = [getattr(each.vitals, name) for each in readings]
        record(f"growth of {name}", numbers[-1] - numbers[0], required="<= 0")
    # Few calls cannot tell a slope from the noise of a few pages.
    check_steady(readings, tier(short=500.0, soak=1.0))


def _held(calls: int, mib: float, descriptors: int = 9) -> Reading:
    return Reading(calls, Vitals(int(mib * _MIB), descriptors, 5))


@pytest.mark.parametrize(
    ("readings", "reason"),
    [
        ([_held(1000 * number, 100 + 0.02 * number) for number in range(9)], "memory grows by 2"),
        ([_held(number, 100, 9 + number) for number in range(9)], "descriptors grow"),
    ],
)
def test_growth_is_found(readings: Sequence[Reading], reason: str) -> None:
    """The check fails where memory grows by 2 MiB, or a descriptor stays open."""
    with pytest.raises(AssertionError, match=reason):
        check_steady(readings, 1.0)


def test_one_odd_reading_is_no_growth() -> None:
    """A peak in the midst or at the end changes nothing."""
    readings = [_held(1000 * number, 400 if number in {3, 8} else 100) for number in range(9)]
    check_steady(readings, 1.0)
