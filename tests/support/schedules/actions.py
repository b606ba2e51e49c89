"""The ways to end a call, a client, a region or a process."""

import gc
import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np

from tests.support.schedules.scene import (
    HANGS_AFTER_SECONDS,
    Alarm,
    Arrays,
    Schedule,
    Server,
)


def act_of(
    schedule: Schedule, server: Server, held: list[Any], arrays: Arrays
) -> Callable[[], None]:
    """Return the function that ends something, as the schedule demands."""
    way = schedule.way

    def collect() -> None:
        held.clear()
        gc.collect()

    def leave() -> None:
        with suppress(ValueError), held[0]:
            raise ValueError

    def send(number: int) -> None:
        os.kill(os.getpid(), number)

    actions: dict[str, Callable[[], object]] = {
        "close": lambda: held[0].close(),  # noqa: PLW0108 - what is held then
        "with": leave,
        "collect": collect,
        "alarm": lambda: send(signal.SIGALRM),
        "interrupt": lambda: send(signal.SIGINT),
        "drain the server": lambda: _restart(server, signal.SIGTERM),
        "kill the server": lambda: _restart(server, signal.SIGKILL),
    }
    if way.startswith("fork"):
        actions[way] = lambda: _fork(schedule, held, arrays)
    action = actions.get(way, lambda: None)

    def act() -> None:
        with suppress(Alarm, KeyboardInterrupt):
            action()

    return act


def _restart(server: Server, number: int) -> None:
    server.end(number)
    server.start()


def _fork(schedule: Schedule, held: list[Any], arrays: Arrays) -> None:
    """Fork, and let the child use the client and arrays that it inherited."""
    child = os.fork()
    if child:
        status = _wait_for(child)
        schedule.check(status == 0, f"the child ended with {status}")
        return
    status = 1
    try:
        status = _in_child(schedule.way, held, arrays)
    finally:
        os._exit(status)


def _in_child(way: str, held: list[Any], arrays: Arrays) -> int:
    client, region = held
    if way == "fork and close":
        region.close()
        client.close()
    elif way == "fork and leave with":
        with suppress(RuntimeError), client:
            pass
        client.__exit__(None, None, None)
    elif way == "fork and evaluate":
        try:
            client.evaluate(**arrays.arguments())
        except RuntimeError:
            pass
        else:
            return 2
    same = all(map(np.array_equal, (arrays.input, arrays.target), arrays.before))
    return 0 if same else 3


def _wait_for(child: int) -> int:
    """Wait for a child; one that hangs is killed, and its status says so."""
    end = time.monotonic() + HANGS_AFTER_SECONDS / 2
    while True:
        with suppress(Alarm, KeyboardInterrupt):
            found, status = os.waitpid(child, os.WNOHANG)
            if found:
                return os.waitstatus_to_exitcode(status)
            if time.monotonic() > end:
                os.kill(child, signal.SIGKILL)
            time.sleep(0.001)
