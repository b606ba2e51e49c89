"""Histograms out of sketches."""

from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from losswire import summaries
from losswire.client import Summary


def _summary(values: Sequence[float]) -> Summary:
    state = summaries.SummaryState(summaries.Settings(loss="mse_loss", scale=8))
    state.add(summaries.Rows(values=np.array([values], np.float64)))
    return Summary(state.message())


_CASES: Mapping[str, Sequence[float]] = {
    "positive": np.random.default_rng(1).gamma(1.0, 1.0, 5000).tolist(),
    "both signs and zeros": [
        *np.random.default_rng(2).standard_normal(5000).tolist(),
        *[0.0] * 500,
    ],
    "negative": (-np.random.default_rng(3).random(300) - 1).tolist(),
    "one value": [2.5] * 7,
    "zeros": [0.0] * 3,
    "powers of two": [1.0, 2.0, 4.0, 8.0],
}


@pytest.mark.parametrize("case", [each for each in _CASES if each != "powers of two"])
@pytest.mark.parametrize("bins", [1, 7, 50])
def test_equal_bins_are_numpys(case: str, bins: int) -> None:
    """The edges are numpy's own; rows near an edge may be counted on its other side."""
    values = _CASES[case]
    found = _summary(values).histogram(bins)
    expected, edges = np.histogram(values, bins)
    np.testing.assert_allclose(found.edges, edges, rtol=1e-12, atol=1e-15)
    assert found.weights.sum() == pytest.approx(len(values), rel=1e-12)
    np.testing.assert_allclose(found.weights.cumsum(), expected.cumsum(), atol=0.015 * len(values))


@pytest.mark.parametrize("case", _CASES)
def test_own_buckets_are_exact(case: str) -> None:
    """Every row is between the edges of its bucket, and edges ascend."""
    values = np.array(_CASES[case])
    found = _summary(_CASES[case]).histogram()
    assert (np.diff(found.edges) > 0).all()
    assert found.weights.sum() == len(values)
    inner = (found.edges[:-1] > 0) & (found.weights > 0)
    for low, high, weight in zip(
        found.edges[:-1][inner], found.edges[1:][inner], found.weights[inner], strict=True
    ):
        assert ((values > low) & (values <= high)).sum() == weight


def test_given_edges_leave_others_out() -> None:
    """What is outside of all edges is not counted; a value at the last edge is."""
    summary = _summary([0.0, 0.5, 1.5, 2.5, 9.0])
    assert summary.histogram([0, 1, 2]).weights.tolist() == [2.0, 1.0]
    assert summary.histogram([2, 100]).weights.tolist() == [2.0]
    assert _summary([0.0, 0.0, -1.0]).histogram([-2, 0]).weights.tolist() == [3.0]


@pytest.mark.parametrize("bins", [0, -3, [1.0], [2.0, 1.0], [1.0, 1.0], []])
def test_bins_that_are_none(bins: int | list[float]) -> None:
    """Are named."""
    with pytest.raises(ValueError, match="bins"):
        _summary([1.0]).histogram(bins)


def test_infinite_bounds_are_none() -> None:
    """The largest float has a bucket, too, which ends there."""
    largest = np.finfo(np.float64).max
    message = _summary([1.0, 2.0]).message
    losses = message.total.distributions[0]
    losses.maximum = largest
    losses.sketch.positive_indices[1] = summaries.bucket_indices([largest], 8)[0]
    found = Summary(message)
    assert found.histogram().edges[-1] == found.histogram(3).edges[-1] == largest


def test_a_histogram_is_shown_in_one_line() -> None:
    """Its range and weight, not its hundreds of edges."""
    summary = _summary(_CASES["positive"])
    assert repr(summary.histogram([0, 1, 20])) == "<Histogram: 2 bins from 0 to 20, weight 5000>"
    assert repr(_summary([]).histogram()) == "<Histogram: no bins>"
