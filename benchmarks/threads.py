"""Many callers at once, each on a thread of this process."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from benchmarks.worker import Timing, timed


def run_in_threads(call: Callable[[], object], callers: int, count: int) -> Timing:
    """Divide calls among threads, which start together."""
    each = max(1, count // callers)
    barrier = threading.Barrier(callers + 1)

    def start() -> list[float]:
        barrier.wait()
        return timed(call, each).calls

    with ThreadPoolExecutor(callers) as pool:
        running = [pool.submit(start) for _ in range(callers)]
        barrier.wait()
        begin = time.perf_counter()
        calls = [seconds for one in running for seconds in one.result()]
        return Timing(calls, time.perf_counter() - begin)
