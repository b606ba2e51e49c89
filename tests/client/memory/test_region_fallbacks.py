"""Whatever hinders shared memory, the ordinary way by gRPC remains."""

import asyncio
import gc
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from losswire.client import (
    AsyncClient,
    Client,
    EvaluationResult,
    FailedPreconditionError,
    ResourceExhaustedError,
    UnimplementedError,
)
from losswire.client._calls.session import open_session
from losswire.client._memory import mapping
from losswire.client._memory.mapping import SharedMemory
from tests.client.memory.conftest import (
    BATCH,
    LOGITS,
    QUICK,
    evaluate,
    same,
)
from tests.support.harness import Child
from tests.support.mapped import descriptors, eventually, mapped_regions

Array = npt.NDArray[Any]


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_server_that_was_started_again(
    tmp_path: Path, plain: EvaluationResult, *, asynchronous: bool
) -> None:
    """Kept regions are made anew; the caller's own are sent like any other arrays."""
    listen = f"unix:{tmp_path / 'server.sock'}"
    facts: dict[str, Any] = {"retry": QUICK}
    batch: dict[str, Any] = {**BATCH}

    async def run(steps: list[partial[Child]]) -> None:
        async with AsyncClient(listen, **facts) as client:
            with steps[0]():
                region = await client.region(2 * LOGITS.nbytes)
                logits, out = region.array(LOGITS.shape), region.array(LOGITS.shape)
                logits[...] = LOGITS
                await client.evaluate("cross_entropy", batch, gradients=["input"])
            with steps[1]():
                again = await client.evaluate("cross_entropy", batch, gradients=["input"])
                own = await client.evaluate(
                    "cross_entropy",
                    {**batch, "input": logits},
                    gradients=["input"],
                    out={"input": out},
                )
                assert region.lost
                check(again, own, out)
            region.close()

    def check(again: EvaluationResult, own: EvaluationResult, out: Array) -> None:
        assert (again.transport, own.transport) == ("region", "region")
        assert own.gradients["input"] is out
        assert same(again, plain)
        assert same(own, plain)

    start = [partial(Child, tmp_path / name, listen=listen) for name in ("a", "b")]
    if asynchronous:
        asyncio.run(run(start))
        return
    with Client(listen, **facts) as client:
        with start[0]():
            region = client.region(2 * LOGITS.nbytes)
            logits, out = region.array(LOGITS.shape), region.array(LOGITS.shape)
            logits[...] = LOGITS
            evaluate(client)
        with start[1]():
            own = client.evaluate(
                "cross_entropy", {**batch, "input": logits}, gradients=["input"], out={"input": out}
            )
            assert region.lost
            again = evaluate(client)
            check(again, own, out)


def _unlink(path: Path) -> None:
    path.unlink()


def _deaf(path: Path) -> None:
    path.unlink()
    path.write_text("not a socket")


@pytest.mark.parametrize("spoil", [_unlink, _deaf])
def test_without_the_socket_the_ordinary_way_remains(
    tmp_path: Path, plain: EvaluationResult, spoil: Callable[[Path], None]
) -> None:
    """Without regions an ordinary call succeeds, and `region` says why there are none."""
    path = tmp_path / "regions.sock"
    with Child(tmp_path / "log", "--region-socket", str(path)) as child:
        spoil(path)
        with Client(child.address) as client:
            results = [evaluate(client) for _ in range(3)]
            assert [each.transport for each in results] == ["unary"] * 3
            assert all(same(each, plain) for each in results)
            with pytest.raises(FailedPreconditionError) as raised:
                client.region(1)
            assert raised.value.reason == "REGION_UNREACHABLE"
        if path.exists():
            path.unlink()


def test_over_the_quota_the_ordinary_way_remains(tmp_path: Path, plain: EvaluationResult) -> None:
    """A region that is too large for the server is an error of `region` only."""
    with (
        Child(tmp_path / "log", "--region-quota-mib", "2") as child,
        Client(child.address) as client,
    ):
        result = evaluate(client)
        assert (result.transport, same(result, plain)) == ("unary", True)
        with pytest.raises(ResourceExhaustedError, match="quota"):
            client.region(3 << 20)
        assert client.region(1 << 20).nbytes == 1 << 20


