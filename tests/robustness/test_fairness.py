"""Nobody waits behind another's large work: small calls beside large ones, and the reverse."""

import multiprocessing
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from multiprocessing.connection import Connection

import numpy as np
import numpy.typing as npt
import pytest

from losswire.client import Client
from tests.support.process import running_server
from tests.support.soak import percentile, record, tier

_GENERATOR = np.random.default_rng(9)
_SMALL: dict[str, npt.ArrayLike] = {
    "input": _GENERATOR.standard_normal((32, 10)).astype(np.float32),
    "target": _GENERATOR.integers(0, 10, 32),
}


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Start a server that large calls reach over TCP."""
    with running_server("--region-quota-mib", "0") as found:
        yield found


def _large_calls(address: str, rows: int, commands: Connection) -> None:
    """Make large calls until told to stop; says how many a second, and whether all were right."""
    generator = np.random.default_rng(1)
    inputs: dict[str, npt.ArrayLike] = {
        "input": generator.standard_normal((rows, 4096), dtype=np.float32),
        "target": generator.integers(0, 4096, rows),
    }
    with Client(address, timeout=120) as client:

        def call() -> float:
            result = client.evaluate("cross_entropy", inputs, gradients=["input"])
            return float(result.loss)

        right = call()
        commands.send(right)
        commands.recv()
        count, wrong, began = 0, 0, time.perf_counter()
        while not count or not commands.poll():
            wrong += call() != right
            count += 1
        commands.send((count / (time.perf_counter() - began), wrong))


@contextmanager
def _large_callers(address: str, count: int, rows: int) -> Iterator[list[Connection]]:
    """Start callers of large evaluations, in processes of their own."""
    context = multiprocessing.get_context("spawn")
    with ExitStack() as stack:
        found = []
        for _ in range(count):
            ours, theirs = context.Pipe()
            process = context.Process(target=_large_calls, args=(address, rows, theirs))
            process.start()
            stack.callback(process.join)
            found.append(ours)
        for each in found:
            each.recv()
        yield found


def _small_calls(client: Client, seconds: float, right: float) -> list[float]:
    """Make small calls, one after another; returns how long each took."""
    times: list[float] = []
    end = time.perf_counter() + seconds
    while (began := time.perf_counter()) < end:
        assert client.evaluate("cross_entropy", _SMALL, gradients=["input"]).loss == right
        times.append(time.perf_counter() - began)
    return times


def test_small_calls_beside_large_ones(address: str) -> None:
    """Answer small calls soon while two callers send large ones, which get on, too."""
    seconds = tier(short=1.0, soak=10.0)
    with Client(address, timeout=120) as client:
        right = float(client.evaluate("cross_entropy", _SMALL, gradients=["input"]).loss)
        alone = _small_calls(client, seconds, right)
        with _large_callers(address, 2, tier(short=512, soak=4096)) as callers:
            for each in callers:
                each.send("begin")
            beside = _small_calls(client, seconds, right)
            for each in callers:
                each.send("end")
            rates = [each.recv() for each in callers]
    assert alone
    assert beside
    assert not any(wrong for _, wrong in rates)
    assert all(rate > 0 for rate, _ in rates)
    p99_alone, p99_beside = percentile(alone, 0.99), percentile(beside, 0.99)
    record("p99 of small calls alone", p99_alone * 1000, unit="ms")
    record("p99 of small calls beside two callers of 4096 x 4096", p99_beside * 1000, unit="ms")
    record("the latter, of the former", p99_beside / p99_alone, required="<= 4")
    record("large calls a second meanwhile", sum(rate for rate, _ in rates), unit="/s")


def test_a_long_evaluation_gets_on_beside_brief_ones(address: str) -> None:
    """Answer one long evaluation although brief ones of the same thread never end."""
    logits = _GENERATOR.standard_normal((512, 512), dtype=np.float32)
    brief: dict[str, npt.ArrayLike] = {"input": logits, "target": _GENERATOR.integers(0, 512, 512)}
    rows = tier(short=2048, soak=8192)
    with (
        Client(address, timeout=120) as client,
        _large_callers(address, 1, rows) as [caller],
    ):
        caller.send("begin")
        right = client.evaluate("cross_entropy", brief).loss
        end = time.perf_counter() + tier(short=1.0, soak=5.0)
        while time.perf_counter() < end:
            assert client.evaluate("cross_entropy", brief).loss == right
        caller.send("end")
        rate, wrong = caller.recv()
    assert rate > 0
    assert not wrong
