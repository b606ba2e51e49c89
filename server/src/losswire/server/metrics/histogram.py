"""Histograms with fixed bounds."""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Final

SECONDS: Final = (
    *(0.0, 1e-05, 5e-05, 1e-04, 3e-04, 6e-04, 8e-04),
    *(0.001, 0.002, 0.003, 0.004, 0.005, 0.006, 0.008),
    *(0.01, 0.013, 0.016, 0.02, 0.025, 0.03, 0.04, 0.05, 0.065, 0.08),
    *(0.1, 0.13, 0.16, 0.2, 0.25, 0.3, 0.4, 0.5, 0.65, 0.8),
    *(1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0),
)
"""The bounds of durations that gRFC A66 fixes."""

_BYTES_POWERS: Final = (10, 11, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30, 32)
BYTES: Final = (0.0, *(2.0**power for power in _BYTES_POWERS))
"""The bounds of message sizes that gRFC A66 fixes."""

STAGE_SECONDS: Final = (
    *(2e-06, 5e-06, 1e-05, 2e-05, 5e-05, 1e-04, 2e-04, 5e-04, 0.001, 0.002, 0.005),
    *(0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 60.0),
)
"""The bounds of the durations of stages, which begin at microseconds."""

COUNTS: Final = tuple(2.0**power for power in range(13))
"""The bounds of how many evaluations are computed together."""


class Histogram:
    """How many observations there were up to each bound, and their sum. One thread at a time."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        """Begin empty; the bounds ascend, and each belongs to the bucket below it."""
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    @property
    def count(self) -> int:
        """The number of observations."""
        return sum(self.counts)

    def observe(self, value: float) -> None:
        """Add an observation."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def copy(self) -> "Histogram":
        """Return what was observed until now."""
        copied = Histogram(self.bounds)
        copied.counts = self.counts[:]
        copied.sum = self.sum
        return copied

    def cumulative(self) -> Iterator[tuple[float, int]]:
        """Return each bound, infinity last, and the number of observations up to it."""
        return zip((*self.bounds, float("inf")), accumulate(self.counts), strict=True)
