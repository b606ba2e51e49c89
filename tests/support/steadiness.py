"""Whether a process holds no more after many calls than after few."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import median
from typing import Final

from tests.support.vitals import Vitals

_MIB: Final = 1 << 20
_CALLS: Final = 100_000


@dataclass(frozen=True)
class Reading:
    """What a process held when it was idle, after so many calls."""

    calls: int
    vitals: Vitals


def slope(readings: Sequence[Reading]) -> float:
    """Return by how many MiB the memory grows with 100,000 calls.

    The median of the slopes between all pairs of readings: one odd reading changes nothing.
    """
    return median(
        (other.vitals.resident_bytes - one.vitals.resident_bytes)
        / _MIB
        / (other.calls - one.calls)
        * _CALLS
        for one, other in combinations(readings, 2)
    )


def growth(readings: Sequence[Reading], name: str) -> int:
    """Return by how many descriptors or threads each third of the readings exceeds the one before.

    Both times at least: a pool that gets one more thread at some time does not grow with calls.
    """
    numbers: list[int] = [getattr(each.vitals, name) for each in readings]
    third = max(1, len(numbers) // 3)
    first, second, last = numbers[:third], numbers[third:-third], numbers[-third:]
    return min(min(last) - max(second), min(second) - max(first))


def check_steady(readings: Sequence[Reading], mib_per_100k: float) -> None:
    """Check that memory grows no faster than that, and descriptors and threads not at all.

    Raises AssertionError. The readings are those behind the warm-up.
    """
    found = []
    if (grown := slope(readings)) > mib_per_100k:
        sizes = [each.vitals.resident_bytes // _MIB for each in readings]
        found.append(f"memory grows by {grown:.2f} MiB for 100,000 calls: {sizes}")
    found += [
        f"{name} grow: {[getattr(each.vitals, name) for each in readings]}"
        for name in ("descriptors", "threads")
        if growth(readings, name) > 0
    ]
    assert not found, "; ".join(found)
