"""Shared memory in the SDK: in place for those who ask, by itself for those who do not."""

import asyncio
import gc
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from losswire.client import (
    ArrayInput,
    AsyncClient,
    CancelledError,
    Client,
    Evaluation,
    EvaluationResult,
    FailedPreconditionError,
    InvalidArgumentError,
    Region,
    ResourceExhaustedError,
    RetryPolicy,
    UnimplementedError,
)
from losswire.client._calls.lease import Lease
from losswire.client._calls.session import open_session
from losswire.client._memory import mapping as _shared
from losswire.client._memory import placement as client_placement
from losswire.client._memory import regions as client_regions
from losswire.client._memory import staging
from tests.client.conftest import Call
from tests.support.harness import Child
from tests.support.scripted import Scripted

Array = npt.NDArray[Any]

_DRAW = np.random.default_rng(3)
_ROWS, _WIDTH = 600, 500
_LOGITS = _DRAW.standard_normal((_ROWS, _WIDTH)).astype(np.float32)
_CLASSES = _DRAW.integers(0, _WIDTH, _ROWS)
_BATCH: dict[str, ArrayInput] = {"input": _LOGITS, "target": _CLASSES}
_CALL, _CALL_ASYNC = Lease.call, Lease.call_async
_QUICK = RetryPolicy(initial_backoff=0.01, max_backoff=0.1)


@pytest.fixture(scope="module")
def sharing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Child]:
    """A server with regions, as by default."""
    with Child(tmp_path_factory.mktemp("sharing") / "log", "--memory-budget-mib", "512") as child:
        yield child


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EvaluationResult]:
    """What the ordinary way gives."""
    log = tmp_path_factory.mktemp("plain") / "log"
    with Child(log, "--region-quota-mib", "0") as child, Client(child.address) as client:
        result = _evaluate(client)
        assert result.transport == "unary"
        yield result


def _evaluate(client: Client, **options: Any) -> EvaluationResult:  # noqa: ANN401 (any option)
    return client.evaluate("cross_entropy", _BATCH, gradients=["input"], **options)


def _same(found: EvaluationResult, expected: EvaluationResult) -> bool:
    return (
        found.loss.tobytes() == expected.loss.tobytes()
        and found.gradients["input"].tobytes() == expected.gradients["input"].tobytes()
    )


def test_arrays_in_a_region_are_used_in_place(sharing: Child, plain: EvaluationResult) -> None:
    """Inputs are read and gradients written where they lie, with the bits of any other way."""
    with Client(sharing.address) as client, client.region(2 * _LOGITS.nbytes + 8192) as region:
        logits, out = region.array(_LOGITS.shape), region.array(_LOGITS.shape)
        classes = region.array(_ROWS, np.int64)
        logits[...], classes[...] = _LOGITS, _CLASSES
        for _ in range(3):
            out[...] = 7
            result = client.evaluate(
                "cross_entropy",
                {"input": logits, "target": classes},
                gradients=["input"],
                out={"input": out},
            )
            assert result.transport == "region"
            assert result.gradients["input"] is out
            assert _same(result, plain)
        assert client._regions._staging.count == 0


