"""Bars and cumulative shares from a sketch."""

import math
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from losswire.summaries import MIN_SCALE, bucket_bounds
from losswire.v1.summary_pb2 import LossSketch


@dataclass(frozen=True)
class Bar:
    """The weight of the values from `low` to `high`."""

    low: float
    high: float
    weight: float


def bars_of(sketch: LossSketch) -> list[Bar]:
    """Return every bucket that is not empty, from the smallest value to the largest."""
    scale = sketch.scale
    negative = [
        Bar(-high, -low, weight)
        for low, high, weight in _bounds(sketch.negative_indices, sketch.negative_weights, scale)
    ]
    zero = [Bar(0.0, 0.0, sketch.zero_weight)] if sketch.zero_weight else []
    positive = [
        Bar(low, high, weight)
        for low, high, weight in _bounds(sketch.positive_indices, sketch.positive_weights, scale)
    ]
    return [*reversed(negative), *zero, *positive]


def _bounds(indices: object, weights: object, scale: int) -> Iterator[tuple[float, float, float]]:
    """Return low, high and weight of each bucket, by ascending magnitude."""
    for index, weight in zip(indices, weights, strict=True):  # type: ignore[call-overload]
        low, high = bucket_bounds(index, scale)
        yield low, high, weight


def coarser(sketch: LossSketch, most: int) -> LossSketch:
    """Return a sketch whose buckets span at most `most` neighbours on each side."""
    while sketch.scale > MIN_SCALE and _widest(sketch) > most:
        sketch = halved(sketch)
    return sketch


def halved(sketch: LossSketch) -> LossSketch:
    """Return a sketch with the scale lowered by one.

    That joins two neighbours each, so that nothing is estimated.
    """
    lowered = LossSketch(scale=sketch.scale - 1, zero_weight=sketch.zero_weight)
    for side in ("positive", "negative"):
        joined: dict[int, float] = {}
        for index, weight in zip(
            getattr(sketch, f"{side}_indices"), getattr(sketch, f"{side}_weights"), strict=True
        ):
            # Bucket i has (b^i, b^(i+1)], so the wider bucket's index is floor(i / 2).
            joined[index >> 1] = joined.get(index >> 1, 0.0) + weight
        getattr(lowered, f"{side}_indices").extend(joined)
        getattr(lowered, f"{side}_weights").extend(joined.values())
    return lowered


def _widest(sketch: LossSketch) -> int:
    """Return how many neighbouring buckets the wider side spans."""
    return max(
        each[-1] - each[0] + 1 if each else 0
        for each in (sketch.positive_indices, sketch.negative_indices)
    )


def total(bars: Sequence[Bar]) -> float:
    """Return the weight of all bars."""
    return math.fsum(each.weight for each in bars)


def rebinned(bars: list[Bar], edges: list[float]) -> list[Bar]:
    """Return bars with these edges; a bucket that an edge divides is shared out by width.

    What lies beyond the first or the last edge is left out.
    """
    weights = [0.0] * (len(edges) - 1)
    for bar in bars:
        if bar.high == bar.low:
            where = bisect_right(edges, bar.low) - 1
            if bar.low == edges[-1]:
                where -= 1
            if 0 <= where < len(weights):
                weights[where] += bar.weight
            continue
        first = max(0, bisect_right(edges, bar.low) - 1)
        for i in range(first, len(weights)):
            if edges[i] >= bar.high:
                break
            overlap = min(bar.high, edges[i + 1]) - max(bar.low, edges[i])
            if overlap > 0:
                weights[i] += bar.weight * overlap / (bar.high - bar.low)
    return [
        Bar(low, high, weight) for (low, high), weight in zip(pairwise(edges), weights, strict=True)
    ]


def cumulative(
    bars: list[Bar], most: int, place: Callable[[float], float]
) -> list[tuple[float, float]]:
    """Return points (value, share of the weight up to it), those too near each other left out."""
    everything = total(bars)
    points: list[tuple[float, float]] = []
    if not everything:
        return points
    points.append((bars[0].low, 0.0))
    running, at, height = 0.0, place(bars[0].low), 0.0
    for bar in bars:
        running += bar.weight
        share = min(1.0, running / everything)
        if abs(place(bar.high) - at) + (share - height) >= 1 / most or bar is bars[-1]:
            points.append((bar.high, share))
            at, height = place(bar.high), share
    return points
