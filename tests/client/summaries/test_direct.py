"""Data sets for a server in this process, which reads them where they are."""

import asyncio
import threading
import time
import tracemalloc
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import Any

import numpy as np
import pytest

from losswire.client import (
    AsyncClient,
    CancelledError,
    Client,
    Comparison,
    LosswireError,
    NotFoundError,
    Summary,
    SummaryProgress,
)
from tests.client.conftest import Call

TARGET = "local:?threads=1&device=cpu"
"""As the fixture `server` computes."""

_ROWS = 30_000
"""Few enough for one message of a batch, so that the bits are the same."""
_BATCHES = 12


def _batch(number: int, rows: int = _ROWS) -> dict[str, Any]:
    rng = np.random.default_rng(number)
    logits = rng.standard_normal((rows, 10)).astype(np.float32)
    return {
        "input": logits if number % 2 else np.asfortranarray(logits),
        "target": rng.integers(0, 10, rows),
        "w": rng.random(rows).astype(np.float32),
        "country": rng.choice(["DE", "PL"], rows),
        "user": np.sort(rng.integers(0, rows // 8, rows)) + number * rows,
    }


_FIELDS: dict[str, Any] = {"partition": "data"}
_KINDS: Mapping[str, dict[str, Any]] = {
    "plain": {},
    "weights": {"sample_weight": "w"},
    "slices, ids and clusters": {
        "slices": ["country"],
        "ids": "user",
        "cluster": "user",
        "clusters_grouped": True,
    },
    "class weights": {"shared": {"weight": np.arange(1, 11, dtype=np.float32)}},
}


@pytest.mark.parametrize("fields", _KINDS.values(), ids=_KINDS)
def test_the_bits_are_those_of_a_server(server: str, call: Call, fields: dict[str, Any]) -> None:
    """Whatever is said about the rows."""
    remote, local = (
        call(target, "summarize", "cross_entropy", map(_batch, range(3)), **_FIELDS, **fields)
        for target in (server, TARGET)
    )
    assert isinstance(local, Summary)
    assert local == remote
    assert local.count == 3 * _ROWS


def test_comparisons_are_those_of_a_server(server: str, call: Call) -> None:
    """Each candidate's own inputs come to it."""
    data = _batch(1)
    columns = {name: data[name] for name in ("target", "country")}
    columns |= {"a": data["input"], "b": data["input"][::-1]}
    remote, local = (
        call(
            target,
            "compare",
            "cross_entropy",
            columns,
            candidates={"a": {"input": "a"}, "b": {"input": "b"}},
            slices=["country"],
            **_FIELDS,
        )
        for target in (server, TARGET)
    )
    assert isinstance(local, Comparison)
    assert local == remote


def _outside() -> dict[str, Any]:
    return _batch(1) | {"target": np.full(_ROWS, 10)}


def _late_error() -> Iterator[dict[str, Any]]:
    yield _batch(0)
    yield _outside()


_WRONG: Mapping[str, tuple[str, Callable[[], Any], dict[str, Any]]] = {
    "class out of range": ("cross_entropy", _outside, {}),
    "in a later batch": ("cross_entropy", _late_error, {}),
    "negative weight": (
        "cross_entropy",
        lambda: _batch(1) | {"w": np.full(_ROWS, -1, np.float32)},
        {"sample_weight": "w"},
    ),
    "too many slices": ("cross_entropy", lambda: _batch(1), {"slices": ["user"], "max_slices": 9}),
    "shapes that differ": (
        "mse_loss",
        lambda: {"input": np.zeros((_ROWS, 3)), "target": np.zeros((_ROWS, 2))},
        {},
    ),
    "unknown loss": ("no_loss", lambda: _batch(1), {}),
    "unknown option": ("cross_entropy", lambda: _batch(1), {"options": {"sharpness": 1.0}}),
}


@pytest.mark.parametrize("case", _WRONG)
def test_errors_are_those_of_a_server(server: str, call: Call, case: str) -> None:
    """Class, reason, text, violations, and whether another try may help."""
    loss, make, fields = _WRONG[case]
    found = []
    for target in (server, TARGET):
        with pytest.raises(LosswireError) as caught:
            call(target, "summarize", loss, make(), **_FIELDS, **fields)
        error = caught.value
        found.append((type(error), error.message, error.reason, error.violations, error.retryable))
        assert error.request_id
    assert found[0] == found[1]


def test_the_caller_s_arrays_are_not_copied() -> None:
    """Of data in memory, only what is computed of its rows takes memory."""
    rows = 1_000_000
    whole: dict[str, Any] = {
        "input": np.ones((rows, 40), np.float32),
        "target": np.zeros(rows, np.int64),
    }
    with Client(TARGET) as client:
        client.summarize("cross_entropy", {name: each[:10] for name, each in whole.items()})
        tracemalloc.start()
        try:
            found = client.summarize("cross_entropy", whole)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert found.count == rows
    assert peak < whole["input"].nbytes / 8


def test_arrays_may_change_once_they_are_read(server: str, call: Call) -> None:
    """The caller may fill the same arrays again for the next batch."""
    kept = {name: each.copy() for name, each in _batch(0).items()}

    def refilled() -> Iterator[dict[str, Any]]:
        for number in range(_BATCHES):
            for name, each in _batch(number).items():
                kept[name][...] = each
            yield kept

    fresh = call(server, "summarize", "cross_entropy", map(_batch, range(_BATCHES)), **_FIELDS)
    assert call(TARGET, "summarize", "cross_entropy", refilled(), **_FIELDS) == fresh


def test_errors_of_the_data_are_raised_unchanged(call: Call) -> None:
    """And the next call works."""
    mine = ZeroDivisionError("mine")

    def broken() -> Iterator[dict[str, Any]]:
        yield from map(_batch, range(3))
        raise mine

    with pytest.raises(ZeroDivisionError) as raised:
        call(TARGET, "summarize", "cross_entropy", broken())
    assert raised.value is mine
    assert call(TARGET, "summarize", "cross_entropy", _batch(0)).count == _ROWS


def test_a_summary_is_continued(call: Call) -> None:
    """From a report, without what it covers."""
    saved: list[Summary] = []

    def cut_off() -> Iterator[dict[str, Any]]:
        for number in range(1000):
            yield _batch(number % _BATCHES)
            if saved:
                raise KeyboardInterrupt

    fields: dict[str, Any] = {"on_report": saved.append, **_FIELDS}
    with pytest.raises(KeyboardInterrupt):
        call(TARGET, "summarize", "cross_entropy", cut_off(), **fields)
    assert saved[-1].count > 0
    total = saved[-1].count + _ROWS
    rows = (_batch(number % _BATCHES) for number in range(-(-total // _ROWS)))
    found = call(TARGET, "summarize", "cross_entropy", rows, resume_from=saved[-1], **_FIELDS)
    assert found.count == -(-total // _ROWS) * _ROWS


def test_closing_ends_the_call() -> None:
    """With the error that says so, though the data is still to come."""
    client = Client(TARGET)

    def closing() -> Iterator[dict[str, Any]]:
        yield _batch(0)
        client.close()
        while True:
            yield _batch(1)

    with pytest.raises(CancelledError) as caught:
        client.summarize("cross_entropy", closing())
    assert caught.value.reason == "CLIENT_CLOSED"


def test_a_cancelled_task_ends_the_call() -> None:
    """Soon, though the data goes on."""

    async def endless() -> AsyncIterator[dict[str, Any]]:
        while True:
            yield _batch(0)
            await asyncio.sleep(0)

    async def run() -> None:
        async with AsyncClient(TARGET) as client:
            await asyncio.wait_for(client.summarize("cross_entropy", endless()), 1)

    with pytest.raises(TimeoutError):
        asyncio.run(run())


def test_the_data_is_not_read_ahead_of_the_server() -> None:
    """What waits is bounded, however large the data is."""
    read, rows = 0, 40_000
    is_slow = threading.Event()

    def counted() -> Iterator[dict[str, Any]]:
        nonlocal read
        for _ in range(60):
            read += 1
            yield {"input": np.zeros((rows, 100), np.float32), "target": np.arange(rows) % 100}

    ahead: list[int] = []

    def seen(progress: SummaryProgress) -> None:
        is_slow.set()
        time.sleep(0.01)
        ahead.append(read - progress.rows // rows)

    with Client(TARGET) as client:
        assert client.summarize("cross_entropy", counted(), progress=seen).count == 60 * rows
    assert is_slow.is_set()
    assert max(ahead) * rows * 400 < 96 << 20


def test_an_unknown_loss_reads_no_data() -> None:
    """As with a server elsewhere."""

    def never() -> Iterator[dict[str, Any]]:
        raise AssertionError
        yield {}

    with Client(TARGET) as client, pytest.raises(NotFoundError):
        client.summarize("no_loss", never())


def test_many_threads_summarize_at_once() -> None:
    """Each gets its own summary."""
    found: dict[int, int] = {}
    with Client(TARGET) as client:

        def run(rows: int) -> None:
            found[rows] = client.summarize("cross_entropy", _batch(1, rows)).count

        threads = [threading.Thread(target=run, args=(1000 * (each + 1),)) for each in range(6)]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
    assert found == {1000 * (each + 1): 1000 * (each + 1) for each in range(6)}
