"""Calls whose requests come from the cache of templates: like all others."""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import grpc
import numpy as np
import numpy.typing as npt
import pytest

from losswire.client import Client
from losswire.client._messages.template import TEMPLATES
from losswire.v1 import evaluation_pb2
from tests.client.conftest import Call
from tests.support.scripted import Scripted, echo, fail, serving


@pytest.fixture(autouse=True)
def forget() -> Iterator[None]:
    """Begin without any template."""
    TEMPLATES.clear()
    yield
    TEMPLATES.clear()


def numbers(seed: int) -> npt.NDArray[Any]:
    """Make an array of one shape."""
    return np.random.default_rng(seed).integers(0, 2, (3, 2)).astype("f4")


def test_each_call_carries_its_own_numbers(call: Call, echoing: Scripted) -> None:
    """Three evaluations with one key are three evaluations."""
    for seed in range(3):
        result = call(echoing.address, "evaluate", "any", {"x": numbers(seed)}, gradients=["x"])
        np.testing.assert_array_equal(result.gradients["x"], numbers(seed))
        assert result.gradients["x"].flags.writeable
    one, other = echoing.evaluations[1:]
    assert one.inputs["x"].data != other.inputs["x"].data
    for each, following in pairwise(echoing.evaluations):
        each.inputs["x"].ClearField("data")
        following.inputs["x"].ClearField("data")
        assert each == following


def test_a_known_template_is_tried_again(call: Call) -> None:
    """Retries are those of any other call."""
    failures = [False, True, True, False]

    def flaky(
        evaluation: evaluation_pb2.Evaluation, context: grpc.ServicerContext
    ) -> evaluation_pb2.EvaluationResult:
        if failures.pop(0):
            fail(context, grpc.StatusCode.UNAVAILABLE)
        return echo(evaluation)

    with serving(Scripted(flaky)) as service:
        for seed in (1, 2):
            result = call(service.address, "evaluate", "any", {"x": numbers(seed)}, gradients=["x"])
            np.testing.assert_array_equal(result.gradients["x"], numbers(seed))
    assert failures == []


def test_a_known_template_may_have_an_output(echoing: Scripted) -> None:
    """`out` is filled, whatever is known."""
    with Client(echoing.address) as client:
        for seed in range(3):
            array = numbers(seed)
            out = np.empty_like(array)
            plain = client.evaluate("any", {"x": array}, gradients=["x"])
            given = client.evaluate("any", {"x": array}, gradients=["x"], out={"x": out})
            np.testing.assert_array_equal(out, array)
            assert given.gradients["x"] is out
            assert plain.gradients["x"] is not out


@pytest.mark.parametrize("seconds", [0, -1.0, float("nan"), float("inf")])
def test_a_known_template_needs_a_timeout_like_any_other(
    call: Call, echoing: Scripted, seconds: float
) -> None:
    """A timeout that cannot be right is a ValueError."""
    call(echoing.address, "evaluate", "any", {"x": numbers(1)})
    with pytest.raises(ValueError, match="timeout"):
        call(echoing.address, "evaluate", "any", {"x": numbers(1)}, timeout=seconds)
