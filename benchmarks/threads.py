"""Many callers at once, each on a thread of this process."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from benchmarks.worker import Timing, timed


def run_in_threads(call: Callable[[], object], callers: int, count: int) -> Timing:
    """Divide calls among threads, which start together."""
    each = max(1, count // callers)
    return _together([lambda: timed(call, each).calls] * callers)


def share_among_threads(calls: Sequence[Callable[[], object]], count: int) -> Timing:
    """Have each thread make its own kind of call, until all have made a number of them.

    So none is idle while others, whose worker has more of them, still call.
    """
    left = iter(range(count))
    return _together([partial(_until_none_is_left, call, left) for call in calls])


def _until_none_is_left(call: Callable[[], object], left: Iterator[int]) -> list[float]:
    # Taking from an iterator over a range is atomic.
    return [timed(call, 1).total for _ in left]


def _together(works: Sequence[Callable[[], list[float]]]) -> Timing:
    """Time works, each on a thread, which start together."""
    barrier = threading.Barrier(len(works) + 1)

    def start(work: Callable[[], list[float]]) -> list[float]:
        barrier.wait()
        return work()

    with ThreadPoolExecutor(len(works)) as pool:
        running = [pool.submit(start, work) for work in works]
        barrier.wait()
        begin = time.perf_counter()
        calls = [seconds for one in running for seconds in one.result()]
        return Timing(calls, time.perf_counter() - begin)
