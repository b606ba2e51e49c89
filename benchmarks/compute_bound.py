"""Callers of a loss whose computing takes longer than its call, with a connection each.

Clients in one process share a connection, which one worker serves, so that each caller is a
process: `compute_bound ADDRESS ROWS FEATURES CLASSES`. It says how far its first result is from the
right one. From one line of its input until the next it makes calls without a pause, and says how
many seconds each took.
"""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

from benchmarks import data
from benchmarks.processes import Process
from benchmarks.worker import Spec, Timing, Work, timed
from losswire.client import ArrayInput, Client, EvaluationResult

_LOSS = "linear_cross_entropy"
_TIMEOUT = 120.0
_ENDED = "ended"


class ComputeBound(Work):
    """Calls of `linear_cross_entropy` with a resident head, from several connections."""

    def __init__(self, address: str, spec: Spec) -> None:
        """Start the callers."""
        arguments = [address, *map(str, (spec.rows, spec.columns, spec.classes))]
        self._callers = [
            Process("benchmarks.compute_bound", *arguments) for _ in range(spec.callers)
        ]

    def check(self) -> str:
        """Have each caller check its first result."""
        notes = [each.read_line().strip() for each in self._callers]
        return notes[0]

    def call(self) -> object:
        """Have the callers make a call."""
        return self.run(1)

    def run(self, count: int) -> Timing:
        """Have all callers make calls until a number of them are done."""
        left = iter(range(count))
        with ThreadPoolExecutor(len(self._callers)) as pool:
            begin = time.perf_counter()
            running = [pool.submit(_follow, each, left) for each in self._callers]
            done = [one for each in running for one in each.result()]
        return Timing([seconds for seconds, _ in done], max(end for _, end in done) - begin)

    def close(self) -> None:
        """End the callers."""
        for each in self._callers:
            each.end()


def _follow(caller: Process, left: Iterator[int]) -> list[tuple[float, float]]:
    """Have a caller call while calls are left; returns how long each took and when it ended."""
    caller.write_line("begin")
    # Taking from an iterator over a range is atomic.
    done = [(float(caller.read_line()), time.perf_counter()) for _ in left]
    caller.write_line("end")
    while caller.read_line() != _ENDED + "\n":
        pass
    return done


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _call_until_told(call: Callable[[], object]) -> None:
    """Call again and again, until a line comes."""
    told = threading.Event()

    def go_on() -> None:
        while not told.is_set():
            _say(repr(timed(call, 1).total))

    calling = threading.Thread(target=go_on)
    calling.start()
    sys.stdin.readline()
    told.set()
    calling.join()


def main() -> int:
    """Call until the input ends."""
    address = sys.argv[1]
    rows, features, classes = map(int, sys.argv[2:])
    spec = Spec(work="", rows=rows, columns=features, classes=classes)
    with Client(address, timeout=_TIMEOUT) as client:
        inputs: dict[str, ArrayInput] = {
            "input": data.logits(rows, features),
            # Resident, so that a call has few bytes.
            "linear_weight": client.put(data.head(classes, features)),
            "target": data.classes(rows, classes),
        }

        def call() -> EvaluationResult:
            return client.evaluate(_LOSS, inputs, gradients=["input"])

        result = call()
        errors = data.check_projected(spec, float(result.loss), result.gradients["input"])
        _say(f"{errors}; by {result.transport}")
        for _ in sys.stdin:
            _call_until_told(call)
            _say(_ENDED)
    return 0


if __name__ == "__main__":
    sys.exit(main())
