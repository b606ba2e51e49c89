"""Large arrays of any caller pass through shared memory automatically."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from losswire.client import (
    ArrayInput,
    AsyncClient,
    Client,
    Evaluation,
    EvaluationResult,
    InvalidArgumentError,
)
from losswire.client._calls.lease import Lease
from losswire.client._memory import mapping
from losswire.client._messages import thresholds
from tests.client.conftest import Call
from tests.client.memory.conftest import (
    BATCH,
    CLASSES,
    DRAW,
    LOGITS,
    evaluate,
    same,
)
from tests.support.harness import Child
from tests.support.mapped import mapped_regions

Array = npt.NDArray[Any]

_CALL, _CALL_ASYNC = Lease.call, Lease.call_async


def test_large_arrays_pass_through_regions_by_themselves(
    call: Call, sharing: Child, plain: EvaluationResult
) -> None:
    """An ordinary evaluation takes the fast way, into `out` when it is given."""
    result = call(sharing.address, "evaluate", "cross_entropy", BATCH, gradients=["input"])
    assert result.transport == "region"
    assert same(result, plain)
    result.gradients["input"] *= 2
    out = np.full_like(LOGITS, 7)
    options = {"gradients": ["input"], "out": {"input": out}}
    result = call(sharing.address, "evaluate", "cross_entropy", BATCH, **options)
    assert result.gradients["input"] is out
    assert same(result, plain)


def test_a_region_is_kept_for_the_next_call(sharing: Child, plain: EvaluationResult) -> None:
    """One region serves one call after the other, and results stay what they were."""
    before = mapped_regions()
    with Client(sharing.address) as client:
        results = [evaluate(client) for _ in range(5)]
        assert mapped_regions() - before == 1
        assert all(same(each, plain) for each in results)


@pytest.mark.parametrize(
    "change",
    [
        np.asfortranarray,
        lambda x: np.repeat(x, 2, axis=1)[:, ::2],
        lambda x: x.astype(">f4"),
        lambda x: x[::-1][::-1],
    ],
    ids=["fortran", "strided", "big-endian", "view"],
)
def test_any_layout_passes_through(
    sharing: Child, plain: EvaluationResult, change: Callable[[Array], Array]
) -> None:
    """Strides and byte order are those of the wire afterwards."""
    with Client(sharing.address) as client:
        batch: dict[str, ArrayInput] = {**BATCH, "input": change(LOGITS)}
        result = client.evaluate("cross_entropy", batch, gradients=["input"])
        assert result.transport == "region"
        assert same(result, plain)


def test_everything_large_passes_through(sharing: Child) -> None:
    """Upstream gradients and weights as large as the inputs need no message of their size."""
    huge = DRAW.random((1000, 1000))
    fields: dict[str, Any] = {"grad_output": huge, "sample_weight": huge, "reduction": "none"}
    with Client(sharing.address) as client:
        result = client.evaluate(
            "mse_loss", {"input": huge, "target": huge + 1}, gradients=["input", "target"], **fields
        )
    assert result.transport == "region"
    np.testing.assert_allclose(result.gradients["target"], 2 * huge * huge, rtol=1e-12)
    np.testing.assert_array_equal(result.gradients["input"], -result.gradients["target"])


def test_what_is_small_goes_in_one_message(sharing: Child) -> None:
    """Below the threshold no region is made."""
    before = mapped_regions()
    with Client(sharing.address) as client:
        small: dict[str, ArrayInput] = {"input": LOGITS[:20], "target": CLASSES[:20]}
        assert client.evaluate("cross_entropy", small, gradients=["input"]).transport == "unary"
        assert mapped_regions() == before


def test_the_ways_are_told(sharing: Child) -> None:
    """Each result tells the way that it took."""
    small = Evaluation("cross_entropy", {"input": LOGITS[:2], "target": CLASSES[:2]})
    with Client(sharing.address) as client:
        [many] = client.evaluate_many([small])
        assert isinstance(many, EvaluationResult)
        assert many.transport == "many"
        with client.stream() as stream:
            assert stream.submit(small).result().transport == "stream"
        large = np.zeros((10_000, 500), np.float32)
        seen: list[tuple[int, int]] = []
        result = client.evaluate(
            "mse_loss",
            {"input": large, "target": large},
            progress=lambda done, rows: seen.append((done, rows)),
        )
        assert (result.transport, seen[-1]) == ("chunked", (10_000, 10_000))


@pytest.fixture
def by_lease(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Notes of each call whether a lease carried it."""
    noted: list[bool] = []

    def watched(answer: bytes | None) -> bytes | None:
        noted.append(answer is not None)
        return answer

    def call(lease: Lease, request: bytes, seconds: float) -> bytes | None:
        return watched(_CALL(lease, request, seconds))

    async def call_async(lease: Lease, request: bytes, seconds: float) -> bytes | None:
        return watched(await _CALL_ASYNC(lease, request, seconds))

    monkeypatch.setattr(Lease, "call", call)
    monkeypatch.setattr(Lease, "call_async", call_async)
    return noted


