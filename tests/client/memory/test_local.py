"""Small evaluations on the server's own machine: without gRPC, once there are several."""

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from losswire.client import (
    ArrayInput,
    AsyncClient,
    Client,
    EvaluationResult,
    InvalidArgumentError,
    RetryPolicy,
)
from losswire.client._calls.operations import Steps
from losswire.client._calls.session import open_session
from losswire.client._memory.region_pool import RegionPool
from losswire.client._memory.regions import Regions
from losswire.client._messages import thresholds
from tests.support.harness import Child
from tests.support.mapped import descriptors, eventually, mapped_regions

_DRAW = np.random.default_rng(5)
_LOGITS = _DRAW.standard_normal((32, 10), dtype=np.float32)
_BATCH: dict[str, ArrayInput] = {"input": _LOGITS, "target": np.arange(32) % 10}
_REGRESSION: dict[str, ArrayInput] = {"input": _LOGITS, "target": _LOGITS[::-1].copy()}
_QUICK = RetryPolicy(initial_backoff=0.01, max_backoff=0.1)

_BEFORE = thresholds.LEASE_AFTER_CALLS
"""How many calls go by gRPC before."""

Many = Callable[[str, str, dict[str, ArrayInput], int], list[EvaluationResult]]


def _blocking(
    address: str, loss: str, inputs: dict[str, ArrayInput], count: int
) -> list[EvaluationResult]:
    with Client(address) as client:
        return [client.evaluate(loss, inputs, gradients=["input"]) for _ in range(count)]


def _asynchronous(
    address: str, loss: str, inputs: dict[str, ArrayInput], count: int
) -> list[EvaluationResult]:
    async def run() -> list[EvaluationResult]:
        async with AsyncClient(address) as client:
            return [await client.evaluate(loss, inputs, gradients=["input"]) for _ in range(count)]

    return asyncio.run(run())


@pytest.fixture(params=[_blocking, _asynchronous], ids=["Client", "AsyncClient"])
def many(request: pytest.FixtureRequest) -> Many:
    """Both clients in turn."""
    chosen: Many = request.param
    return chosen


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Child]:
    """A server as by default."""
    with Child(tmp_path_factory.mktemp("local") / "log") as child:
        yield child


def _ways(results: list[EvaluationResult]) -> list[str]:
    return [each.transport for each in results]


def _bits(result: EvaluationResult) -> tuple[bytes, bytes, float]:
    return result.loss.tobytes(), result.gradients["input"].tobytes(), result.sum


@pytest.mark.parametrize(
    ("loss", "inputs"), [("cross_entropy", _BATCH), ("mse_loss", _REGRESSION)], ids=["known", "not"]
)
def test_after_some_calls_grpc_is_left_aside(
    many: Many, server: Child, loss: str, inputs: dict[str, ArrayInput]
) -> None:
    """The results are the same, and tell the way."""
    results = many(server.address, loss, inputs, _BEFORE + 5)
    assert _ways(results) == ["unary"] * _BEFORE + ["local"] * 5
    assert len(set(map(_bits, results))) == 1


def test_errors_are_those_of_grpc(server: Child) -> None:
    """With their violations, by a known template or not, and the next call is as before."""
    wrong = {**_BATCH, "target": np.full(32, 10)}
    texts = set()
    with Client(server.address) as client:
        for _ in range(_BEFORE + 3):
            client.evaluate("cross_entropy", _BATCH)
            with pytest.raises(InvalidArgumentError, match="class index 10") as caught:
                client.evaluate("cross_entropy", wrong)
            error = caught.value
            texts.add((error.message, error.reason, error.violations))
            assert error.request_id
        assert client.evaluate("cross_entropy", _BATCH).transport == "local"
    assert len(texts) == 1


def test_nothing_is_left_behind(server: Child) -> None:
    """A client that is closed has no lease, and the server none of its memory."""
    before = mapped_regions()
    with Client(server.address) as client:
        for _ in range(_BEFORE + 1):
            client.evaluate("cross_entropy", _BATCH)
        assert mapped_regions() - before == 1
        held = descriptors(server.process.pid)
    assert eventually(lambda: descriptors(server.process.pid) < held)
    assert mapped_regions() == before


