"""The SDK against the server itself."""

import asyncio
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from losswire.client import (
    AsyncClient,
    Client,
    Evaluation,
    EvaluationResult,
    InvalidArgumentError,
    LosswireError,
    NotFoundError,
)
from tests.client.conftest import Call

LOGITS = torch.linspace(-2, 2, 12).reshape(4, 3)
LABELS = torch.tensor([0, 2, 1, 2])


def test_cross_entropy_is_torchs(call: Call, server: str) -> None:
    """Loss and gradient of torch tensors are torch's own, the mean to within its rounding."""
    logits = LOGITS.clone().requires_grad_()
    expected = F.cross_entropy(logits, LABELS, label_smoothing=0.1)
    expected.backward()  # type: ignore[no-untyped-call]
    result: EvaluationResult = call(
        server,
        "evaluate",
        "cross_entropy",
        {"input": logits, "target": LABELS},
        {"label_smoothing": 0.1},
        reduction="mean",
        gradients=["input"],
        engine="autograd",
    )
    assert logits.grad is not None
    np.testing.assert_array_max_ulp(result.loss, expected.detach().numpy(), 4)
    np.testing.assert_array_equal(result.gradients["input"], logits.grad.numpy())
    assert (result.count, result.mean_denominator) == (4, 4.0)
    assert result.receipt.engine == "autograd"


def test_bfloat16_comes_back_as_ml_dtypes(call: Call, server: str) -> None:
    """A bfloat16 gradient is a numpy array of ml_dtypes' type."""
    result = call(
        server,
        "evaluate",
        "mse_loss",
        {"input": LOGITS.bfloat16(), "target": LOGITS.bfloat16() + 1},
        gradients=["input"],
    )
    assert (result.loss.dtype.name, result.gradients["input"].dtype.name) == ("float32", "bfloat16")


def test_weights_and_upstream_gradients(call: Call, server: str) -> None:
    """`grad_output` and `sample_weight` reach the computation."""
    result = call(
        server,
        "evaluate",
        "mse_loss",
        {"input": [1.0, 2.0], "target": [0.0, 0.0]},
        reduction="none",
        gradients=["input"],
        grad_output=[1.0, 10.0],
        sample_weight=[1.0, 0.5],
    )
    np.testing.assert_array_equal(result.gradients["input"], np.array([2, 20], "f4"))


def test_every_violation_is_told(call: Call, server: str) -> None:
    """A wrong evaluation is InvalidArgumentError with one line for each violation."""
    with pytest.raises(InvalidArgumentError) as raised:
        call(server, "evaluate", "cross_entropy", {"input": LOGITS}, {"smoothing": 0.1})
    fields = {violation.field for violation in raised.value.violations}
    assert fields == {'inputs["target"]', 'options["smoothing"]'}
    assert len(str(raised.value).splitlines()) == 3
    assert raised.value.request_id


def test_an_unknown_loss_names_the_nearest(call: Call, server: str) -> None:
    """A misspelt loss is NotFoundError with the right name in its text."""
    with pytest.raises(NotFoundError, match="cross_entropy"):
        call(server, "evaluate", "cros_entropy", {})


def test_many(call: Call, server: str) -> None:
    """Good and bad items of one call keep their places."""
    good = Evaluation("mse_loss", {"input": [1.0, 2.0], "target": [0.0, 0.0]})
    outcomes = call(server, "evaluate_many", [good, Evaluation("no_such_loss", {}), good])
    assert [getattr(outcome, "loss", None) for outcome in outcomes] == [2.5, None, 2.5]
    assert isinstance(outcomes[1], NotFoundError)


def test_the_catalogue_is_enough_to_call(call: Call, server: str) -> None:
    """Every loss has inputs, layouts and a default reduction among its reductions."""
    catalogue = call(server, "losses")
    assert [info.name for info in catalogue] == sorted(info.name for info in catalogue)
    for info in catalogue:
        assert info.inputs, info.name
        assert info.layouts, info.name
        assert info.default_reduction in info.reductions, info.name


def test_limits(call: Call, server: str) -> None:
    """The server tells what it takes."""
    info = call(server, "server_info")
    assert info.limits.max_message_bytes > 0
    assert info.limits.max_in_flight_per_stream > 0
    assert info.torch_version == torch.__version__


def _items(count: int) -> list[Evaluation]:
    return [
        Evaluation("mse_loss", {"input": [float(i)], "target": [0.0]})
        if i % 10
        else Evaluation("no_such_loss", {})
        for i in range(count)
    ]


def _told(outcomes: list[EvaluationResult | LosswireError]) -> list[float | str]:
    return [
        outcome.reason if isinstance(outcome, LosswireError) else float(outcome.loss)
        for outcome in outcomes
    ]


EXPECTED = [float(i * i) if i % 10 else "UNKNOWN_LOSS" for i in range(300)]


def test_stream(server: str) -> None:
    """A stream gives every outcome in its place."""
    with Client(server) as client, client.stream() as stream:
        assert _told(list(stream.map(_items(300)))) == EXPECTED


def test_async_stream(server: str) -> None:
    """A stream of asyncio gives every outcome in its place."""

    async def run() -> list[EvaluationResult | LosswireError]:
        async with AsyncClient(server) as client, client.stream() as stream:
            return [outcome async for outcome in stream.map(_items(300))]

    assert _told(asyncio.run(run())) == EXPECTED


WITHOUT_TORCH = """
import sys
from losswire.client import Client

with Client(sys.argv[1]) as client, client.stream() as stream:
    client.evaluate("mse_loss", {"input": [1.0], "target": [0.0]}, gradients=["input"])
    client.losses()
    list(stream.map([]))
print(sorted(name for name in sys.modules if name.split(".")[0] in {"torch", "losswire"}))
"""


def test_the_sdk_never_imports_torch(server: str) -> None:
    """Using everything leaves torch, which is installed here, unimported."""
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, server],
        capture_output=True,
        text=True,
        timeout=250,
        check=True,
    )
    assert "losswire.client._client" in done.stdout
    assert "torch" not in done.stdout
