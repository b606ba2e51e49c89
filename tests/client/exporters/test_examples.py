"""The examples of the exporters show what they say."""

import doctest
from collections.abc import Callable

import numpy as np
import pytest

from losswire.client import Client
from losswire.client.exporters import mlflow, opentelemetry, prometheus, tensorboard, wandb
from losswire.client.sklearn import LossScorer, make_scorer

DOCUMENTED: tuple[Callable[..., object], ...] = (
    LossScorer,
    make_scorer,
    mlflow.log_summary,
    opentelemetry.exponential_histogram,
    prometheus.exposition,
    prometheus.wsgi_app,
    tensorboard.log_summary,
    wandb.log_summary,
)


@pytest.mark.filterwarnings("ignore:::mlflow", "ignore:::sqlalchemy", "ignore:::alembic")
@pytest.mark.filterwarnings("ignore:::wandb")
@pytest.mark.parametrize(
    "documented", DOCUMENTED, ids=[f"{e.__module__}.{e.__qualname__}" for e in DOCUMENTED]
)
def test_the_example_runs(server: str, documented: Callable[..., object]) -> None:
    """It is there, and it shows what it says."""
    with Client(server) as client:
        [example] = doctest.DocTestFinder(recurse=False).find(
            documented, globs={"client": client, "np": np}
        )
        assert example.examples
        problems: list[str] = []
        result = doctest.DocTestRunner(verbose=False).run(example, out=problems.append)
    assert result.failed == 0, "".join(problems)