def test_what_lies_in_regions_is_called_over_their_leases(
    call: Call, sharing: Child, by_lease: list[bool]
) -> None:
    """Pooled regions and the caller's alike, from both clients; a plain message goes by gRPC."""
    call(sharing.address, "evaluate", "cross_entropy", BATCH, gradients=["input"])
    assert by_lease == [True]
    by_lease.clear()
    call(sharing.address, "evaluate", "cross_entropy", {"input": np.eye(3), "target": np.arange(3)})
    assert not by_lease
    with Client(sharing.address) as client, client.region(6 * LOGITS.nbytes) as region:
        logits, out = region.array(LOGITS.shape), region.array(LOGITS.shape)
        logits[...] = LOGITS
        for _ in range(3):
            inputs = {**BATCH, "input": logits}
            client.evaluate("cross_entropy", inputs, gradients=["input"], out={"input": out})
        assert by_lease == [True] * 3
        # A call with progress has nothing copied, and these classes are longer than a lease
        # carries.
        many = region.array((100_000, 2))
        classes = np.zeros(len(many), int)
        inputs = {"input": many, "target": classes}
        client.evaluate("cross_entropy", inputs, progress=lambda _, __: None)
    assert by_lease == [True] * 3 + [False]


def test_a_server_whose_leases_carry_nothing(
    sharing: Child,
    plain: EvaluationResult,
    by_lease: list[bool],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The answer to CreateRegion says so, by default."""
    monkeypatch.setattr(mapping, "Lease", lambda connection, _, end: Lease(connection, 0, end))
    with Client(sharing.address) as client:
        results = [evaluate(client) for _ in range(2)]
    assert by_lease == [False, False]
    assert all(same(each, plain) and each.transport == "region" for each in results)


def test_errors_are_those_of_any_other_way(call: Call, sharing: Child) -> None:
    """A wrong value is refused with its path, and the region serves the next call."""
    before = mapped_regions()
    wrong = CLASSES.copy()
    wrong[500] = 500
    with pytest.raises(InvalidArgumentError, match=r"class index 500 at \[500\]"):
        call(sharing.address, "evaluate", "cross_entropy", {**BATCH, "target": wrong})
    with pytest.raises(InvalidArgumentError, match="no gradient with respect to target"):
        call(sharing.address, "evaluate", "cross_entropy", BATCH, gradients=["target"])
    with Client(sharing.address) as client:
        for _ in range(3):
            with pytest.raises(InvalidArgumentError):
                client.evaluate("cross_entropy", {**BATCH, "target": wrong})
        assert mapped_regions() - before == 1
        with pytest.raises(ValueError, match="shares memory"):
            client.evaluate("cross_entropy", BATCH, gradients=["input"], out={"input": LOGITS})


def test_many_threads_share_a_client(sharing: Child) -> None:
    """Each call gives the gradient of its own numbers, whichever way it found free."""
    ways: set[str] = set()
    before = mapped_regions()

    def one(number: int) -> bool:
        scale = np.float32(1 + number % 7)
        result = client.evaluate(
            "mse_loss",
            {"input": LOGITS * scale, "target": np.zeros_like(LOGITS)},
            gradients=["input"],
            reduction="sum",
        )
        ways.add(result.transport)
        return bool((result.gradients["input"] == 2 * (LOGITS * scale)).all())

    with Client(sharing.address) as client, ThreadPoolExecutor(8) as pool:
        assert all(pool.map(one, range(80)))
        most = thresholds.MAX_STAGING_REGIONS + thresholds.MAX_LEASES
        assert 1 <= mapped_regions() - before <= most
    assert "region" in ways


def test_many_tasks_share_a_client(sharing: Child) -> None:
    """The same on an event loop, some of them cancelled at any point."""

    async def one(client: AsyncClient, number: int) -> bool:
        scale = np.float32(1 + number % 7)
        inputs = {"input": LOGITS * scale, "target": np.zeros_like(LOGITS)}
        call = client.evaluate("mse_loss", inputs, gradients=["input"], reduction="sum")
        if number % 3 == 0:
            with suppress(TimeoutError):
                await asyncio.wait_for(call, 0.001 * number)
            return True
        return bool(((await call).gradients["input"] == 2 * (LOGITS * scale)).all())

    async def run() -> None:
        async with AsyncClient(sharing.address) as client:
            for start in range(0, 24, 6):
                calls = (one(client, start + each) for each in range(6))
                assert all(await asyncio.gather(*calls))

    before = mapped_regions()
    asyncio.run(run())
    # Closing drops what is free, so that nothing was still in use.
    assert mapped_regions() == before


def test_resident_and_shared_go_together(sharing: Child) -> None:
    """A resident tensor is sent by reference, together with others in regions."""
    head = DRAW.standard_normal((300, 400)).astype(np.float32)
    hidden = DRAW.standard_normal((1000, 400)).astype(np.float32)
    with Client(sharing.address) as client:
        inputs: dict[str, ArrayInput] = {"input": hidden, "target": np.arange(1000) % 300}
        plainly = client.evaluate(
            "linear_cross_entropy", {**inputs, "linear_weight": head}, gradients=["input"]
        )
        named = client.put(head)
        named.delete()
        found = client.evaluate(
            "linear_cross_entropy", {**inputs, "linear_weight": named}, gradients=["input"]
        )
        assert (plainly.transport, found.transport) == ("region", "region")
        assert same(found, plainly)
