"""The denominators of means, in their corners."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from losswire.server.catalogue.record import Reduction
from losswire.server.catalogue.shapes import Shape
from tests.support.caller import Ask, Caller, calling


@pytest.fixture(scope="module")
def caller(server: str) -> Iterator[Caller]:
    """A connection to the server."""
    with calling(server) as connected:
        yield connected


@pytest.mark.parametrize(
    ("shape", "denominator"),
    [
        ((), 1),
        ((3,), 3),
        ((3, 4), 3),
        ((3, 4, 2), 3),
        ((3, 0), 3),
        ((3, 0, 2), 3),
        ((0,), 0),
        ((0, 4), 0),
    ],
)
@pytest.mark.parametrize("engine", ["auto", "autograd"])
def test_batchmean_divides_by_the_rows(
    caller: Caller, shape: Shape, denominator: int, engine: str
) -> None:
    """A row without values counts, too: its loss is 0 and not 0 / 0, as in torch."""
    probabilities = np.full(shape, 0.25)
    ask = Ask(
        loss="kl_div",
        inputs={"input": np.zeros(shape), "target": probabilities},
        reduction=Reduction.BATCHMEAN,
        gradients_for=("input",),
        engine=engine,
    )
    x, y = (torch.from_numpy(ask.inputs[name]) for name in ("input", "target"))
    expected = F.kl_div(x, y, reduction="batchmean").numpy()
    plain, weighted = caller.results([ask, replace(ask, sample_weight=np.ones(shape[:1]))])
    for result in (plain, weighted):
        np.testing.assert_allclose(result.loss, expected, rtol=1e-15)
        assert result.mean_denominator == denominator
        assert (result.count, result.gradients["input"].shape) == (probabilities.size, shape)
