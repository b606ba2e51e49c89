"""Random schedules of calls and ends, run by a process of its own: see test_schedules.py.

Each schedule makes a client and arrays in shared memory, begins an evaluation in one of five
states, ends something in one of sixteen ways, and compares what the arrays hold with what they
held before. It uses what is public only, and reports one JSON line: what was done, and what was
wrong with it, if anything was.
"""

import gc
import json
import os
import random
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

from tests.support.mapped import open_files
from tests.support.schedules.asynchronous import run_asyncio
from tests.support.schedules.blocking import run_blocking
from tests.support.schedules.processes import run_killed, run_outlived
from tests.support.schedules.scene import (
    CLIENTS,
    FORKS_IN_CALLS,
    GIVEN_BACK_SECONDS,
    HANGS_AFTER_SECONDS,
    KINDS,
    NEW_CLIENTS,
    RARE,
    STATES,
    WAYS,
    Alarm,
    Schedule,
    Server,
)


def draw(seed: int, number: int) -> Schedule:
    """Draw the schedule of a number."""
    dice = random.Random(f"{seed}/{number}")  # noqa: S311 - to be repeated
    # Each way has its turn; of the rare ones, one in some.
    way = WAYS[number % len(WAYS)]
    if way in RARE and number // len(WAYS) % 8:
        way = dice.choice([each for each in WAYS if each not in RARE])
    if FORKS_IN_CALLS and way in NEW_CLIENTS:
        way = "fork and exit"
    client = dice.choice(CLIENTS)
    if way == "cancel":
        client = "asyncio"
    if way in ("alarm", "interrupt", "collect"):
        client = "blocking"
    state = dice.choice(STATES)
    if way.startswith("fork") and not FORKS_IN_CALLS:
        client, state = "blocking", "before sending"
    kinds = {"sent in part": ("long",), "answered in part": ("answered",)}.get(state, KINDS)
    return Schedule(number, dice.choice(kinds), client, state, way, delay=dice.uniform(0, 0.003))


def _given_back(schedule: Schedule, server: Server) -> None:
    """Check that the server gets its memory back, without any call that could help it."""
    gc.collect()
    end = time.monotonic() + GIVEN_BACK_SECONDS
    while (left := server.regions) and time.monotonic() < end:
        time.sleep(0.005)
    schedule.check(not left, f"{left} regions left on the server")


def _tell(report: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(report) + "\n")
    sys.stdout.flush()


def _give_up(schedule: Schedule) -> None:
    """Report a schedule that hangs, and end."""
    schedule.problems.append("it hangs")
    _tell(schedule.__dict__)
    os._exit(1)


def _sockets() -> int:
    return sum(target.startswith(("socket:", "/memfd:")) for _, target in open_files())


def main(seed: int, first: int, count: int, folder: Path) -> None:
    """Run some schedules."""

    def raise_alarm(*_: object) -> None:
        raise Alarm

    signal.signal(signal.SIGALRM, raise_alarm)
    server = Server(folder)
    before = 0
    for number in range(first, first + count):
        schedule = draw(seed, number)
        run = run_asyncio if schedule.client == "asyncio" else run_blocking
        if schedule.way == "fork and outlive the parent":
            run = run_outlived
        elif schedule.way == "kill the client":
            run = run_killed
        began = time.monotonic()
        watch = threading.Timer(HANGS_AFTER_SECONDS, _give_up, (schedule,))
        watch.daemon = True
        watch.start()
        try:
            run(schedule, server)
        except Exception as error:  # noqa: BLE001 - reported
            schedule.problems.append(repr(error))
        watch.cancel()
        _given_back(schedule, server)
        if number == first + 20:
            before = _sockets()
        report = {**schedule.__dict__, "seconds": round(time.monotonic() - began, 3)}
        _tell(report)
    leaked = _sockets() - before if before else 0
    _tell({"leaked": leaked})
    server.end(signal.SIGTERM)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))
