"""A summary against real servers that die in the middle of it."""

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from losswire.client import AsyncClient, Client, Comparison, Summary
from tests.conftest import THOROUGH
from tests.support.harness import Child

_ROUNDS = 10 if THOROUGH else 2
"""How often a server dies in each way."""

_ROWS = 20_000
_BATCHES = 40


def _batch(number: int) -> dict[str, Any]:
    rng = np.random.default_rng(number)
    rows = _ROWS + number  # ragged
    return {
        "a": rng.standard_normal((rows, 10)).astype(np.float32),
        "b": rng.standard_normal((rows, 10)).astype(np.float32),
        "target": rng.integers(0, 10, rows),
        "country": rng.integers(0, 7, rows),
        "w": rng.random(rows).astype(np.float32),
        "doc": np.arange(rows) // 100 + 1000 * number,
    }


_FIELDS: dict[str, Any] = {"slices": ["country"], "sample_weight": "w", "partition": "data"}
_CLUSTERS: dict[str, Any] = {"cluster": "doc", "clusters_grouped": True}


@pytest.fixture(scope="module")
def survivor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Child]:
    """A server that lives."""
    with Child(tmp_path_factory.mktemp("survivor") / "log", "--region-quota-mib", "0") as child:
        yield child


@pytest.fixture(scope="module")
def expected(survivor: Child) -> Summary:
    """The summary of a call that nothing disturbs."""
    with Client(survivor.address) as client:
        return client.summarize(
            "cross_entropy", map(_batch, range(_BATCHES)), columns={"input": "a"}, **_FIELDS
        )


def _dying(victim: Child, number: int, at: int) -> Iterator[dict[str, Any]]:
    """Yield the batches; the victim gets a signal after one of them."""
    for each in range(_BATCHES):
        if each == at:
            victim.process.send_signal(number)
        yield _batch(each)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["killed", "drained"])
@pytest.mark.parametrize("attempt", range(_ROUNDS))
def test_nothing_is_lost_or_counted_twice(
    survivor: Child, expected: Summary, tmp_path: Path, number: int, attempt: int
) -> None:
    """Whether a server is killed or drained, another one continues; the summary is the same."""
    victim = Child(tmp_path / "log", "--region-quota-mib", "0")
    try:
        with Client(f"{victim.address},{survivor.address}") as client:
            found = client.summarize(
                "cross_entropy",
                _dying(victim, number, 3 + 3 * attempt),
                columns={"input": "a"},
                **_FIELDS,
            )
    finally:
        victim.process.kill()
        victim.wait()
    assert found == expected


def test_a_comparison_continues(survivor: Child, tmp_path: Path) -> None:
    """Through the client for asyncio, and from data that is asynchronous."""
    candidates = {"a": {"input": "a"}, "b": {"input": "b"}}
    victim = Child(tmp_path / "log", "--region-quota-mib", "0")

    async def data() -> AsyncIterator[dict[str, Any]]:
        for each in _dying(victim, signal.SIGKILL, 11):
            yield each

    fields = {**_FIELDS, **_CLUSTERS, "candidates": candidates}

    async def run() -> Comparison:
        async with AsyncClient(f"{victim.address},{survivor.address}") as client:
            return await client.compare("cross_entropy", data(), **fields)

    try:
        found = asyncio.run(run())
    finally:
        victim.process.kill()
        victim.wait()
    with Client(survivor.address) as client:
        expected = client.compare("cross_entropy", map(_batch, range(_BATCHES)), **fields)
    ours, theirs = (each.message.total for each in (found, expected))
    assert ours.distributions == theirs.distributions
    assert ours.pairs == theirs.pairs
    assert found.included == expected.included
    # The clusters at which a call was continued stay open, so they are added up in another order.
    one, other = (each.difference("a", "b") for each in (found, expected))
    assert one.clustered
    assert one.standard_error == pytest.approx(other.standard_error, rel=1e-9)
