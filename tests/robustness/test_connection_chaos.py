"""Connections that are cut, slowed or held at random bytes: never a wrong result, nothing left."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from losswire.client import Client, Evaluation, EvaluationResult, LosswireError
from tests.support.chaos_proxy import HARMLESS, ChaosProxy, Harm, chaos_proxy
from tests.support.doors import Doors, open_doors
from tests.support.soak import record, tier
from tests.support.vitals import vitals, wait_until

_MIB = 1 << 20
_TIMEOUT = 30.0
_HELD_TIMEOUT = 3.0
"""Of a call whose connection is held: for the client, it looks like long work."""


@dataclass(frozen=True)
class Batch:
    """Two arrays, and what numpy says of them."""

    inputs: dict[str, np.ndarray]
    loss: float
    gradient: np.ndarray

    @classmethod
    def of(cls, seed: int, rows: int) -> "Batch":
        """Make one of so many rows of 4 KiB."""
        generator = np.random.default_rng(seed)
        one, other = generator.normal(size=(2, rows, 1024)).astype(np.float32)
        difference = one.astype(np.float64) - other
        gradient = 2 * difference / difference.size
        return cls({"input": one, "target": other}, float(np.mean(difference**2)), gradient)

    def item(self) -> Evaluation:
        """Return the evaluation."""
        return Evaluation("mse_loss", self.inputs, gradients=["input"])

    def check(self, result: EvaluationResult | LosswireError) -> None:
        """Compare a result with numpy's; raises AssertionError."""
        assert isinstance(result, EvaluationResult), result
        assert abs(float(result.loss) - self.loss) < 1e-5 * self.loss
        gradient = result.gradients["input"]
        assert gradient.shape == self.gradient.shape
        assert np.allclose(gradient, self.gradient, rtol=1e-5, atol=1e-9)


_SMALL, _MEDIUM, _LARGE = Batch.of(1, 1), Batch.of(2, 600), Batch.of(3, 2200)


def _one(batch: Batch) -> Callable[[Client, float], None]:
    """Return what evaluates one batch and checks the result."""

    def call(client: Client, timeout: float) -> None:
        batch.check(client.evaluate("mse_loss", batch.inputs, gradients=["input"], timeout=timeout))

    return call


def _many(client: Client, timeout: float) -> None:
    """Evaluate several in one call."""
    batches = [_SMALL, _MEDIUM, _SMALL]
    results = client.evaluate_many([each.item() for each in batches], timeout=timeout)
    for batch, result in zip(batches, results, strict=True):
        batch.check(result)


def _stream(client: Client, timeout: float) -> None:
    """Evaluate several in a stream."""
    batches = [_SMALL, _MEDIUM] * 4
    with client.stream(timeout=timeout) as stream:
        futures = [stream.submit(each.item()) for each in batches]
        for batch, future in zip(batches, futures, strict=True):
            batch.check(future.result(timeout=_TIMEOUT))


def _put(client: Client, timeout: float) -> None:
    """Store a tensor and refer to it."""
    target = client.put(_MEDIUM.inputs["target"], timeout=timeout)
    inputs: dict[str, Any] = {"input": _MEDIUM.inputs["input"], "target": target}
    _MEDIUM.check(client.evaluate("mse_loss", inputs, gradients=["input"], timeout=timeout))


_CALLS: dict[str, tuple[Callable[[Client, float], None], int]] = {
    "small": (_one(_SMALL), 12_000),
    "unary": (_one(_MEDIUM), 5 * _MIB),
    "chunked": (_one(_LARGE), 18 * _MIB),
    "many": (_many, 5 * _MIB),
    "stream": (_stream, 20 * _MIB),
    "resident": (_put, 5 * _MIB),
}
"""The calls, and about how many bytes each sends."""


def _harm(generator: np.random.Generator, kind: str, size: int) -> Harm:
    """Choose where it happens: near the beginning as often as anywhere."""
    upper = size if generator.integers(2) else 600
    at = int(generator.integers(1, upper))
    if kind == "slowed":
        return Harm(bytes_per_second=size / generator.uniform(0.5, 3))
    return {
        "cut going up": Harm(cut_up_after=at),
        "cut coming down": Harm(cut_down_after=at),
        "held": Harm(hold_after=at),
        "refused": Harm(refuse=True),
    }[kind]


_KINDS = ("cut going up", "cut coming down", "slowed", "held", "refused")


@pytest.fixture(scope="module")
def doors() -> Iterator[Doors]:
    """A server without shared memory: everything goes through connections."""
    with open_doors("--memory-budget-mib", "256", "--region-quota-mib", "0") as opened:
        yield opened


def _reserved(doors: Doors) -> float:
    """Return the bytes that are reserved for calls."""
    samples = doors.samples()
    every = samples.of("losswire_reserved_bytes")
    return every - samples.of("losswire_reserved_bytes", reservation="residents")


def _call_through(proxy: ChaosProxy, harm: Harm, name: str) -> bool:
    """Make one call, of which the first connection is harmed; returns whether it succeeded."""
    first = proxy.counts.connections
    proxy.harm(lambda number: harm if number == first else HARMLESS)
    call, _ = _CALLS[name]
    held = harm.hold_after < float("inf")
    with Client(proxy.address, timeout=_TIMEOUT) as client, suppress(LosswireError):
        call(client, _HELD_TIMEOUT if held else _TIMEOUT)
        return True
    return False


def test_harmed_connections_lose_nothing_and_leave_nothing(doors: Doors) -> None:
    """Each call is right or an error; those cut or slowed succeed, by another connection."""
    generator = np.random.default_rng(20)
    tries = tier(short=2, soak=20)
    failed: list[tuple[str, str, Harm]] = []
    slowest_release = 0.0
    with chaos_proxy(doors.grpc) as proxy:
        for name in _CALLS:
            assert _call_through(proxy, HARMLESS, name)
        reserved, descriptors = _reserved(doors), vitals(doors.pid).descriptors
        for number in range(tries * len(_KINDS)):
            kind = _KINDS[number % len(_KINDS)]
            name = list(_CALLS)[number % len(_CALLS)]
            harm = _harm(generator, kind, _CALLS[name][1])
            if not _call_through(proxy, harm, name) and kind != "held":
                failed.append((name, kind, harm))
            released = wait_until(lambda: _reserved(doors) <= reserved)
            slowest_release = max(slowest_release, released)
        counts = proxy.counts
        wait_until(lambda: vitals(doors.pid).descriptors <= descriptors)
    assert counts.cut >= tries
    assert counts.refused == tries
    assert failed == []
    record("calls over harmed connections", tries * len(_KINDS))
    record("reserved bytes back after each", slowest_release, unit="s", required="<= 1")


def test_many_connections_cut_at_once(doors: Doors) -> None:
    """Calls under way on every one of them: their memory and their descriptors are given back."""
    generator = np.random.default_rng(21)
    with chaos_proxy(doors.grpc) as proxy:
        assert _call_through(proxy, HARMLESS, "small")
        reserved, descriptors = _reserved(doors), vitals(doors.pid).descriptors
        proxy.harm(lambda _: Harm(cut_up_after=int(generator.integers(1, 5 * _MIB))))
        for _ in range(tier(short=3, soak=20)):
            with Client(proxy.address, timeout=1) as client, suppress(LosswireError):
                with client.stream() as stream:
                    futures = [stream.submit(_MEDIUM.item()) for _ in range(6)]
                for future in futures:
                    _MEDIUM.check(future.result(timeout=_TIMEOUT))
        wait_until(lambda: _reserved(doors) <= reserved)
        wait_until(lambda: vitals(doors.pid).descriptors <= descriptors)
