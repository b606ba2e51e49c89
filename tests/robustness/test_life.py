"""Calls that are given up, or under way when their client, their loop or their server ends."""

import asyncio
import random
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import numpy as np
import pytest

from losswire.client import (
    AsyncClient,
    CancelledError,
    Client,
    DeadlineExceededError,
    Evaluation,
    Region,
)
from tests.support.harness import Child
from tests.support.soak import record, tier

_DRAW = np.random.default_rng(3)
_INPUT, _TARGET = (_DRAW.standard_normal((600, 500), dtype=np.float32) for _ in range(2))
_LARGE = {"input": _INPUT, "target": _TARGET}
_SMALL = {"input": _INPUT[:4], "target": _TARGET[:4]}
_ITEM = Evaluation("mse_loss", _SMALL)
_GRADIENT = 2 * (_INPUT - _TARGET) / _INPUT.size


def _mean(inputs: dict[str, Any]) -> float:
    return float(np.mean((inputs["input"].astype(float) - inputs["target"]) ** 2))


_LARGE_LOSS, _SMALL_LOSS = _mean(_LARGE), _mean(_SMALL)


def _near(found: Any, expected: float) -> bool:  # noqa: ANN401 (of any numeric type)
    return abs(float(found) - expected) < 1e-5 * expected


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server as by default."""
    with Child(tmp_path_factory.mktemp("life") / "log", "--memory-budget-mib=512") as child:
        yield child.address


@pytest.fixture(params=["server", "local"])
def target(request: pytest.FixtureRequest, server: str) -> str:
    """A server beside this process, and one in it."""
    return server if request.param == "server" else "local:?threads=1"


class _Held:
    """A client for asyncio, with arrays in shared memory and a stream."""

    def __init__(self, client: AsyncClient, region: Region) -> None:
        self.client = client
        self.region = region
        self.own = {name: region.array(each.shape) for name, each in _LARGE.items()}
        self.out = region.array(_INPUT.shape)
        for name, each in _LARGE.items():
            self.own[name][...] = each


@asynccontextmanager
async def _held(target: str) -> AsyncIterator[_Held]:
    async with AsyncClient(target, timeout=100) as client:
        for _ in range(10):
            await client.evaluate("mse_loss", _SMALL)
        yield _Held(client, await client.region(4 * _INPUT.nbytes))


async def _by_lease(held: _Held) -> bool:
    return _near((await held.client.evaluate("mse_loss", _SMALL)).loss, _SMALL_LOSS)


async def _by_grpc(held: _Held) -> bool:
    [found] = await held.client.evaluate_many([_ITEM])
    return _near(found.loss, _SMALL_LOSS)  # type: ignore[union-attr]


async def _by_copies(held: _Held) -> bool:
    found = await held.client.evaluate("mse_loss", _LARGE, gradients=["input"])
    right = np.allclose(found.gradients["input"], _GRADIENT, rtol=1e-4, atol=1e-9)
    return right and _near(found.loss, _LARGE_LOSS)


async def _in_region(held: _Held) -> bool:
    found = await held.client.evaluate(
        "mse_loss", held.own, gradients=["input"], out={"input": held.out}
    )
    right = np.allclose(held.out, _GRADIENT, rtol=1e-4, atol=1e-9)
    return right and _near(found.loss, _LARGE_LOSS)


async def _in_chunks(held: _Held) -> bool:
    found = await held.client.evaluate(
        "mse_loss", _LARGE, gradients=["input"], progress=lambda _, __: None
    )
    right = np.allclose(found.gradients["input"], _GRADIENT, rtol=1e-4, atol=1e-9)
    return right and _near(found.loss, _LARGE_LOSS)


async def _in_stream(held: _Held) -> bool:
    async with held.client.stream() as stream:
        futures = [await stream.submit(_ITEM) for _ in range(3)]
        return all([_near((await each).loss, _SMALL_LOSS) for each in futures])


async def _resident(held: _Held) -> bool:
    stored = await held.client.put(_TARGET[:4])
    found = await held.client.evaluate("mse_loss", {**_SMALL, "target": stored})
    return _near(found.loss, _SMALL_LOSS)


async def _in_summary(held: _Held) -> bool:
    return _near((await held.client.summarize("mse_loss", [_SMALL])).mean, _SMALL_LOSS)


_DOORS: dict[str, Callable[[_Held], Awaitable[bool]]] = {
    "lease": _by_lease,
    "gRPC": _by_grpc,
    "copies": _by_copies,
    "region": _in_region,
    "chunks": _in_chunks,
    "stream": _in_stream,
    "resident": _resident,
    "summary": _in_summary,
}


@pytest.mark.parametrize("door", _DOORS)
def test_tasks_that_are_given_up_change_nothing_for_later_ones(target: str, door: str) -> None:
    """`wait_for` of 0 to 20 ms, again and again: each result is right, and arrays stay."""
    tries = tier(short=15, soak=200)
    call = _DOORS[door]

    async def run() -> list[bool | None]:
        found: list[bool | None] = []
        async with _held(target) as held:
            for number in range(tries):
                try:
                    found.append(await asyncio.wait_for(call(held), 0.02 * number / tries))
                except TimeoutError:
                    found.append(None)
                if number % 5 == 4:
                    found.append(await call(held))
            found += [await call(held) for _ in range(3)]
            for name, each in held.own.items():
                found.append(np.array_equal(each, _LARGE[name]))
        return found

    found = asyncio.run(run())
    record(f"wrong results after tasks given up, {door}", found.count(False), required="0")
    assert False not in found
    assert True in found


@pytest.mark.parametrize("door", _DOORS)
def test_calls_under_way_when_their_client_closes(target: str, door: str) -> None:
    """They end by the SDK's CancelledError or with the right result; later ones are refused."""
    call = _DOORS[door]

    async def run(delay: float) -> list[Any]:
        async with _held(target) as held:
            calls = [asyncio.ensure_future(call(held)) for _ in range(4)]
            await asyncio.sleep(delay)
            await held.client.close()
            found = await asyncio.gather(*calls, return_exceptions=True)
            with pytest.raises(RuntimeError, match="closed"):
                await call(held)
            found += [np.array_equal(held.own[name], _LARGE[name]) for name in _LARGE]
        return found

    for number in range(tier(short=4, soak=30)):
        for each in asyncio.run(run(0.001 * number)):
            if isinstance(each, CancelledError):
                assert each.reason == "CLIENT_CLOSED", each
            elif isinstance(each, RuntimeError):
                # A call of several calls had not begun the next one.
                assert "closed" in str(each), each
                assert door in ("stream", "resident")
            else:
                assert each is True, each


