"""The bounded cache: which entries stay when there is no room for all."""

import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from losswire.wire import BoundedCache

Put = tuple[str, int, int]
"""A key, the entries it counts as, and its bytes."""

_CASES: dict[str, tuple[int, int | None, Sequence[Put], str]] = {
    "room for all": (3, None, [("a", 1, 0), ("b", 1, 0), ("c", 1, 0)], "abc"),
    "the oldest goes": (2, None, [("a", 1, 0), ("b", 1, 0), ("c", 1, 0)], "bc"),
    "put again": (2, None, [("a", 1, 0), ("b", 1, 0), ("a", 1, 0), ("c", 1, 0)], "ac"),
    "a group of entries": (4, None, [("a", 1, 0), ("b", 1, 0), ("c", 3, 0)], "bc"),
    "a larger group": (3, None, [("a", 1, 0), ("b", 1, 0), ("c", 3, 0)], "c"),
    "a group that shrinks": (3, None, [("a", 3, 0), ("a", 1, 0), ("b", 2, 0)], "ab"),
    "bytes": (9, 10, [("a", 1, 4), ("b", 1, 4), ("c", 1, 4)], "bc"),
    "bytes of several": (9, 10, [("a", 1, 4), ("b", 1, 4), ("c", 1, 10)], "c"),
    "any bytes": (9, None, [("a", 1, 1 << 60), ("b", 1, 1 << 60)], "ab"),
    "too large by itself": (9, 10, [("a", 1, 4), ("b", 1, 11)], "a"),
    "too many by itself": (2, None, [("a", 1, 0), ("b", 3, 0)], "a"),
    "grown too large": (9, 10, [("a", 1, 4), ("b", 1, 4), ("a", 1, 11)], "b"),
}


@pytest.mark.parametrize(("entries", "nbytes", "puts", "kept"), _CASES.values(), ids=_CASES)
def test_eviction(entries: int, nbytes: int | None, puts: Sequence[Put], kept: str) -> None:
    """The values that were put first make room for the last, and the counts are of those kept."""
    cache: BoundedCache[str, Put] = BoundedCache(entries, nbytes)
    for put in puts:
        cache.put(put[0], put, entries=put[1], nbytes=put[2])
    last = {put[0]: put for put in puts}
    assert {key: cache.get(key) for key in last} == {
        key: put if key in kept else None for key, put in last.items()
    }
    assert cache.entries == sum(last[key][1] for key in kept)
    assert cache.nbytes == sum(last[key][2] for key in kept)


def test_clear() -> None:
    """After a clear there is room for everything again."""
    cache: BoundedCache[int, int] = BoundedCache(2, 10)
    for _ in range(2):
        cache.put(1, 5, nbytes=5)
        cache.put(2, 6, nbytes=5)
        assert (cache.get(1), cache.get(2), cache.entries, cache.nbytes) == (5, 6, 2, 10)
        cache.clear()
        assert (cache.get(1), cache.get(2), cache.entries, cache.nbytes) == (None, None, 0, 0)


def test_many_threads() -> None:
    """Threads that put and get at once find what was put, and never more than there is room for."""
    cache: BoundedCache[int, int] = BoundedCache(5, 50)

    def work(seed: int) -> bool:
        for each in range(400):
            key = (seed + each) % 13
            cache.put(key, -key, nbytes=10)
            if cache.get(key) not in {None, -key} or cache.entries > 5:
                return False
        return True

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(8) as threads:
            assert all(threads.map(work, range(16)))
    finally:
        sys.setswitchinterval(interval)
    assert (cache.entries, cache.nbytes) == (5, 50)
