"""Every public class and method of the SDK has an example, and all of them run as they are."""

import ast
import asyncio
import doctest
import inspect
import io
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

import losswire.client
from losswire.client import AsyncClient, Client
from losswire.client import jax as losswire_jax
from losswire.client import torch as losswire_torch
from tests.support.runs import summary

_WITH_METHODS = (
    "AsyncClient",
    "AsyncResidentTensor",
    "AsyncRuns",
    "AsyncStream",
    "Client",
    "Comparison",
    "Region",
    "ResidentTensor",
    "Runs",
    "Stream",
    "Summary",
)
"""The classes whose methods have an example each; others have one of their own."""
_WITH_EXAMPLE = (
    *_WITH_METHODS,
    "CandidateStatistics",
    "Difference",
    "Evaluation",
    "EvaluationResult",
    "FactoredGradient",
    "Histogram",
    "Lift",
    "LosswireError",
    "RetryPolicy",
    "Run",
    "RowLoss",
    "SliceDifference",
    "SliceTable",
    "Statistics",
    "SummaryProgress",
)
_ADAPTERS = {"RemoteLoss": losswire_torch.RemoteLoss, "remote_loss": losswire_jax.remote_loss}


def _documented() -> dict[str, Any]:
    """Map names to everything that must have an example."""
    found: dict[str, Any] = dict(_ADAPTERS)
    for name in _WITH_EXAMPLE:
        found[name] = getattr(losswire.client, name)
    for name in _WITH_METHODS:
        for method, value in vars(found[name]).items():
            if not method.startswith("_") and inspect.isfunction(value):
                found[f"{name}.{method}"] = value
    return found


_DOCUMENTED = _documented()


@dataclass
class Scene:
    """A server, and what the examples find defined."""

    runner: asyncio.Runner
    names: dict[str, Any]


@pytest.fixture(scope="module")
def scene(server: str) -> Iterator[Scene]:
    """A client of each kind beside a server."""
    with Client(server) as client, asyncio.Runner() as runner:
        async_client = AsyncClient(server)
        names: dict[str, Any] = {
            **{name: getattr(losswire.client, name) for name in losswire.client.__all__},
            **_ADAPTERS,
            "address": server,
            "async_client": async_client,
            "asyncio": asyncio,
            "client": client,
            "jax": jax,
            "jnp": jnp,
            "np": np,
            "summary": summary([1.0, 2.0, 6.0]),
            "torch": torch,
        }
        yield Scene(runner, names)
        runner.run(async_client.close())


def _run(scene: Scene, source: str, names: dict[str, Any]) -> str:
    """Run an example, which may await, and return what it shows."""
    code = compile(source, "<example>", "single", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    with redirect_stdout(io.StringIO()) as shown:
        waiting = eval(code, names)  # noqa: S307 - the SDK's own docstrings
        if inspect.iscoroutine(waiting):
            scene.runner.run(waiting)
    return shown.getvalue()


@pytest.mark.parametrize("name", sorted(_DOCUMENTED))
def test_the_example_runs(scene: Scene, name: str) -> None:
    """It is there, and it shows what it says."""
    examples = doctest.DocTestParser().get_examples(inspect.getdoc(_DOCUMENTED[name]) or "", name)
    assert examples, f"{name} has no example"
    names = dict(scene.names)
    for example in examples:
        assert _run(scene, example.source, names) == example.want, example.source