def test_elsewhere_there_are_no_regions(sharing: Child, monkeypatch: pytest.MonkeyPatch) -> None:
    """On another system nothing is tried."""
    monkeypatch.setattr(mapping, "HAVE_REGIONS", False)
    with Client(sharing.address) as client:
        assert evaluate(client).transport == "unary"
        with pytest.raises(UnimplementedError, match="Linux"):
            client.region(1)


@pytest.mark.parametrize(
    ("target", "local"),
    [
        ("127.0.0.1:1", True),
        ("127.8.8.8:1", True),
        ("[::1]:1", True),
        ("localhost:1", True),
        ("unix:/run/losswire.sock", True),
        ("127.0.0.1:1,127.0.0.1:2", False),
        ("10.0.0.1:1", False),
        ("localhost.example:1", False),
        ("dns:///localhost:1", False),
        ("[::2]:1", False),
    ],
)
def test_what_is_on_this_machine(target: str, *, local: bool) -> None:
    """Arrays pass through regions by themselves only where the name says it."""
    assert open_session(target, 1.0, None, None).same_host == local


def test_closing_gives_everything_back(sharing: Child) -> None:
    """Clients that come and go leave neither side with descriptors."""
    here = there = 0
    before = mapped_regions()
    for round_ in range(6):
        with Client(sharing.address) as client:
            evaluate(client)
            client.region(1 << 20)
        if round_ == 1:
            assert eventually(lambda: mapped_regions() == before)
            here, there = descriptors(os.getpid()), descriptors(sharing.process.pid)
    gc.collect()
    assert eventually(lambda: descriptors(sharing.process.pid) <= there)
    assert descriptors(os.getpid()) <= here + 2


def test_regions_heal_when_the_server_does_not_know_them(
    sharing: Child, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A region that was used before is replaced, and the call succeeds all the same."""
    used: list[SharedMemory] = []
    view = SharedMemory.view

    def watched(memory: SharedMemory, *arguments: Any) -> Array:  # noqa: ANN401 (the method's own)
        used.append(memory)
        return view(memory, *arguments)

    monkeypatch.setattr(SharedMemory, "view", watched)
    before = mapped_regions()
    with Client(sharing.address) as client:
        evaluate(client)
        used[0].region_id += 1
        assert evaluate(client).transport == "region"
        first, last = used[0], used[-1]
        assert last is not first
        assert mapped_regions() - before == 1


def test_a_batch_that_is_too_much_as_a_whole(tmp_path: Path) -> None:
    """What the server could never evaluate at once is evaluated in parts, as without regions."""
    budget = ("--memory-budget-mib", "512", "--region-quota-mib")
    rows = np.arange(6000 * 1024, dtype=np.float32).reshape(6000, 1024) % 7
    with Child(tmp_path / "log", *budget, "128") as server, Client(server.address) as client:
        alone = client.evaluate("mse_loss", {"input": rows, "target": rows + 2})
        assert (float(alone.loss), alone.transport) == (4.0, "region")
        for _ in range(2):
            found = client.evaluate(
                "mse_loss", {"input": rows, "target": rows + 2}, gradients=["input"]
            )
            assert (float(found.loss), found.transport) == (4.0, "chunked")
            assert np.array_equal(found.gradients["input"], np.full_like(rows, -4 / rows.size))


def test_a_batch_whose_message_can_never_fit_goes_in_parts(tmp_path: Path) -> None:
    """The parts of a batch take less of a small budget than one message with all of it."""
    arrays = np.random.default_rng(3).standard_normal((2, 700, 1000), dtype=np.float32)
    batch: dict[str, Any] = {"input": arrays[0], "target": arrays[1]}
    settings = ("--memory-budget-mib", "16", "--region-quota-mib", "0")
    with Child(tmp_path / "log", *settings) as server, Client(server.address) as client:
        result = client.evaluate("mse_loss", batch, gradients=["input"])
    assert result.transport == "chunked"
    difference = arrays[0].astype(np.float64) - arrays[1]
    assert float(result.loss) == pytest.approx(np.mean(difference**2), rel=1e-5)
    np.testing.assert_allclose(
        result.gradients["input"], 2 * difference / difference.size, rtol=1e-5, atol=1e-12
    )
