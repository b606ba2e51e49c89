"""Large batches on the server's own machine go through shared memory."""

import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from losswire.client import Client, Summary
from tests.client.conftest import Call
from tests.support.counting import counting
from tests.support.harness import Child

_ROWS = 30_000
_BATCHES = 60
"""Together more than the memory that is used again and again."""


def _batch(number: int) -> dict[str, Any]:
    rng = np.random.default_rng(number)
    logits = rng.standard_normal((_ROWS, 10)).astype(np.float32)
    return {
        "input": logits if number % 2 else np.asfortranarray(logits),
        "target": rng.integers(0, 10, _ROWS),
        "w": rng.random(_ROWS).astype(np.float32),
    }


_FIELDS: dict[str, Any] = {"sample_weight": "w", "partition": "data"}


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> Summary:
    """The summary of a server that shares no memory."""
    log = tmp_path_factory.mktemp("sent") / "log"
    with Child(log, "--region-quota-mib", "0") as child, Client(child.address) as client:
        return client.summarize("cross_entropy", map(_batch, range(_BATCHES)), **_FIELDS)


def test_the_summary_is_that_of_messages(call: Call, server: str, expected: Summary) -> None:
    """Bit for bit, though the memory is used again and again."""
    found = call(server, "summarize", "cross_entropy", map(_batch, range(_BATCHES)), **_FIELDS)
    assert found == expected


def test_arrays_are_not_sent(server: str, expected: Summary) -> None:
    """Only what is not worth a place in shared memory goes over the connection."""
    with counting(server) as relay, Client(relay.address) as client:
        found = client.summarize("cross_entropy", map(_batch, range(_BATCHES)), **_FIELDS)
    assert found == expected
    assert relay.sent_bytes < _BATCHES * _ROWS * 52 / 20


def test_arrays_may_change_once_they_are_read(server: str, expected: Summary) -> None:
    """The caller may fill the same arrays again for the next batch."""
    logits, target = np.empty((_ROWS, 10), np.float32), np.empty(_ROWS, np.int64)
    weight = np.empty(_ROWS, np.float32)

    def refilled() -> Iterator[dict[str, Any]]:
        for number in range(_BATCHES):
            batch = _batch(number)
            logits[...], target[...], weight[...] = batch["input"], batch["target"], batch["w"]
            yield {"input": logits, "target": target, "w": weight}

    with Client(server) as client:
        assert client.summarize("cross_entropy", refilled(), **_FIELDS) == expected


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["killed", "drained"])
def test_a_server_that_is_started_again_continues(
    expected: Summary, tmp_path: Path, number: int
) -> None:
    """It has none of the memory of the one before, and gets what that has not reported."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    children = [Child(tmp_path / "first", listen=address)]

    def interrupted() -> Iterator[dict[str, Any]]:
        for each in range(_BATCHES):
            if each == 40:
                children[0].process.send_signal(number)
                children[0].wait()
                children.append(Child(tmp_path / "second", listen=address))
            yield _batch(each)

    try:
        with Client(address) as client:
            found = client.summarize("cross_entropy", interrupted(), **_FIELDS)
    finally:
        for child in children:
            child.process.kill()
            child.wait()
    assert found == expected
