"""A server holds no more after many calls than after few."""

from collections.abc import Sequence

import pytest

from tests.support.doors import open_doors
from tests.support.soak import record, tier
from tests.support.steadiness import Reading, check_steady, growth, slope
from tests.support.traffic import Traffic, traffic
from tests.support.vitals import Vitals, vitals

_MIB = 1 << 20


def _run(callers: Traffic, calls: int, threads: int) -> None:
    """Make one round of calls, all of which must be right."""
    done = callers.run(calls, threads)
    assert (done.failed, done.wrong) == (0, 0), done.errors


def test_many_calls_leave_nothing() -> None:
    """Small, large, streamed, refused and plain calls: memory, descriptors and threads stay.

    In the server, and in the process of its callers as well.
    """
    rounds, calls = tier(short=9, soak=60), tier(short=500, soak=10_000)
    readings: dict[str, list[Reading]] = {"server": [], "callers": []}
    with open_doors() as doors, traffic(doors.grpc) as callers:
        # Fills the pools of threads, and then what is kept of forms that are known.
        _run(callers, tier(short=300, soak=4_000), 16)
        for number in range(rounds + rounds // 3):
            _run(callers, calls, 3)
            for who, pid in (("server", doors.pid), ("callers", callers.pid)):
                readings[who].append(Reading(number * calls, vitals(pid)))
    for who, every in readings.items():
        steady = every[rounds // 3 :]
        grown = slope(steady)
        record(f"memory's slope, {who}", grown, unit="MiB/100k calls", required="<= 1")
        for name in ("descriptors", "threads"):
            record(f"growth of {name}, {who}", growth(steady, name), required="<= 0")
        # Few calls cannot tell a slope from the noise of a few pages.
        check_steady(steady, tier(short=500.0, soak=1.0))
    record("mixed calls behind the warm-up", rounds * calls)


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
