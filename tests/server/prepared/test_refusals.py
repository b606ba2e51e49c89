"""Values are checked in prepared evaluations, too, and refused as by the pipeline."""

import math
from functools import partial
from itertools import product

import grpc
import numpy as np
import pytest

from losswire.v1 import evaluation_pb2, loss_service_pb2
from tests.support.inside import outcome
from tests.support.prepared_forms import (
    BFLOAT16,
    CUT,
    LARGE,
    NEEDS_NATIVE,
    SMALL,
    WEIGHTED,
    Build,
    probabilities,
    with_class,
)
from tests.support.prepared_server import (
    METHODS,
    Server,
    compared,
    run_with_server,
)
from tests.support.requests import trailing

Evaluation = evaluation_pb2.Evaluation

pytestmark = NEEDS_NATIVE


@pytest.mark.parametrize("target", [-1, 2**40, -(2**63), -101, 512])
@pytest.mark.parametrize(
    ("build", "method"),
    [*product([SMALL, WEIGHTED], METHODS), *product([LARGE, CUT], ["Evaluate"])],
)
def test_wrong_classes_are_refused_as_by_the_pipeline(
    build: Build, method: str, target: int
) -> None:
    """A known form does not make a class right: the error names it and its place, as before."""

    async def body(server: Server) -> None:
        bad = [with_class(build(1), position, target) for position in (0, 7, -1)]
        expected = [await outcome(server.app.evaluator, each, math.inf) for each in bad]
        assert await METHODS[method](server, build(1))
        for each, error in zip(bad, expected, strict=True):
            answers = await METHODS[method](server, each)
            assert answers == [error] * len(answers)
            assert str(target) in answers[0].error.violations[0].description
        await compared(server, method, build)

    run_with_server(body)


@pytest.mark.parametrize("value", [-0.25, 1.25, math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", ["input", "target"])
@pytest.mark.parametrize(
    ("build", "method"),
    [
        *product([partial(probabilities, shape=(5, 3, 7))], METHODS),
        (partial(probabilities, dtype=BFLOAT16), "Evaluate"),
        (partial(probabilities, dtype=np.float64), "Evaluate"),
        (partial(probabilities, shape=(9001,)), "Evaluate"),
    ],
)
def test_wrong_probabilities_are_refused_as_by_the_pipeline(
    build: Build, method: str, name: str, value: float
) -> None:
    """A known form does not make a number right, wherever it stands: the error names its place."""

    async def body(server: Server) -> None:
        assert await METHODS[method](server, build(1))
        for position in (0, 7, -1):
            bad = build(2)
            size = len(bad.inputs[name].data) // math.prod(bad.inputs[name].shape)
            kind = {2: BFLOAT16, 4: np.float32, 8: np.float64}[size]
            numbers = np.frombuffer(bad.inputs[name].data, kind).copy()
            numbers[position] = value
            bad.inputs[name].data = numbers.tobytes()
            error = await outcome(server.app.evaluator, bad, math.inf)
            answers = await METHODS[method](server, bad)
            assert answers == [error] * len(answers)
            assert "is not in [0, 1]" in answers[0].error.violations[0].description
        await compared(server, method, build)

    run_with_server(body)


def test_refusals_have_a_number() -> None:
    """An error of a known form comes with all that errors come with."""

    async def body(server: Server) -> None:
        await server.one(SMALL(1))
        request = loss_service_pb2.EvaluateRequest(evaluation=with_class(SMALL(1), 0, 99))
        for _ in range(2):
            with pytest.raises(grpc.RpcError) as refused:
                await server.raw("Evaluate", request.SerializeToString())
            number = trailing(refused.value)["x-request-id"]
            assert len(number) == 16

    run_with_server(body)
