"""After a call that was given up, the gradient that still comes spoils no other result."""

import asyncio
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from losswire.client import (
    ArrayInput,
    AsyncClient,
    Client,
    DeadlineExceededError,
    FailedPreconditionError,
    LosswireError,
    Region,
)
from losswire.client._calls.interrupt import Interrupt
from tests.support.harness import Child

Array = npt.NDArray[Any]

_ROWS, _CLASSES = 2000, 100
_DRAW = np.random.default_rng(17)
_LOGITS = _DRAW.standard_normal((_ROWS, _CLASSES), dtype=np.float32)
_TARGET = _DRAW.integers(0, _CLASSES, _ROWS)


@pytest.fixture(scope="module")
def child(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Child]:
    """A server with regions, as by default."""
    with Child(tmp_path_factory.mktemp("given-up") / "log", "--memory-budget-mib=256") as child:
        yield child


def _gradient(scale: float) -> Array:
    alone = np.exp(_LOGITS.astype(float) * scale)
    found = alone / alone.sum(1, keepdims=True)
    found[np.arange(_ROWS), _TARGET] -= 1
    result: Array = found / _ROWS
    return result


@contextmanager
def _given_up(child: Child, client: Client) -> Iterator[tuple[Region, Array, Array]]:
    """Give up a call whose gradient goes to a region, and let the server compute it later."""
    region = client.region(3 * _LOGITS.nbytes)
    logits, out = region.array(_LOGITS.shape), region.array(_LOGITS.shape)
    logits[...] = _LOGITS
    inputs = {"input": logits, "target": _TARGET}
    client.evaluate("cross_entropy", inputs, gradients=["input"], out={"input": out})
    child.process.send_signal(signal.SIGSTOP)
    try:
        with pytest.raises(DeadlineExceededError):
            client.evaluate(
                "cross_entropy", inputs, gradients=["input"], out={"input": out}, timeout=0.05
            )
        threading.Timer(0.1, child.process.send_signal, (signal.SIGCONT,)).start()
        yield region, logits, out
    finally:
        child.process.send_signal(signal.SIGCONT)


@pytest.mark.parametrize("form", ["dense", "factored"])
def test_the_next_result_stays_what_it_was(child: Child, form: Any) -> None:  # noqa: ANN401
    """Whether the server writes it or the SDK does."""
    with Client(child.address) as client, _given_up(child, client) as (_, logits, out):
        logits[...] *= 2
        result = client.evaluate(
            "cross_entropy",
            {"input": logits, "target": _TARGET},
            gradients=["input"],
            out={"input": out},
            gradient_form=form,
        )
        assert result.gradients["input"] is out
        for _ in range(3):
            np.testing.assert_allclose(out, _gradient(2), rtol=1e-3, atol=1e-7)
            time.sleep(0.1)


@pytest.mark.parametrize("who", ["another client", "a closed region"])
def test_who_cannot_ask_is_refused(child: Child, who: str) -> None:
    """Rather than given a result that may change; other arrays are as good as ever."""
    with (
        Client(child.address) as client,
        Client(child.address) as other,
        _given_up(child, client) as (region, _, out),
    ):
        caller = client
        if who == "another client":
            caller = other
        else:
            region.close()
        inputs: dict[str, ArrayInput] = {"input": _LOGITS, "target": _TARGET}
        with pytest.raises(FailedPreconditionError, match="use another array") as caught:
            caller.evaluate("cross_entropy", inputs, gradients=["input"], out={"input": out})
        assert caught.value.reason == "GRADIENT_PENDING"
        fresh = np.empty_like(_LOGITS)
        caller.evaluate("cross_entropy", inputs, gradients=["input"], out={"input": fresh})
        np.testing.assert_allclose(fresh, _gradient(1), rtol=1e-3, atol=1e-7)


def test_a_cancelled_task_leaves_the_same_behind(child: Child) -> None:
    """From asyncio, over whatever connection the call went."""

    async def run() -> None:
        async with AsyncClient(child.address) as client:
            region = await client.region(3 * _LOGITS.nbytes)
            logits, out = region.array(_LOGITS.shape), region.array(_LOGITS.shape)
            inputs = {"input": logits, "target": _TARGET}
            for number in range(24):
                logits[...] = _LOGITS
                evaluate = partial(client.evaluate, gradients=["input"])
                task = asyncio.ensure_future(evaluate("cross_entropy", inputs, out={"input": out}))
                await asyncio.sleep(0.0004 * number)
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task
                small = {"input": np.ones(9, np.float32), "target": np.zeros(9, np.float32)}
                part = out.reshape(-1)[:9]
                result = await evaluate("mse_loss", small, out={"input": part}, reduction="sum")
                await asyncio.sleep(0.02)
                assert (result.gradients["input"] == 2).all()

    asyncio.run(run())


def test_an_interrupt_survives_a_loop_that_was_closed() -> None:
    """Its waiter is passed over, and those of other loops are woken."""
    interrupt = Interrupt()
    dead, alive = asyncio.new_event_loop(), asyncio.new_event_loop()
    waiters = [loop.create_future() for loop in (dead, alive)]
    for each in waiters:
        interrupt.add(each)
    dead.close()
    interrupt.set()
    alive.run_until_complete(waiters[1])
    alive.close()
    assert waiters[1].done()
    assert not waiters[0].done()


def test_a_client_is_closed_from_inside_of_its_own_call(child: Child) -> None:
    """As a signal's handler or the garbage collector may do on the thread that has its locks."""
    for number in range(200):
        client = Client(child.address)
        pool = [client.region(4096)]

        def close(*_: object) -> None:
            client.close()  # noqa: B023 - of this round

        before = signal.signal(signal.SIGALRM, close)
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.0001 + number * 0.00002)
            with suppress(LosswireError, RuntimeError, ValueError):
                inputs: dict[str, ArrayInput] = {"input": _LOGITS, "target": _TARGET}
                client.evaluate("cross_entropy", inputs, gradients=["input"])
                pool.append(client.region(4096))
            signal.setitimer(signal.ITIMER_REAL, 0)
        finally:
            signal.signal(signal.SIGALRM, before)
            client.close()
        with pytest.raises(RuntimeError, match="closed"):
            client.losses()
