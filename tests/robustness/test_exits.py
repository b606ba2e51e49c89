"""Ctrl-C at any moment, and processes that end with anything open."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator

import pytest

from tests.support.harness import Child
from tests.support.soak import record, tier

_BEFORE = """
import os, random, signal, sys, threading, time
import numpy as np
from losswire.client import AsyncClient, Client, Evaluation

TARGET, TRIES = sys.argv[1], int(sys.argv[2])
DRAW = np.random.default_rng(7)
INPUT, OTHER = (DRAW.standard_normal((600, 500), dtype=np.float32) for _ in range(2))
LARGE = {"input": INPUT, "target": OTHER}
SMALL = {"input": INPUT[:2], "target": OTHER[:2]}
ITEM = Evaluation("mse_loss", SMALL)

def mean(inputs):
    return float(np.mean((inputs["input"].astype(float) - inputs["target"]) ** 2))

def near(found, inputs):
    return abs(float(found) - mean(inputs)) < 1e-5 * mean(inputs)

def in_stream():
    with client.stream() as stream:
        return [stream.submit(ITEM) for _ in range(5)][-1].result()

def in_region():
    with client.region(4 * INPUT.nbytes) as region:
        inputs = {name: region.array(each.shape) for name, each in LARGE.items()}
        for name, each in LARGE.items():
            inputs[name][...] = each
        out = {"input": region.array(INPUT.shape)}
        found = client.evaluate("mse_loss", inputs, gradients=["input"], out=out)
        assert all(np.array_equal(inputs[name], each) for name, each in LARGE.items())
        return found

client = Client(TARGET, timeout=100)
DOORS = {
    "lease": lambda: near(client.evaluate("mse_loss", SMALL).loss, SMALL),
    "gRPC": lambda: near(client.evaluate_many([ITEM])[0].loss, SMALL),
    "copies": lambda: near(client.evaluate("mse_loss", LARGE, gradients=["input"]).loss, LARGE),
    "region": lambda: near(in_region().loss, LARGE),
    "chunks": lambda: near(
        client.evaluate("mse_loss", LARGE, progress=lambda _, __: None).loss, LARGE
    ),
    "stream": lambda: near(in_stream().loss, SMALL),
    "put": lambda: client.put(DRAW.standard_normal(1000)) is not None,
    "summary": lambda: near(client.summarize("mse_loss", [SMALL] * 20).mean, SMALL),
}
for _ in range(10):
    assert DOORS["lease"]()
"""


def _run(
    target: str, tries: int, code: str, *flags: str, seconds: float = 280.0
) -> "subprocess.CompletedProcess[str]":
    """Run a program to its end; what gRPC's core writes is no part of its output."""
    path = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "GRPC_VERBOSITY": "NONE"}
    return subprocess.run(
        [sys.executable, *flags, "-c", _BEFORE + textwrap.dedent(code), target, str(tries)],
        env={**os.environ, **path, "PYTHONFAULTHANDLER": "1"},
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Child]:
    """A server as by default."""
    with Child(tmp_path_factory.mktemp("exits") / "log", "--memory-budget-mib=512") as child:
        yield child


_INTERRUPTED = """
door = DOORS[{door!r}]
took = []
for _ in range(3):
    began = time.monotonic()
    door()
    took.append(time.monotonic() - began)
interrupted = wrong = slow = 0
dice = random.Random(5)
for number in range(TRIES):
    timer = threading.Timer(
        dice.uniform(0, 1.5 * min(took)), os.kill, (os.getpid(), signal.SIGINT)
    )
    try:
        timer.start()
        while timer.is_alive():
            wrong += not door()
        # Python ignores an exception that comes up while an object is being released.
        wrong += not door()
    except KeyboardInterrupt:
        interrupted += 1
    timer.join()
    wrong += not door()
for each in DOORS.values():
    wrong += not each()
client.close()
print(interrupted, wrong)
"""


