"""The loop of a child process that measures: commands come as JSON lines, answers go back.

It imports neither numpy nor anything that is measured, so that a program can settle
its process's policies first.
"""

import json
import os
import signal
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """The measurement that a child process makes; each program reads the fields that it knows."""

    work: str
    """The name of the work, in the program's own table."""
    rows: int
    columns: int
    loss: str = "cross_entropy"
    dtype: str = "float32"
    gradients: bool = True
    form: str = "dense"
    out: bool = False
    """Whether gradients go to an array made before."""
    transports: tuple[str, ...] = ()
    """The ways that the tensors may have gone; empty: any."""
    server: str = "aio"
    """Which echo server to call."""
    batch: int = 1
    """How many evaluations one timed call has."""
    callers: int = 1
    """How many threads call at once."""
    beside: tuple[int, int] = (0, 0)
    """The rows and columns of evaluations that others make meanwhile."""
    classes: int = 0
    """The rows of the projection head; the columns are features then."""


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds of each call, and of all together."""

    calls: list[float]
    total: float


class NotServedError(Exception):
    """The server or the SDK does not have what is to be measured."""


class WrongResultError(Exception):
    """The program to be measured returns wrong results."""


class Work(ABC):
    """Something to measure."""

    @abstractmethod
    def check(self) -> str:
        """Run once and compare the result; return the errors. Not timed."""

    @abstractmethod
    def call(self) -> object:
        """Do it once; the result is kept until the clock has stopped."""

    def run(self, count: int) -> Timing:
        """Run a number of times, one after another."""
        return timed(self.call, count)

    def close(self) -> None:  # noqa: B027 - most have nothing to end
        """End the processes that it started."""


def timed(call: Callable[[], object], count: int) -> Timing:
    """Time calls one after another. Freeing what a call gave belongs to the next one."""
    clock, calls = time.perf_counter, []
    begin = clock()
    for _ in range(count):
        start = clock()
        _result = call()
        calls.append(clock() - start)
    return Timing(calls, clock() - begin)


def serve(open_work: Callable[[Spec], Work]) -> int:
    """Answer commands until the input ends; return the exit status."""
    opened: dict[str, Work] = {}
    # So that a signal to this program ends what it started, too.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        _serve(opened, open_work)
    finally:
        for work in opened.values():
            work.close()
    return 0


def _serve(opened: dict[str, Work], open_work: Callable[[Spec], Work]) -> None:
    # Whatever a library prints must not come between the answers.
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as answers:
        os.dup2(2, 1)
        for line in sys.stdin:
            answer = _answer(json.loads(line), opened, open_work)
            answers.write(json.dumps(answer) + "\n")
            answers.flush()


def _answer(
    command: dict[str, Any], opened: dict[str, Work], open_work: Callable[[Spec], Work]
) -> dict[str, Any]:
    name = command["name"]
    try:
        if command["do"] == "open":
            work = opened[name] = open_work(Spec(**command["spec"]))
            note = work.check()
            return {"status": "ok", "note": note}
        timing = opened[name].run(command["count"])
    except NotServedError as error:
        return {"status": "not served", "note": _one_line(error)}
    except Exception as error:  # noqa: BLE001 - the parent prints it, and measures the others
        return {"status": "failed", "note": f"{type(error).__name__}: {_one_line(error)}"}
    return {"status": "ok", "calls": timing.calls, "total": timing.total}


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