def test_threads_have_some_each(server: Child) -> None:
    """Calls at once open more, up to four, and each gets its own answer."""
    before = mapped_regions()
    with Client(server.address) as client, ThreadPoolExecutor(16) as pool:

        def one(number: int) -> bool:
            scaled = _LOGITS * np.float32(number)
            found = client.evaluate(
                "cross_entropy", {**_BATCH, "input": scaled}, gradients=["input"], reduction="sum"
            )
            alone = np.exp(scaled - scaled.max(1, keepdims=True))
            expected = alone / alone.sum(1, keepdims=True)
            expected[np.arange(32), np.arange(32) % 10] -= 1
            return bool(np.allclose(found.gradients["input"], expected, atol=1e-5))

        assert all(pool.map(one, range(800)))
        assert 1 <= mapped_regions() - before <= thresholds.MAX_LEASES


def test_tasks_share_them(server: Child) -> None:
    """As threads do; a call that finds none free goes by gRPC."""

    async def run() -> set[str]:
        async with AsyncClient(server.address) as client:
            found: set[str] = set()
            for _ in range(20):
                calls = [client.evaluate("cross_entropy", _BATCH) for _ in range(12)]
                found |= {each.transport for each in await asyncio.gather(*calls)}
            return found

    assert asyncio.run(run()) == {"unary", "local"}


@pytest.mark.parametrize("options", [("--region-quota-mib", "0"), ("--region-socket", "{}/none")])
def test_without_memory_that_is_shared_grpc_remains(
    many: Many,
    tmp_path: Path,
    options: tuple[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The server is asked once in a while, not with each call."""
    asked: list[int] = []
    add = RegionPool.add

    def counted(pool: RegionPool) -> Steps[None]:
        asked.append(1)
        return add(pool)

    monkeypatch.setattr(RegionPool, "add", counted)
    arguments = [each.format(tmp_path) for each in options]
    with Child(tmp_path / "log", *arguments) as child:
        (tmp_path / "none").unlink(missing_ok=True)
        results = many(child.address, "cross_entropy", _BATCH, _BEFORE + 20)
    assert set(_ways(results)) == {"unary"}
    assert len(asked) == 1


def test_a_server_that_was_started_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next call goes by gRPC, and those after it over a new lease."""
    monkeypatch.setattr(thresholds, "LEASE_PAUSE_SECONDS", 0.0)
    listen = f"unix:{tmp_path / 'server.sock'}"
    start = [partial(Child, tmp_path / name, listen=listen) for name in "ab"]
    with Client(listen, retry=_QUICK) as client:
        evaluate = partial(client.evaluate, "cross_entropy", _BATCH, gradients=["input"])
        with start[0]():
            first = [evaluate() for _ in range(_BEFORE + 1)]
        with start[1]():
            second = [evaluate() for _ in range(5)]
    assert first[-1].transport == "local"
    assert second[0].transport == "unary"
    assert second[-1].transport == "local"
    assert len(set(map(_bits, first + second))) == 1


def test_other_machines_are_not_asked() -> None:
    """A name that may be any machine's is taken to be another one's."""
    regions = Regions(open_session("dns:///localhost.localdomain:1", 60.0, None, None))
    assert not any(regions.want_lease(None) for _ in range(3 * _BEFORE))


def test_the_leases_of_own_regions_are_enough(server: Child) -> None:
    """None is opened beside them."""
    before = mapped_regions()
    with Client(server.address) as client, client.region(4096):
        ways = {client.evaluate("cross_entropy", _BATCH).transport for _ in range(3 * _BEFORE)}
        assert ways == {"local"}
        assert mapped_regions() - before == 1


def test_calls_in_a_hurry_open_none(server: Child) -> None:
    """Opening one takes time that such a call may not have."""
    with Client(server.address) as client:
        ways = {client.evaluate("cross_entropy", _BATCH, timeout=4).transport for _ in range(20)}
        assert ways == {"unary"}
        assert client.evaluate("cross_entropy", _BATCH).transport == "local"
        assert client.evaluate("cross_entropy", _BATCH, timeout=4).transport == "local"


def test_what_is_longer_than_a_lease_carries(server: Child) -> None:
    """It goes by gRPC, whatever is free."""
    with Client(server.address) as client:
        for _ in range(_BEFORE + 1):
            client.evaluate("cross_entropy", _BATCH)
        large = np.zeros((20_000, 2), np.float32)
        inputs = {"input": large, "target": np.zeros(len(large), int)}
        assert client.evaluate("cross_entropy", inputs).transport == "unary"
        assert client.evaluate("cross_entropy", _BATCH).transport == "local"
