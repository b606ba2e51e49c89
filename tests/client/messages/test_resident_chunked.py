"""Resident tensors in calls that are larger than one message."""

import asyncio
from collections.abc import Iterator

import numpy as np
import pytest

from losswire.client import ArrayInput, AsyncClient, Client, EvaluationResult
from tests.support.harness import Child
from tests.support.resident import noise

_ROWS, _WIDTH, _CLASSES = 4096, 256, 64


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server that takes at most 1 MiB in one message."""
    log = tmp_path_factory.mktemp("chunked") / "log"
    with Child(log, "--max-message-mib", "1", "--region-quota-mib", "0") as child:
        yield child.address


def _inputs() -> dict[str, ArrayInput]:
    return {
        "input": noise(1, _ROWS, _WIDTH),
        "linear_weight": noise(2, _CLASSES, _WIDTH),
        "target": np.arange(_ROWS) % _CLASSES,
    }


def _check(found: EvaluationResult, expected: EvaluationResult) -> None:
    """Compare a result with the one of inputs that were sent along."""
    np.testing.assert_array_equal(found.loss, expected.loss)
    assert found.gradients.keys() == {"input", "linear_weight"}
    for name, gradient in found.gradients.items():
        np.testing.assert_array_equal(gradient, expected.gradients[name])


def test_a_resident_head_serves_hidden_states_of_any_size(address: str) -> None:
    """Hidden states go in chunks, the head is named, and sent again when it is missing."""
    inputs = _inputs()
    with Client(address) as client:
        wanted = ["input", "linear_weight"]
        expected = client.evaluate("linear_cross_entropy", inputs, gradients=wanted)
        stored = client.put(inputs["linear_weight"])
        named = {**inputs, "linear_weight": stored}
        _check(client.evaluate("linear_cross_entropy", named, gradients=wanted), expected)
        assert client.delete(stored)
        _check(client.evaluate("linear_cross_entropy", named, gradients=wanted), expected)
        assert client.stat(stored)


def test_the_async_client_heals_chunked_calls(address: str) -> None:
    """AsyncClient sends a missing head again, too."""
    inputs = _inputs()
    wanted = ["input", "linear_weight"]

    async def run() -> EvaluationResult:
        async with AsyncClient(address) as client:
            stored = await client.put(inputs["linear_weight"])
            await client.delete(stored)
            named = {**inputs, "linear_weight": stored}
            return await client.evaluate("linear_cross_entropy", named, gradients=wanted)

    with Client(address) as client:
        expected = client.evaluate("linear_cross_entropy", inputs, gradients=wanted)
    _check(asyncio.run(run()), expected)