def test_a_region_outlives_calls_that_were_owed_when_it_closed(server: str) -> None:
    """`close` while the answer to a call that timed out is still to come empties no array."""
    wrong = 0
    for number in range(tier(short=15, soak=90)):
        with Client(server) as client:
            region = client.region(4 * _INPUT.nbytes)
            own = {name: region.array(each.shape) for name, each in _LARGE.items()}
            out = region.array(_INPUT.shape)
            for name, each in _LARGE.items():
                own[name][...] = each
            client.evaluate("mse_loss", own, gradients=["input"], out={"input": out})
            with suppress(DeadlineExceededError):
                client.evaluate(
                    "mse_loss",
                    own,
                    gradients=["input"],
                    out={"input": out},
                    timeout=0.0002 + 0.0001 * (number % 60),
                )
        time.sleep(0.002)
        wrong += not all(np.array_equal(own[name], each) for name, each in _LARGE.items())
    record("regions whose contents changed", wrong, required="0")
    assert wrong == 0


def test_loops_with_a_client_each_and_threads_with_one_for_all(target: str) -> None:
    """Each of several loops and threads gets the answers to its own calls."""
    found: list[bool] = []
    shared = Client(target, timeout=100)

    def loop(number: int) -> None:
        async def run() -> None:
            async with _held(target) as held:
                doors = list(_DOORS.values())
                random.Random(number).shuffle(doors)  # noqa: S311 - to be repeated
                calls = [door(held) for door in doors if door is not _in_region] * 2
                found.extend(await asyncio.gather(*calls))
                for _ in range(5):
                    part = {name: each[number : number + 3] for name, each in _LARGE.items()}
                    result = await asyncio.to_thread(shared.evaluate, "mse_loss", part)
                    found.append(_near(result.loss, _mean(part)))

        asyncio.run(run())

    def thread(number: int) -> None:
        for each in range(20):
            part = {name: rows[number : number + 2 + each] for name, rows in _LARGE.items()}
            found.append(_near(shared.evaluate("mse_loss", part).loss, _mean(part)))

    workers = [threading.Thread(target=loop, args=(each,)) for each in range(tier(short=2, soak=6))]
    workers += [threading.Thread(target=thread, args=(each,)) for each in range(4)]
    for each in workers:
        each.start()
    for each in workers:
        each.join()
    shared.close()
    assert found
    assert all(found)
    assert len(found) == tier(short=2, soak=6) * 19 + 80


