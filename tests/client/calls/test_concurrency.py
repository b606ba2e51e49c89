"""Threads, tasks, forks, and clients that are closed under their callers."""

import asyncio
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import pytest

from losswire.client import AsyncClient, CancelledError, Client
from losswire.v1 import evaluation_pb2
from tests.support.scripted import Scripted, echo, serving

THREADS = 16
CALLS_A_THREAD = 25


def test_sixteen_threads_share_a_client(echoing: Scripted) -> None:
    """Each of 16 threads gets the answers to its own questions."""

    def work(thread: int) -> list[float]:
        return [
            float(client.evaluate("any", {"x": thread * 1000 + i}, gradients=["x"]).gradients["x"])
            for i in range(CALLS_A_THREAD)
        ]

    with Client(echoing.address) as client, ThreadPoolExecutor(THREADS) as threads:
        answers = list(threads.map(work, range(THREADS)))
    assert answers == [[t * 1000 + i for i in range(CALLS_A_THREAD)] for t in range(THREADS)]


def test_many_tasks_share_a_client(echoing: Scripted) -> None:
    """Each of many tasks gets the answer to its own question."""

    async def run() -> list[float]:
        async with AsyncClient(echoing.address) as client:
            results = await asyncio.gather(
                *(client.evaluate("any", {"x": float(i)}, gradients=["x"]) for i in range(64))
            )
        return [float(result.gradients["x"]) for result in results]

    assert asyncio.run(run()) == [float(i) for i in range(64)]


FORK = """
import os, sys
from losswire.client import Client

client = Client(sys.argv[1])
client.evaluate("any", {})
child = os.fork()
if child == 0:
    try:
        client.evaluate("any", {})
    except RuntimeError as error:
        os.write(1, str(error).encode())
    os._exit(0)
os.waitpid(child, 0)
client.evaluate("any", {})
client.close()
"""


def test_a_fork_is_told_apart(echoing: Scripted) -> None:
    """A client inherited through a fork says so instead of hanging; the parent's goes on."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORK, echoing.address],
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )
    assert (done.returncode, done.stdout[:30]) == (0, "this client belongs to process"), done.stderr
    assert len(echoing.evaluations) == 2


class Waiting(Scripted):
    """Answers nothing before it is told to."""

    def __init__(self) -> None:
        super().__init__(self._wait)
        self.reached = threading.Event()
        self.released = threading.Event()

    def _wait(
        self, evaluation: evaluation_pb2.Evaluation, _: grpc.ServicerContext
    ) -> evaluation_pb2.EvaluationResult:
        self.reached.set()
        self.released.wait(60)
        return echo(evaluation)


@pytest.fixture
def waiting() -> Iterator[Waiting]:
    """A server that is told to answer at the end only."""
    service = Waiting()
    with serving(service):
        yield service
        service.released.set()


def test_closing_under_a_thread(waiting: Waiting) -> None:
    """A call whose client is closed by another thread ends as CancelledError."""
    client = Client(waiting.address)
    with ThreadPoolExecutor() as threads:
        call = threads.submit(client.evaluate, "any", {})
        assert waiting.reached.wait(60)
        client.close()
        with pytest.raises(CancelledError):
            call.result(60)


def test_closing_under_a_task(waiting: Waiting) -> None:
    """A call whose client is closed by another task ends as CancelledError of the SDK."""

    async def run() -> None:
        client = AsyncClient(waiting.address)
        call = asyncio.create_task(client.evaluate("any", {}))
        await asyncio.to_thread(waiting.reached.wait, 30)
        await client.close()
        with pytest.raises(CancelledError, match="closed during the call"):
            await call

    asyncio.run(run())


def test_cancelling_a_task(waiting: Waiting) -> None:
    """A task that is cancelled ends by asyncio's own exception, and the client goes on."""

    async def run() -> None:
        async with AsyncClient(waiting.address) as client:
            call = asyncio.create_task(client.evaluate("any", {}))
            await asyncio.to_thread(waiting.reached.wait, 30)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            await client.server_info()

    asyncio.run(run())


def test_a_client_belongs_to_its_loop(echoing: Scripted) -> None:
    """An AsyncClient that is used from a second event loop says so."""
    client = AsyncClient(echoing.address)
    with asyncio.Runner() as first, asyncio.Runner() as second:
        first.run(client.server_info())
        with pytest.raises(RuntimeError, match="another event loop"):
            second.run(client.server_info())
        first.run(client.close())


CLOSED_WHILE: list[Callable[[Client], object]] = [
    lambda client: client.evaluate("any", {"x": np.ones(3)}),
    lambda client: client.server_info(),
]


@pytest.mark.parametrize("work", CLOSED_WHILE, ids=["evaluate", "server_info"])
def test_closing_at_any_moment(echoing: Scripted, work: Callable[[Client], object]) -> None:
    """Threads whose client closes between or during calls see only the two documented errors."""
    client = Client(echoing.address)
    warm = threading.Barrier(5)

    def run() -> None:
        work(client)
        warm.wait(60)
        while True:
            work(client)

    with ThreadPoolExecutor() as threads:
        loops = [threads.submit(run) for _ in range(4)]
        warm.wait(60)
        client.close()
        errors = [loop.exception(30) for loop in loops]
    assert all(isinstance(error, (CancelledError, RuntimeError)) for error in errors), errors
