"""A distribution of losses as a histogram, out of the buckets of a sketch."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from losswire.summaries import bucket_bounds
from losswire.v1 import summary_pb2

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Histogram:
    """How much weight the losses have between each two edges.

    Example:
        >>> batch = {"input": [1.0, 1.0, 3.0], "target": [0.0, 0.0, 0.0]}
        >>> histogram = client.summarize("mse_loss", [batch]).histogram(bins=2)
        >>> histogram.edges.tolist(), histogram.weights.tolist()
        ([1.0, 5.0, 9.0], [2.0, 1.0])
    """

    edges: Floats
    """The edges, float64 of shape (B + 1), in ascending order."""
    weights: Floats
    """The weight of the rows between each two edges, float64 of shape (B); without weights, the
    number of rows."""

    def __repr__(self) -> str:
        if not len(self.weights):
            return "<Histogram: no bins>"
        low, high = self.edges[0], self.edges[-1]
        return (
            f"<Histogram: {len(self.weights):,} bins from {low:.6g} to {high:.6g}, "
            f"weight {self.weights.sum():.6g}>"
        )


def histogram_of(
    sketch: summary_pb2.LossSketch,
    bins: int | Sequence[float] | None,
    extremes: tuple[float, float] | None = None,
) -> Histogram:
    """Return the histogram of a sketch.

    `bins`: None: its own buckets; a number of bins of equal width between the extremes; or edges.
    A bucket that an edge cuts is divided as if its values were spread evenly. `extremes` are the
    smallest and the largest value, where they are known. Raises ValueError for bins that are
    none, TypeError for edges that are no numbers.
    """
    if bins is None:
        return _own_buckets(sketch, extremes)
    edges, weights = _points(sketch, extremes)
    if isinstance(bins, int):
        if bins < 1:
            raise ValueError(f"bins: expected a number of at least 1, or edges, got {bins}")
        low, high = (edges[0, 0], edges[-1, 1]) if len(weights) else (0.0, 1.0)
        if low == high:
            low, high = low - 0.5, high + 0.5
        with np.errstate(over="ignore"):  # in an edge that numpy then replaces by `high`
            wanted = np.linspace(low, high, bins + 1)
    else:
        wanted = np.asarray(bins, np.float64)
        if wanted.ndim != 1 or len(wanted) < 2 or not (np.diff(wanted) > 0).all():  # noqa: PLR2004
            raise ValueError("bins: expected at least 2 edges in ascending order")
    return Histogram(wanted, _distributed(edges, weights, wanted))


def _own_buckets(sketch: summary_pb2.LossSketch, extremes: tuple[float, float] | None) -> Histogram:
    """Return the buckets that are not empty, and the gaps between them.

    Zeros are in the bin between 0 and the smallest magnitude.
    """
    bounds = [each for each in _bounds(sketch) if each[1] > each[0]]
    zero = sketch.zero_weight
    if zero:
        above = min((low for low, _, _ in bounds if low >= 0), default=None)
        below = max((high for _, high, _ in bounds if high <= 0), default=-np.nextafter(0.0, 1.0))
        between = (0.0, above, zero) if above is not None else (below, 0.0, zero)
        bounds = sorted([*bounds, between])
    if not bounds:
        return Histogram(np.zeros(1), np.zeros(0))
    edges, weights = [bounds[0][0]], []
    for low, high, weight in bounds:
        if low > edges[-1]:
            edges.append(low)
            weights.append(0.0)
        edges.append(high)
        weights.append(weight)
    found = np.array(edges)
    if extremes is not None:
        # The bound of a bucket may be infinite.
        found[0] = found[0] if np.isfinite(found[0]) else extremes[0]
        found[-1] = found[-1] if np.isfinite(found[-1]) else extremes[1]
    return Histogram(found, np.array(weights))


def _points(
    sketch: summary_pb2.LossSketch, extremes: tuple[float, float] | None
) -> tuple[Floats, Floats]:
    """Return the bounds of each bucket, of shape (B, 2), and its weight; zeros have no width."""
    bounds = _bounds(sketch)
    if not bounds:
        return np.zeros((0, 2)), np.zeros(0)
    edges = np.array([each[:2] for each in bounds])
    if extremes is not None:
        # The outermost buckets end where the values do.
        edges = np.clip(edges, *extremes)
    return edges, np.array([each[2] for each in bounds])


def _bounds(sketch: summary_pb2.LossSketch) -> list[tuple[float, float, float]]:
    """Return the bounds and the weight of each bucket that is not empty, in ascending order."""
    negative = _side(sketch.negative_indices, sketch.negative_weights, sketch.scale)
    positive = _side(sketch.positive_indices, sketch.positive_weights, sketch.scale)
    zero = [(0.0, 0.0, sketch.zero_weight)] if sketch.zero_weight else []
    return [*((-high, -low, weight) for low, high, weight in reversed(negative)), *zero, *positive]


def _side(
    indices: Sequence[int], weights: Sequence[float], scale: int
) -> list[tuple[float, float, float]]:
    return [
        (*bucket_bounds(index, scale), weight)
        for index, weight in zip(indices, weights, strict=True)
    ]


def _distributed(edges: Floats, weights: Floats, wanted: Floats) -> Floats:
    """Return the weights between other edges; the last bin has its upper edge, as numpy's does."""
    found = np.zeros(len(wanted) - 1)
    lows, highs = edges[:, 0], edges[:, 1]
    points = lows == highs
    # A bucket without a width is one value.
    inside = points & (lows >= wanted[0]) & (lows <= wanted[-1])
    at = np.searchsorted(wanted, lows[inside], side="right") - 1
    np.add.at(found, np.minimum(at, len(found) - 1), weights[inside])
    spread = ~points
    for low, high, weight in zip(lows[spread], highs[spread], weights[spread], strict=True):
        if weight:
            first = max(int(np.searchsorted(wanted, low, side="right")) - 1, 0)
            last = min(int(np.searchsorted(wanted, high, side="left")), len(found))
            part = np.clip(wanted[first : last + 1], low, high)
            found[first:last] += weight * (np.diff(part) / (high - low))
    return found
