"""A caller, in a process of its own, of a loss whose computing takes longer than its call.

`python -m tests.support.compute_caller ADDRESS`: says `ready`; then each line with a number of
seconds is answered with how many calls it made in them.
"""

import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np

from losswire.client import Client

_ROOT: Final = Path(__file__).parents[2]
_ROWS, _FEATURES, _CLASSES = 64, 256, 8192


class Callers:
    """Some of these processes; made by `callers`."""

    def __init__(self, processes: "Sequence[subprocess.Popen[str]]") -> None:
        self._processes = processes

    def rate(self, seconds: float) -> float:
        """Return how many calls a second all of them make together."""
        for each in self._processes:
            _tell(each, str(seconds))
        return sum(int(_answer(each)) for each in self._processes) / seconds


@contextmanager
def callers(address: str, count: int) -> Iterator[Callers]:
    """Start callers of a server, each with a connection of its own."""
    command = [sys.executable, "-m", "tests.support.compute_caller", address]
    processes = [
        subprocess.Popen(
            command, cwd=_ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(count)
    ]
    try:
        for each in processes:
            assert _answer(each) == "ready"
        yield Callers(processes)
    finally:
        for each in processes:
            with each:
                assert each.stdin is not None
                each.stdin.close()


def _tell(process: "subprocess.Popen[str]", line: str) -> None:
    assert process.stdin is not None
    process.stdin.write(line + "\n")
    process.stdin.flush()


def _answer(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def _main(address: str) -> None:
    generator = np.random.default_rng(5)
    head = (0.05 * generator.normal(size=(_CLASSES, _FEATURES))).astype(np.float32)
    inputs: dict[str, Any] = {
        "input": generator.normal(size=(_ROWS, _FEATURES)).astype(np.float32),
        "target": generator.integers(0, _CLASSES, _ROWS),
    }
    with Client(address, timeout=120) as client:
        # Resident, so that a call has few bytes.
        inputs["linear_weight"] = client.put(head)
        client.evaluate("linear_cross_entropy", inputs, gradients=["input"])
        print("ready", flush=True)  # noqa: T201 - the test reads it
        for line in sys.stdin:
            end, calls = time.monotonic() + float(line), 0
            while time.monotonic() < end:
                client.evaluate("linear_cross_entropy", inputs, gradients=["input"])
                calls += 1
            print(calls, flush=True)  # noqa: T201 - likewise


if __name__ == "__main__":
    _main(sys.argv[1])