def test_a_client_for_asyncio_says_that_it_has_a_loop_already(server: str) -> None:
    """Used from a second loop, over every transport, and it goes on with its first one."""
    client = AsyncClient(server)
    with asyncio.Runner() as first, asyncio.Runner() as second:
        for _ in range(10):
            first.run(client.evaluate("mse_loss", _SMALL))
        for _ in range(2):
            with pytest.raises(RuntimeError, match="another event loop"):
                second.run(client.evaluate("mse_loss", _SMALL))
            assert _near(first.run(client.evaluate("mse_loss", _SMALL)).loss, _SMALL_LOSS)
        first.run(client.close())


@pytest.mark.parametrize("small", [True, False])
def test_a_server_that_is_killed_in_a_call_over_a_lease(
    tmp_path_factory: pytest.TempPathFactory, *, small: bool
) -> None:
    """The call goes to the one that takes its place, with what the region holds: never zeros."""
    folder = tmp_path_factory.mktemp("killed")
    listen = f"unix:{folder / 'socket'}"
    wrong = 0
    with Client(listen, timeout=100, wait_for_ready=True) as client:
        child = Child(folder / "first", listen=listen)
        for number in range(tier(short=1, soak=10)):
            region = client.region(4 * _INPUT.nbytes)
            own = {name: region.array(each.shape) for name, each in _LARGE.items()}
            for name, each in _LARGE.items():
                own[name][...] = each
            inputs = _SMALL if small else own
            expected = _SMALL_LOSS if small else _LARGE_LOSS
            results: list[bool] = []
            stop = threading.Event()

            def call(
                inputs: dict[str, np.ndarray],
                expected: float,
                results: list[bool],
                stop: threading.Event,
            ) -> None:
                while not stop.is_set():
                    results.append(_near(client.evaluate("mse_loss", inputs).loss, expected))

            calling = threading.Thread(target=call, args=(inputs, expected, results, stop))
            calling.start()
            time.sleep(0.1)
            child.process.kill()
            child.wait()
            child = Child(folder / f"next{number}", listen=listen)
            before = len(results)
            end = time.monotonic() + 60
            while len(results) < before + 20 and time.monotonic() < end:
                time.sleep(0.01)
            stop.set()
            calling.join()
            assert len(results) >= before + 20
            wrong += results.count(False)
            wrong += not all(np.array_equal(own[name], each) for name, each in _LARGE.items())
        child.terminate()
        child.wait()
    record("wrong results around kill -9", wrong, required="0")
    assert wrong == 0
