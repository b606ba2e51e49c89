"""Schedules with the client that blocks."""

import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np

from losswire.client import FailedPreconditionError
from tests.support.schedules.actions import act_of
from tests.support.schedules.scene import (
    EXPECTED,
    RARE,
    SECONDS,
    Alarm,
    Arrays,
    Schedule,
    Server,
    make_client,
    warm,
)


def _begin(schedule: Schedule, server: Server, act: Callable[[], None]) -> None:
    """Do something while a call is in a state, on a thread beside it."""
    stopped = schedule.state in ("sent in part", "computing")
    time.sleep(0.02 if stopped else schedule.delay)
    act()
    if stopped:
        time.sleep(0.02)
    with suppress(ProcessLookupError):
        server.child.process.send_signal(signal.SIGCONT)


def run_blocking(schedule: Schedule, server: Server) -> None:
    """Run a schedule with the client that blocks, in the main thread or in several."""
    dice = np.random.default_rng(schedule.number)
    client = make_client(server)
    region = client.region(3 << 20)
    arrays = Arrays(region, schedule.kind, dice)
    warm(client, arrays, small=schedule.kind == "small")
    arguments = arrays.arguments()
    timeout = schedule.delay + 2e-4 if schedule.way == "timeout" else SECONDS
    held: list[Any] = [client, region]

    def evaluate() -> None:
        try:
            result = held[0].evaluate(**arguments, timeout=timeout)
        except (*EXPECTED, Alarm, IndexError):
            return
        arrays.check_result(schedule, result)

    act = act_of(schedule, server, held, arrays)
    if schedule.state == "before sending":
        act()
        evaluate()
    else:
        with server.stopped(really=schedule.state in ("sent in part", "computing")):
            beside = threading.Thread(target=_begin, args=(schedule, server, act))
            callers = [
                threading.Thread(target=evaluate)
                for _ in range(3 if schedule.client == "threads" else 0)
            ]
            try:
                beside.start()
                for each in callers:
                    each.start()
                if schedule.client == "threads":
                    beside.join()
                else:
                    evaluate()
            except (Alarm, KeyboardInterrupt):
                pass  # it came after the call
            finally:
                for each in (beside, *callers):
                    _join(each)
    arrays.check_contents(schedule, "after the end")
    check_afterwards(schedule, server, held, arrays)
    arrays.check_contents(schedule, "in the end")
    for each in held:
        each.close()
    arrays.check_contents(schedule, "after closing")


def _join(thread: threading.Thread) -> None:
    """Wait for a thread, also when a signal comes late."""
    while thread.is_alive():
        with suppress(Alarm, KeyboardInterrupt):
            thread.join()


def check_afterwards(schedule: Schedule, server: Server, held: list[Any], arrays: Arrays) -> None:
    """Evaluate the same arrays once more: with the same client, where it lives, and another."""
    arguments = arrays.arguments()
    ways = set()
    with make_client(server) as other:
        clients = [other]
        if held and schedule.way not in ("close", "with"):
            clients.append(held[0])
        for client in reversed(clients):  # its own first, which knows what was given up
            for _ in range(3):
                try:
                    result = client.evaluate(**arguments)
                except FailedPreconditionError as error:
                    # A client that cannot ask the server says so.
                    if client is not other or error.reason != "GRADIENT_PENDING":
                        raise
                    continue
                arrays.check_result(schedule, result)
                ways.add((client is other, result.transport))
    if len(clients) == 2 and schedule.kind == "placed" and schedule.way not in RARE:
        schedule.check((False, "region") in ways, f"the region is not used any more: {ways}")
