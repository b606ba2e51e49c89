"""Schedules in which whole processes end."""

import json
import os
import signal
import time

import numpy as np

from tests.support.schedules.scene import Arrays, Schedule, Server, make_client


def run_outlived(schedule: Schedule, server: Server) -> None:
    """A parent makes all, forks, and ends; the child has the inherited arrays."""
    reader, writer = os.pipe()
    parent = os.fork()
    if not parent:
        try:
            client = make_client(server)
            arrays = Arrays(
                client.region(3 << 20), schedule.kind, np.random.default_rng(schedule.number)
            )
            client.evaluate(**arrays.arguments())
            if not os.fork():
                time.sleep(0.3)
                arrays.check_contents(schedule, "in a child that outlives its parent")
                os.write(writer, json.dumps(schedule.problems).encode())
            elif schedule.number % 2:
                os.kill(os.getpid(), signal.SIGKILL)
        except BaseException as error:  # noqa: BLE001 - reported
            os.write(writer, json.dumps([repr(error)]).encode())
        finally:
            os._exit(0)
    os.close(writer)
    os.waitpid(parent, 0)
    with os.fdopen(reader, "rb") as answers:
        schedule.problems += json.loads(answers.read() or b'["the child said nothing"]')


def run_killed(schedule: Schedule, server: Server) -> None:
    """A caller is killed while it calls."""
    victim = os.fork()
    if not victim:
        try:
            client = make_client(server)
            arrays = Arrays(
                client.region(3 << 20), schedule.kind, np.random.default_rng(schedule.number)
            )
            while True:
                client.evaluate(**arrays.arguments())
        finally:
            os._exit(1)
    time.sleep(0.05 + 20 * schedule.delay)
    os.kill(victim, signal.SIGKILL)
    os.waitpid(victim, 0)
