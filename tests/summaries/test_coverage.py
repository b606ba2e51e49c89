"""The 95 % intervals contain the true mean in 95 % of repeated data sets.

2,000 simulated data sets each. The share has a standard error of 0.5 %, so that 93.5 to 96.5 %
are three of them; the seed is fixed.
"""

from collections.abc import Callable

import numpy as np
import pytest

from losswire.summaries import Column, Settings, statistics
from tests.support.summarized import Data, summary_of

_SETS = 2000
_ROWS = 400

Case = Callable[[np.random.Generator], Data]


def _plain(draw: np.random.Generator) -> Data:
    return Data(values=draw.gamma(4.0, 0.5, (1, _ROWS)))


def _weighted(draw: np.random.Generator) -> Data:
    """Rows of larger weight have larger losses, so that the mean depends on the weights."""
    weights = draw.uniform(0.5, 1.5, _ROWS)
    return Data(values=(draw.gamma(4.0, 0.5, _ROWS) * weights)[None], weights=weights)


def _class_weighted(draw: np.random.Generator) -> Data:
    weights = np.array([0.5, 1.0, 3.0])[draw.integers(0, 3, _ROWS)]
    values = weights * draw.gamma(4.0, 0.5, _ROWS)
    return Data(values=values[None], numerators=values[None], denominators=weights[None])


def _clustered(draw: np.random.Generator) -> Data:
    """100 clusters of different sizes, the rows of which share a part of their loss."""
    cluster = np.sort(draw.integers(0, 100, _ROWS))
    shared = draw.gamma(4.0, 0.5, 100)
    return Data(
        values=(shared[cluster] + draw.normal(0, 0.3, _ROWS))[None], clusters=Column(cluster)
    )


_CASES: dict[str, tuple[Case, float]] = {
    "plain": (_plain, 2.0),
    # E[w^2] / E[w] x 2, where w is uniform in [0.5, 1.5].
    "weighted": (_weighted, 2.0 * (1 + 1 / 12)),
    "class-weighted": (_class_weighted, 2.0),
    "clustered": (_clustered, 2.0),
}


@pytest.mark.parametrize("name", _CASES)
def test_intervals_of_a_mean(name: str) -> None:
    """Means of plain, weighted, class-weighted and clustered rows."""
    make, true = _CASES[name]
    draw = np.random.default_rng(11)
    hits = 0
    for _ in range(_SETS):
        summary = summary_of(Settings(loss="mse_loss"), make(draw), step=_ROWS)
        low, high = statistics.estimate(summary.total).interval()
        hits += low <= true <= high
    assert 0.935 <= hits / _SETS <= 0.965


def test_intervals_of_a_paired_difference() -> None:
    """Two models over the same rows, whose losses have most of their spread in common."""
    draw = np.random.default_rng(12)
    hits = 0
    for _ in range(_SETS):
        common = draw.gamma(1.0, 2.0, _ROWS)
        values = np.stack([common, common + draw.normal(0.1, 0.5, _ROWS)])
        settings = Settings(loss="mse_loss", candidates=("a", "b"))
        summary = summary_of(settings, Data(values=values), step=_ROWS)
        low, high = statistics.difference(summary.total, 0, 1).interval()
        hits += low <= -0.1 <= high
    assert 0.935 <= hits / _SETS <= 0.965


def test_intervals_of_a_lift() -> None:
    """A slice whose mean is above that of all rows by half a unit."""
    draw = np.random.default_rng(13)
    hits = 0
    for _ in range(_SETS):
        inside = draw.random(_ROWS) < 0.3
        values = draw.gamma(4.0, 0.5, _ROWS) + np.where(inside, 0.7, 0.0)
        columns = {"c": Column(inside.astype(np.int64))}
        settings = Settings(loss="mse_loss", tables=(("c",),))
        summary = summary_of(settings, Data(values=values[None], columns=columns), step=_ROWS)
        low, high = statistics.lift(summary.tables[0].slices[1], summary.total).interval()
        hits += low <= 0.7 * 0.7 <= high
    assert 0.935 <= hits / _SETS <= 0.965