@pytest.mark.parametrize(
    ("door", "local"),
    [
        *((each, False) for each in ("lease", "gRPC", "copies", "region", "chunks")),
        *((each, False) for each in ("stream", "put", "summary")),
        *((each, True) for each in ("lease", "gRPC", "copies")),
    ],
)
def test_an_interrupt_at_any_moment(server: Child, door: str, *, local: bool) -> None:
    """Ctrl-C ends the call that is under way, and the next one is as right as ever."""
    tries = tier(short=6, soak=100)
    target = "local:?threads=1" if local else server.address
    done = _run(target, tries, _INTERRUPTED.format(door=door))
    assert done.returncode == 0, done.stderr[-4000:]
    interrupted, wrong = map(int, done.stdout.split())
    record(f"wrong results after Ctrl-C, {door}", wrong, required="0")
    assert wrong == 0
    assert interrupted > tries // 2


_OPEN = {
    "nothing": "",
    "a region": "region = client.region(4096)",
    "an array of a region": "array = client.region(4096).array(3)",
    "a stream": "stream = client.stream().__enter__(); future = stream.submit(ITEM)",
    "a client for asyncio": """
        import asyncio

        async def main():
            global other, region
            other = AsyncClient(TARGET, timeout=100)
            region = await other.region(4096)
            for _ in range(10):
                await other.evaluate("mse_loss", SMALL)

        asyncio.run(main())
        """,
}


@pytest.mark.parametrize("opened", _OPEN)
def test_a_process_ends_without_a_word(server: Child, opened: str) -> None:
    """Under `-X dev`, with warnings as errors, whatever it left open."""
    done = _run(server.address, 1, _OPEN[opened], "-X", "dev", "-W", "error")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


_BUSY = """
def call():
    if {door!r} == "an open stream":
        stream = client.stream().__enter__()
        while True:
            stream.submit(ITEM).result()
    while True:
        DOORS[{door!r}]()

for _ in range(3):
    threading.Thread(target=call, daemon=True).start()
time.sleep(0.3)
{end}
"""


@pytest.mark.parametrize("end", ["", "client.close()"], ids=["end", "close"])
@pytest.mark.parametrize(
    ("door", "local"),
    [*((each, False) for each in ("lease", "copies", "chunks", "an open stream")), ("lease", True)],
)
def test_a_process_ends_under_its_threads(
    server: Child, door: str, end: str, *, local: bool
) -> None:
    """Daemon threads that are in calls neither keep the interpreter from ending nor crash it."""
    target = "local:?threads=1" if local else server.address
    for _ in range(tier(short=1, soak=10)):
        done = _run(target, 1, _BUSY.format(door=door, end=end), seconds=120)
        # A thread whose client was closed prints how its call ended.
        assert done.returncode == 0, done.stderr[-4000:]
        if end != "client.close()":
            assert (done.stdout, done.stderr) == ("", "")


def test_a_process_ends_while_its_server_hangs(server: Child) -> None:
    """Calls over a lease, by gRPC, a stream: Ctrl-C ends the process within seconds."""
    for door in ("lease", "copies", "chunks", "stream", "put"):
        process = subprocess.Popen(
            [
                sys.executable,
                "-c",
                _BEFORE + f"print('ready', flush=True)\nwhile True: DOORS[{door!r}]()",
                server.address,
                "1",
            ],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        time.sleep(0.2)
        server.process.send_signal(signal.SIGSTOP)
        resume = threading.Timer(60, server.process.send_signal, (signal.SIGCONT,))
        try:
            resume.start()
            time.sleep(0.3)
            began = time.monotonic()
            process.send_signal(signal.SIGINT)
            _, written = process.communicate(timeout=100)
            took = time.monotonic() - began
        finally:
            resume.cancel()
            server.process.send_signal(signal.SIGCONT)
        assert process.returncode == -signal.SIGINT
        assert b"KeyboardInterrupt" in written
        record(f"seconds from Ctrl-C to the end, {door}", took, unit="s", required="<= 5")
        assert took < 30
