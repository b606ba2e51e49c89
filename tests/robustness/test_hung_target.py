"""Replicas that stop in the middle: calls leave them, and come back when they do."""

import asyncio
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import pytest

from losswire.client import AsyncClient, Client, Evaluation, EvaluationResult, LosswireError
from tests.support.doors import Doors, open_doors
from tests.support.soak import record, tier

_ROWS = np.random.default_rng(4).normal(size=(32, 16)).astype(np.float32)
_LARGE = np.random.default_rng(5).normal(size=(1200, 2000)).astype(np.float32)
_TIMEOUT = 60.0


def _mean_square(array: np.ndarray) -> float:
    return float(np.mean(array.astype(np.float64) ** 2))


@pytest.fixture(scope="module")
def replicas() -> Iterator[tuple[Doors, Doors]]:
    """Yield two servers; one that a test has stopped goes on at the end."""
    with open_doors() as one, open_doors() as other:
        try:
            yield one, other
        finally:
            for each in (one, other):
                os.kill(each.pid, signal.SIGCONT)


@contextmanager
def stopped(server: Doors) -> Iterator[None]:
    """Stop a server: its connections stay, and nothing is answered."""
    os.kill(server.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(server.pid, signal.SIGCONT)


@dataclass
class Load:
    """Threads that evaluate in a loop, and what became of it."""

    client: Client
    calls: int = 0
    errors: list[LosswireError] = field(default_factory=list)
    wrong: int = 0
    longest: float = 0.0
    over: threading.Event = field(default_factory=threading.Event)

    def work(self, number: int) -> None:
        """Evaluate until it is over, each thread with numbers of its own."""
        rows = _ROWS * (number + 1)
        right = _mean_square(rows)
        while not self.over.is_set():
            started = time.monotonic()
            try:
                found = self.client.evaluate("mse_loss", {"input": rows, "target": 0 * rows})
            except LosswireError as error:
                self.errors.append(error)
                continue
            self.longest = max(self.longest, time.monotonic() - started)
            self.calls += 1
            self.wrong += abs(float(found.loss) - right) > 1e-4 * right

    @contextmanager
    def running(self, threads: int) -> Iterator[None]:
        """Run so many threads."""
        made = [threading.Thread(target=self.work, args=(each,)) for each in range(threads)]
        for each in made:
            each.start()
        try:
            yield
        finally:
            self.over.set()
            for each in made:
                each.join()


def test_calls_leave_a_stopped_replica(replicas: tuple[Doors, Doors]) -> None:
    """With one of two replicas stopped, no call fails, and the other one does the work."""
    one, other = replicas
    seconds = tier(short=4.0, soak=12.0)
    with Client(f"{one.grpc},{other.grpc}", timeout=_TIMEOUT) as client:
        load = Load(client)
        with load.running(4):
            time.sleep(1.5)
            before = load.calls
            with stopped(other):
                time.sleep(seconds)
                during = load.calls - before
            time.sleep(0.2)
    record("failed calls, one of two replicas stopped", len(load.errors), required="0")
    record("calls in a stopped second / before", during / seconds / (before / 1.5))
    record("longest call, one of two replicas stopped", load.longest, unit="s")
    assert load.errors == []
    assert load.wrong == 0
    assert during > 20


def test_every_kind_of_call_leaves_a_stopped_replica(replicas: tuple[Doors, Doors]) -> None:
    """Small, many, large, stored, streamed and summarized data all go to the other replica."""
    one, other = replicas
    item = Evaluation("mse_loss", {"input": _ROWS, "target": 0 * _ROWS})
    large = {"input": _LARGE, "target": 0 * _LARGE}
    small, big = pytest.approx(_mean_square(_ROWS)), pytest.approx(_mean_square(_LARGE))
    target = f"{one.grpc},{other.grpc}"
    with Client(target, timeout=_TIMEOUT) as client, client.stream() as stream:
        for _ in range(4):
            client.evaluate("mse_loss", item.inputs)
            assert float(stream.submit(item).result().loss) == small
        with stopped(other):
            for _ in range(2):
                [found] = client.evaluate_many([item])
                assert isinstance(found, EvaluationResult)
                assert float(found.loss) == small
                result = client.evaluate("mse_loss", large, gradients=["input"])
                assert float(result.loss) == big
                summary = client.summarize("mse_loss", [dict(item.inputs)] * 3)
                assert summary.mean == pytest.approx(_mean_square(_ROWS))
                assert float(stream.submit(item).result(_TIMEOUT).loss) == small
                tensor = client.put(_ROWS)
                again = client.evaluate("mse_loss", {"input": tensor, "target": 0 * _ROWS})
                assert float(again.loss) == small


def test_tasks_leave_a_stopped_replica(replicas: tuple[Doors, Doors]) -> None:
    """So do the calls and streams of an event loop."""
    one, other = replicas
    item = Evaluation("mse_loss", {"input": _ROWS, "target": 0 * _ROWS})

    async def run() -> list[float]:
        target = f"{one.grpc},{other.grpc}"
        async with AsyncClient(target, timeout=_TIMEOUT) as client, client.stream() as stream:
            for _ in range(4):
                await client.evaluate("mse_loss", item.inputs)
                await (await stream.submit(item))
            with stopped(other):
                calls = [client.evaluate("mse_loss", item.inputs) for _ in range(8)]
                results = [*await asyncio.gather(*calls), await (await stream.submit(item))]
        return [float(result.loss) for result in results]

    assert asyncio.run(run()) == pytest.approx([_mean_square(_ROWS)] * 9)


def test_long_work_is_waited_for(replicas: tuple[Doors, Doors]) -> None:
    """A call that takes longer than the patience of the SDK is not given up."""
    one, other = replicas
    big = np.zeros((2500, 2500), np.float32)
    with Client(f"{one.grpc},{other.grpc}", timeout=_TIMEOUT) as client:
        tensors = {"input": client.put(big), "target": client.put(np.zeros(2500, np.int64))}
        result = client.evaluate("cross_entropy", tensors)
    assert float(result.loss) == pytest.approx(np.log(2500), rel=1e-5)


def test_the_only_server_is_waited_for(replicas: tuple[Doors, Doors]) -> None:
    """A server that is stopped for a while and is the only one is not given up."""
    one, _ = replicas
    with Client(one.grpc, timeout=_TIMEOUT) as client:
        client.evaluate("mse_loss", {"input": _ROWS, "target": 0 * _ROWS})
        timer = threading.Timer(3.0, os.kill, (one.pid, signal.SIGCONT))
        with stopped(one):
            timer.start()
            result = client.evaluate("mse_loss", {"input": _ROWS, "target": 0 * _ROWS})
        timer.join()
    assert float(result.loss) == pytest.approx(_mean_square(_ROWS))
