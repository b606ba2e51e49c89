"""Programs that fork, each run as a process of its own."""

import os
import subprocess
import sys
import textwrap

_BEFORE = """
import os, signal, sys, threading, time, warnings
import numpy as np
from losswire.client import Client, Evaluation

warnings.simplefilter("ignore", DeprecationWarning)  # of Python, for any process with threads
TARGET, TRIES = sys.argv[1], int(sys.argv[2])
DRAW = np.random.default_rng(7)
INPUT, OTHER = (DRAW.standard_normal((1000, 500), dtype=np.float32) for _ in range(2))
EXPECTED = float(np.mean((INPUT.astype(float) - OTHER) ** 2))
ITEM = Evaluation("mse_loss", {"input": INPUT[:2], "target": OTHER[:2]})
SMALL = float(np.mean((INPUT[:2].astype(float) - OTHER[:2]) ** 2))
endings = {}

def near(found, expected):
    return abs(float(found) - expected) < 1e-5 * expected

def fork(child):
    "Let a child run a function, and count how it ends; 0 is well."
    pid = os.fork()
    if not pid:
        signal.alarm(60)
        status = 99
        try:
            status = child()
        finally:
            os._exit(status or 0)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    endings[status] = endings.get(status, 0) + 1

def use():
    "Do what children do that never touch the SDK: threads, memory, time."
    done = threading.Thread(target=sum, args=(range(1000),))
    done.start()
    done.join()
    np.ones(100_000).sum()
    time.sleep(0.02)

def regions():
    with open("/proc/self/maps") as maps:
        return sum("losswire-region" in line for line in maps)
"""


def run_forking(target: str, tries: int, code: str, **settings: str) -> dict[str, str]:
    """Run a program that prints names and figures, with some settings; returns them."""
    path = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "GRPC_VERBOSITY": "ERROR"}
    path.update(settings)
    done = subprocess.run(
        [sys.executable, "-c", _BEFORE + textwrap.dedent(code), target, str(tries)],
        env={**os.environ, **path, "PYTHONFAULTHANDLER": "1"},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return dict(line.split("=", 1) for line in done.stdout.splitlines())
