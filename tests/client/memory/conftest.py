"""What the tests of shared memory have in common: a batch, and servers that share memory or not."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from losswire.client import ArrayInput, Client, EvaluationResult, RetryPolicy
from tests.support.harness import Child

DRAW = np.random.default_rng(3)
ROWS, WIDTH = 600, 500
LOGITS = DRAW.standard_normal((ROWS, WIDTH)).astype(np.float32)
CLASSES = DRAW.integers(0, WIDTH, ROWS)
BATCH: dict[str, ArrayInput] = {"input": LOGITS, "target": CLASSES}
QUICK = RetryPolicy(initial_backoff=0.01, max_backoff=0.1)


def evaluate(client: Client, **options: Any) -> EvaluationResult:  # noqa: ANN401 (any option)
    """Evaluate the batch, with its gradient."""
    return client.evaluate("cross_entropy", BATCH, gradients=["input"], **options)


def same(found: EvaluationResult, expected: EvaluationResult) -> bool:
    """Return whether two results have the same bits."""
    return (
        found.loss.tobytes() == expected.loss.tobytes()
        and found.gradients["input"].tobytes() == expected.gradients["input"].tobytes()
    )


@pytest.fixture(scope="session")
def sharing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Child]:
    """A server with regions, as by default."""
    with Child(tmp_path_factory.mktemp("sharing") / "log", "--memory-budget-mib", "512") as child:
        yield child


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EvaluationResult]:
    """What the ordinary way gives."""
    log = tmp_path_factory.mktemp("plain") / "log"
    with Child(log, "--region-quota-mib", "0") as child, Client(child.address) as client:
        result = evaluate(client)
        assert result.transport == "unary"
        yield result