def test_known_places_are_told_apart(sharing: Child, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once composed, a request goes again for the same places and forms, and for no others."""
    composed: list[int] = []
    compose = client_placement.Placement.operation

    def counted(placement: Any, leases: Any) -> Any:  # noqa: ANN401 (the method's own)
        composed.append(1)
        return compose(placement, leases)

    monkeypatch.setattr(client_placement.Placement, "operation", counted)
    square = _LOGITS[:400, :400]
    classes = _CLASSES[:400] % 400
    with Client(sharing.address) as client, client.region(6 * square.nbytes) as region:
        first, second, out = (region.array(square.shape) for _ in range(3))
        first[...], second[...] = square, square + square.T
        other = np.ascontiguousarray(classes[::-1])
        # The transposed array lies at the same address, with the same shape.
        for logits in (first, second, first.T):
            for target in (classes, other):
                for into in (None, {"input": out}):
                    for options in ({}, {"label_smoothing": 0.5}, {"ignore_index": 3}):
                        ask = partial(client.evaluate, "cross_entropy", gradients=["input"])
                        inputs = {"input": logits, "target": target}
                        results = [ask(inputs, options, out=into) for _ in range(2)]
                        found = [each.gradients["input"].copy() for each in results]
                        plain = ask({"input": logits.copy(), "target": target}, options)
                        for gradient in found:
                            np.testing.assert_array_equal(gradient, plain.gradients["input"])
        before = len(composed)
        for scale in (1, 2, 3):
            first[...] = square * scale
            result = client.evaluate(
                "cross_entropy",
                {"input": first, "target": classes},
                gradients=["input"],
                out={"input": out},
            )
            assert (result.transport, result.gradients["input"] is out) == ("region", True)
        assert len(composed) == before
        out.flags.writeable = False
        with pytest.raises(ValueError, match="writable"):
            client.evaluate(
                "cross_entropy",
                {"input": first, "target": classes},
                gradients=["input"],
                out={"input": out},
            )


def test_what_is_small_is_sent_wherever_it_lies(sharing: Child) -> None:
    """That takes less time; where a gradient is to go to a region, all is used in place."""
    inputs: dict[str, Any] = {"input": _LOGITS[:32, :10].copy(), "target": _CLASSES[:32] % 10}
    with Client(sharing.address) as client:
        ways = [client.evaluate("cross_entropy", inputs).transport for _ in range(2)]
        with client.region(8192) as region:
            placed = {name: region.array(each.shape, each.dtype) for name, each in inputs.items()}
            for name, each in inputs.items():
                placed[name][...] = each
            ways += [client.evaluate("cross_entropy", each).transport for each in (placed, inputs)]
            out = {"input": region.array((32, 10))}
            for _ in range(3):
                into = client.evaluate("cross_entropy", placed, gradients=["input"], out=out)
                sent = client.evaluate("cross_entropy", inputs, gradients=["input"])
                assert _same(into, sent)
                ways += [into.transport, sent.transport]
        ways.append(client.evaluate("cross_entropy", inputs).transport)
    assert ways == ["unary", "unary", "local", "local", *3 * ("region", "local"), "unary"]


def test_the_async_client_has_regions_too(sharing: Child, plain: EvaluationResult) -> None:
    """The same, with awaits."""

    async def run() -> None:
        async with AsyncClient(sharing.address) as client:
            with await client.region(2 * _LOGITS.nbytes) as region:
                logits, out = region.array(_LOGITS.shape), region.array(_LOGITS.shape)
                logits[...] = _LOGITS
                batch = {"input": logits, "target": _CLASSES}
                result = await client.evaluate(
                    "cross_entropy", batch, gradients=["input"], out={"input": out}
                )
                assert (result.transport, result.gradients["input"] is out) == ("region", True)
                assert _same(result, plain)

    asyncio.run(run())


def test_large_arrays_pass_through_regions_by_themselves(
    call: Call, sharing: Child, plain: EvaluationResult
) -> None:
    """An ordinary evaluation takes the fast way, into `out` when it is given."""
    result = call(sharing.address, "evaluate", "cross_entropy", _BATCH, gradients=["input"])
    assert result.transport == "region"
    assert _same(result, plain)
    result.gradients["input"] *= 2
    out = np.full_like(_LOGITS, 7)
    options = {"gradients": ["input"], "out": {"input": out}}
    result = call(sharing.address, "evaluate", "cross_entropy", _BATCH, **options)
    assert result.gradients["input"] is out
    assert _same(result, plain)


def test_a_region_is_kept_for_the_next_call(sharing: Child, plain: EvaluationResult) -> None:
    """One region serves one call after the other, and results stay what they were."""
    with Client(sharing.address) as client:
        results = [_evaluate(client) for _ in range(5)]
        assert client._regions._staging.count == 1
        assert all(_same(each, plain) for each in results)


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
        batch: dict[str, ArrayInput] = {**_BATCH, "input": change(_LOGITS)}
        result = client.evaluate("cross_entropy", batch, gradients=["input"])
        assert result.transport == "region"
        assert _same(result, plain)


def test_everything_large_passes_through(sharing: Child) -> None:
    """Upstream gradients and weights as large as the inputs need no message of their size."""
    huge = _DRAW.random((1000, 1000))
    fields: dict[str, Any] = {"grad_output": huge, "sample_weight": huge, "reduction": "none"}
    with Client(sharing.address) as client:
        result = client.evaluate(
            "mse_loss", {"input": huge, "target": huge + 1}, gradients=["input", "target"], **fields
        )
    assert result.transport == "region"
    np.testing.assert_allclose(result.gradients["target"], 2 * huge * huge, rtol=1e-12)
    np.testing.assert_array_equal(result.gradients["input"], -result.gradients["target"])


def test_what_is_small_goes_in_one_message(sharing: Child) -> None:
    """Below the threshold nothing is looked for."""
    with Client(sharing.address) as client:
        small: dict[str, ArrayInput] = {"input": _LOGITS[:20], "target": _CLASSES[:20]}
        assert client.evaluate("cross_entropy", small, gradients=["input"]).transport == "unary"
        assert client._session.server is None


def test_the_ways_are_told(sharing: Child) -> None:
    """Each result tells the way that it took."""
    small = Evaluation("cross_entropy", {"input": _LOGITS[:2], "target": _CLASSES[:2]})
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
    """Whoever they belong to, from both clients; what is sent as a whole goes by gRPC."""
    call(sharing.address, "evaluate", "cross_entropy", _BATCH, gradients=["input"])
    assert by_lease == [True]
    by_lease.clear()
    call(sharing.address, "evaluate", "cross_entropy", {"input": np.eye(3), "target": np.arange(3)})
    assert not by_lease
    with Client(sharing.address) as client, client.region(6 * _LOGITS.nbytes) as region:
        logits, out = region.array(_LOGITS.shape), region.array(_LOGITS.shape)
        logits[...] = _LOGITS
        for _ in range(3):
            inputs = {**_BATCH, "input": logits}
            client.evaluate("cross_entropy", inputs, gradients=["input"], out={"input": out})
        assert by_lease == [True] * 3
        # Whoever wants progress has nothing copied, and these classes are longer than what a
        # lease carries.
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
    monkeypatch.setattr(_shared, "Lease", lambda connection, _, end: Lease(connection, 0, end))
    with Client(sharing.address) as client:
        results = [_evaluate(client) for _ in range(2)]
    assert by_lease == [False, False]
    assert all(_same(each, plain) and each.transport == "region" for each in results)


def test_errors_are_those_of_any_other_way(call: Call, sharing: Child) -> None:
    """A wrong value is refused with its path, and the region serves the next call."""
    wrong = _CLASSES.copy()
    wrong[500] = 500
    with pytest.raises(InvalidArgumentError, match=r"class index 500 at \[500\]"):
        call(sharing.address, "evaluate", "cross_entropy", {**_BATCH, "target": wrong})
    with pytest.raises(InvalidArgumentError, match="no gradient with respect to target"):
        call(sharing.address, "evaluate", "cross_entropy", _BATCH, gradients=["target"])
    with Client(sharing.address) as client:
        for _ in range(3):
            with pytest.raises(InvalidArgumentError):
                client.evaluate("cross_entropy", {**_BATCH, "target": wrong})
        assert client._regions._staging.count == 1
        with pytest.raises(ValueError, match="shares memory"):
            client.evaluate("cross_entropy", _BATCH, gradients=["input"], out={"input": _LOGITS})


def test_many_threads_share_a_client(sharing: Child) -> None:
    """Each call gives the gradient of its own numbers, whichever way it found free."""
    ways: set[str] = set()

    def one(number: int) -> bool:
        scale = np.float32(1 + number % 7)
        result = client.evaluate(
            "mse_loss",
            {"input": _LOGITS * scale, "target": np.zeros_like(_LOGITS)},
            gradients=["input"],
            reduction="sum",
        )
        ways.add(result.transport)
        return bool((result.gradients["input"] == 2 * (_LOGITS * scale)).all())

    with Client(sharing.address) as client, ThreadPoolExecutor(8) as pool:
        assert all(pool.map(one, range(80)))
        assert client._regions._staging.count <= staging._MOST
    assert "region" in ways


def test_many_tasks_share_a_client(sharing: Child) -> None:
    """The same on an event loop, some of them cancelled at any point."""

    async def one(client: AsyncClient, number: int) -> bool:
        scale = np.float32(1 + number % 7)
        inputs = {"input": _LOGITS * scale, "target": np.zeros_like(_LOGITS)}
        call = client.evaluate("mse_loss", inputs, gradients=["input"], reduction="sum")
        if number % 3 == 0:
            with suppress(TimeoutError):
                await asyncio.wait_for(call, 0.001 * number)
            return True
        return bool(((await call).gradients["input"] == 2 * (_LOGITS * scale)).all())

    async def run() -> None:
        async with AsyncClient(sharing.address) as client:
            for start in range(0, 24, 6):
                calls = (one(client, start + each) for each in range(6))
                assert all(await asyncio.gather(*calls))
            kept = client._regions._staging
            assert kept.count == len(kept._free)

    asyncio.run(run())


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_server_that_was_started_again(
    tmp_path: Path, plain: EvaluationResult, *, asynchronous: bool
) -> None:
    """Kept regions are made anew; the caller's own are sent like any other arrays."""
    listen = f"unix:{tmp_path / 'server.sock'}"
    facts: dict[str, Any] = {"retry": _QUICK}
    batch: dict[str, Any] = {**_BATCH}

    async def run(steps: list[partial[Child]]) -> None:
        async with AsyncClient(listen, **facts) as client:
            with steps[0]():
                region = await client.region(2 * _LOGITS.nbytes)
                logits, out = region.array(_LOGITS.shape), region.array(_LOGITS.shape)
                logits[...] = _LOGITS
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
        assert _same(again, plain)
        assert _same(own, plain)

    start = [partial(Child, tmp_path / name, listen=listen) for name in ("a", "b")]
    if asynchronous:
        asyncio.run(run(start))
        return
    with Client(listen, **facts) as client:
        with start[0]():
            region = client.region(2 * _LOGITS.nbytes)
            logits, out = region.array(_LOGITS.shape), region.array(_LOGITS.shape)
            logits[...] = _LOGITS
            _evaluate(client)
        with start[1]():
            own = client.evaluate(
                "cross_entropy", {**batch, "input": logits}, gradients=["input"], out={"input": out}
            )
            assert region.lost
            again = _evaluate(client)
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
    """What hinders regions is not told to those who did not ask, nor tried for each call."""
    path = tmp_path / "regions.sock"
    with Child(tmp_path / "log", "--region-socket", str(path)) as child:
        spoil(path)
        with Client(child.address) as client:
            results = [_evaluate(client) for _ in range(3)]
            assert [each.transport for each in results] == ["unary"] * 3
            assert all(_same(each, plain) for each in results)
            assert client._regions._staging._not_before > 0
            with pytest.raises(FailedPreconditionError) as raised:
                client.region(1)
            assert raised.value.reason == "REGION_UNREACHABLE"
        if path.exists():
            path.unlink()


def test_over_the_quota_the_ordinary_way_remains(tmp_path: Path, plain: EvaluationResult) -> None:
    """A region that is too large for the server is an error only for those who asked."""
    with (
        Child(tmp_path / "log", "--region-quota-mib", "2") as child,
        Client(child.address) as client,
    ):
        result = _evaluate(client)
        assert (result.transport, _same(result, plain)) == ("unary", True)
        assert client._regions._staging._not_before == 0
        with pytest.raises(ResourceExhaustedError, match="quota"):
            client.region(3 << 20)
        assert client.region(1 << 20).nbytes == 1 << 20


def test_a_server_without_regions(echoing: Scripted) -> None:
    """Asking for one says why there is none."""
    with Client(echoing.address) as client, pytest.raises(UnimplementedError, match="no memory"):
        client.region(1)


def test_elsewhere_there_are_no_regions(sharing: Child, monkeypatch: pytest.MonkeyPatch) -> None:
    """On another system nothing is tried."""
    monkeypatch.setattr(staging, "HAVE_REGIONS", False)
    monkeypatch.setattr(client_regions, "HAVE_REGIONS", False)
    with Client(sharing.address) as client:
        assert _evaluate(client).transport == "unary"
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


def test_a_region_belongs_to_one_server() -> None:
    """With several targets nobody could tell which."""
    with Client("127.0.0.1:1,127.0.0.1:2") as client, pytest.raises(ValueError, match="one server"):
        client.region(1)


@pytest.mark.parametrize("size", [0, -1, 1.5, True, "1"])
def test_sizes_are_numbers_of_bytes(size: Any) -> None:  # noqa: ANN401 (wrong on purpose)
    """What is no size is refused without a server."""
    with Client("127.0.0.1:1") as client, pytest.raises(ValueError, match="nbytes"):
        client.region(size)


def test_arrays_of_a_region(sharing: Child) -> None:
    """They are aligned, clear and apart, of any type, and no more than there is room for."""
    with Client(sharing.address) as client, client.region(4096) as region:
        arrays = [region.array(3), region.array((2, 2), "int64"), region.array((), bool)]
        assert [each.ctypes.data % 64 for each in arrays] == [0, 0, 0]
        assert [(each.shape, each.dtype.name) for each in arrays] == [
            ((3,), "float32"),
            ((2, 2), "int64"),
            ((), "bool"),
        ]
        assert not any(each.any() for each in arrays)
        for wrong in (4096, (2**40, 2**40), -1):
            with pytest.raises(ValueError, match="array: "):
                region.array(wrong, np.uint8)
        region.array(4096 - 3 * 64, np.uint8)
        with pytest.raises(ValueError, match="0 left"):
            region.array(1)
    with pytest.raises(ValueError, match="closed"):
        region.array(1)
    assert "closed" in repr(region)


def test_arrays_outlive_their_region(sharing: Child, plain: EvaluationResult) -> None:
    """A result in a region that was closed, by a client that was closed, is still the result."""
    with Client(sharing.address) as client, client.region(_LOGITS.nbytes) as region:
        out = region.array(_LOGITS.shape)
        result = _evaluate(client, out={"input": out})
        assert result.transport == "region"
    with Client(sharing.address) as client:
        held = _held(sharing)
        assert _same(result, plain)
        del result, out, region
        gc.collect()
        assert _eventually(lambda: _held(sharing) < held)


def _held(child: Child) -> int:
    """Count the descriptors of a server: each region has some."""
    return sum(1 for _ in Path(f"/proc/{child.process.pid}/fd").iterdir())


def _eventually(condition: Callable[[], bool]) -> bool:
    waiting = threading.Event()
    return any(condition() or waiting.wait(0.01) for _ in range(500))


def test_closing_gives_everything_back(sharing: Child) -> None:
    """Clients that come and go leave neither side with descriptors."""
    here = there = 0
    for round_ in range(6):
        with Client(sharing.address) as client:
            _evaluate(client)
            client.region(1 << 20)
        if round_ == 1:
            assert _eventually(lambda: client._regions._staging.count == 0)
            here, there = len(os.listdir("/proc/self/fd")), _held(sharing)  # noqa: PTH208
    gc.collect()
    assert _eventually(lambda: _held(sharing) <= there)
    assert len(os.listdir("/proc/self/fd")) <= here + 2  # noqa: PTH208


def test_a_closed_client_shares_nothing(sharing: Child) -> None:
    """After `close`, regions are refused like any other call."""
    client = Client(sharing.address)
    region: Region = client.region(4096)
    client.close()
    with pytest.raises(ValueError, match="closed"):
        region.array(1)
    with pytest.raises((RuntimeError, CancelledError)):
        client.region(1)


def test_resident_and_shared_go_together(sharing: Child) -> None:
    """A tensor that stays on the server is named, beside those that lie in regions."""
    head = _DRAW.standard_normal((300, 400)).astype(np.float32)
    hidden = _DRAW.standard_normal((1000, 400)).astype(np.float32)
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
        assert _same(found, plainly)


def test_regions_heal_when_one_of_several_answers(sharing: Child, tmp_path: Path) -> None:
    """A server that does not know a region that was just made is not asked again at once."""
    with Child(tmp_path / "log") as other, Client(sharing.address) as client:
        del other
        _evaluate(client)
        memory = client._regions._staging._free[0]
        memory.region_id += 1
        assert _evaluate(client).transport == "region"
        assert client._regions._staging.count == 1
        assert client._regions._staging._free[0] is not memory
