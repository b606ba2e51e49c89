"""What the losses of some rows are like."""

import math
from collections.abc import Sequence
from functools import cached_property
from typing import Any, overload

from losswire.summaries import statistics
from losswire.summaries.figures import derived
from losswire.summaries.figures.histogram import Histogram, histogram_of
from losswire.summaries.statistics import Estimate
from losswire.v1 import summary_pb2
from losswire.wire import json_number, json_values


class Statistics:
    """The losses of some rows: all of a summary, those of a slice, or of one candidate.

    A row's loss is its value without reduction; of elementwise losses and sequences, the weighted
    mean of the row's values. All numbers are float64.

    Example:
        >>> batch = {"input": [1.0, 3.0], "target": [0.0, 0.0], "country": ["DE", "FR"]}
        >>> summary = client.summarize("mse_loss", [batch], slices=["country"])
        >>> summary.mean, summary.slices["country"]["FR"].mean
        (5.0, 9.0)
    """

    def __init__(self, group: summary_pb2.GroupSummary, loss: str, candidate: int = 0) -> None:
        """Wrap the rows of a message; a summary makes its own."""
        self._group = group
        self._loss = loss
        self._candidate = candidate
        self._losses = group.distributions[candidate]

    @property
    def count(self) -> int:
        """How many rows take part: neither ignored by the loss nor of weight 0."""
        return self._losses.count

    @property
    def ignored_count(self) -> int:
        """How many rows do not take part."""
        return self._losses.ignored_count

    @property
    def nan_count(self) -> int:
        """How many rows that take part have the loss NaN."""
        return self._losses.nan_count

    @property
    def infinite_count(self) -> int:
        """How many rows that take part have an infinite loss."""
        return statistics.infinite_count(self._losses)

    @property
    def weight_sum(self) -> float:
        """The sum of the weights of the rows whose loss is finite; their number without weights."""
        return self._losses.weight_sum

    @property
    def sum(self) -> float:
        """The sum of the finite losses, each times its weight."""
        return self._losses.sum

    @property
    def mean_numerator(self) -> float:
        """The sum of the mean's numerators over the rows whose loss is finite."""
        return self._losses.mean_numerator

    @property
    def mean_denominator(self) -> float:
        """The sum of the mean's denominators over the same rows, such as class weights."""
        return self._losses.mean_denominator

    @property
    def mean(self) -> float:
        """The loss as torch's reduction gives it for all rows: numerators over denominators.

        NaN or infinite if the loss of a row is.
        """
        return statistics.mean(self._losses)

    @property
    def finite_mean(self) -> float:
        """The mean of the rows whose loss is finite; NaN where there are none."""
        return statistics.finite_mean(self._losses)

    @property
    def standard_error(self) -> float:
        """The standard error of the mean; by clusters where the rows have them.

        NaN where it is unknown: with fewer than two rows or clusters, or where the mean is not
        finite.
        """
        return self._estimate.standard_error

    @property
    def clustered(self) -> bool:
        """Whether the standard error is that of clusters."""
        return self._estimate.clustered

    @property
    def small(self) -> bool:
        """Whether fewer than 30 rows or clusters make the interval narrower than it should be."""
        return self._estimate.small

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Return the bounds that contain the true mean with probability `level`, in (0, 1).

        By the normal law; NaN where the standard error is. ValueError for other levels.

        Example:
            >>> batch = {"input": [1.0, 3.0], "target": [0.0, 0.0]}
            >>> low, high = client.summarize("mse_loss", [batch]).interval(0.95)
            >>> round(low, 2), round(high, 2)
            (-2.84, 12.84)
        """
        return self._estimate.interval(level)

    @property
    def std(self) -> float:
        """The standard deviation of the finite losses, by weight; NaN with fewer than two rows."""
        return statistics.std(self._losses)

    @property
    def minimum(self) -> float | None:
        """The smallest finite loss; None where there is none."""
        return self._losses.minimum if self._losses.HasField("minimum") else None

    @property
    def maximum(self) -> float | None:
        """The largest finite loss; None where there is none."""
        return self._losses.maximum if self._losses.HasField("maximum") else None

    @overload
    def quantile(self, q: float) -> float: ...
    @overload
    def quantile(self, q: Sequence[float]) -> list[float]: ...
    def quantile(self, q: float | Sequence[float]) -> float | list[float]:
        """Return the loss that a share `q` in [0, 1] of the weight does not exceed.

        Of the finite losses, and off by at most the summary's `accuracy` of itself. A list of
        shares gives a list. NaN where there are no rows; ValueError for other shares.

        Example:
            >>> batch = {"input": [1.0, 3.0], "target": [0.0, 0.0]}
            >>> client.summarize("mse_loss", [batch]).quantile([0, 1])
            [1.0, 9.0]
        """
        if isinstance(q, (int, float)):
            return statistics.quantile(self._losses, q)
        return [statistics.quantile(self._losses, each) for each in q]

    def histogram(self, bins: int | Sequence[float] | None = None) -> Histogram:
        """Return the weight of the finite losses by value.

        `bins`: None: the logarithmic buckets of the summary, which is exact; a number of bins of
        equal width; or their edges, in ascending order. A bucket that an edge cuts is divided as
        if its losses were spread evenly. Losses outside of given edges are not counted.
        ValueError for other bins.

        Example:
            >>> batch = {"input": [1.0, 3.0], "target": [0.0, 0.0]}
            >>> client.summarize("mse_loss", [batch]).histogram([0, 4, 10]).weights.tolist()
            [1.0, 1.0]
        """
        low, high = self.minimum, self.maximum
        extremes = None if low is None or high is None else (low, high)
        return histogram_of(self._losses.sketch, bins, extremes)

    @property
    def perplexity(self) -> float:
        """exp(mean) of a cross entropy of one choice of many, in choices.

        Of cross_entropy, linear_cross_entropy and nll_loss; ValueError for other losses.
        """
        return derived.PERPLEXITY.of(self._loss, self.mean)

    @property
    def rmse(self) -> float:
        """The square root of the mean of mse_loss; ValueError for other losses."""
        return derived.RMSE.of(self._loss, self.mean)

    @property
    def bits_per_dimension(self) -> float:
        """The mean over log(2) of a negative log-likelihood, in bits a value.

        Of cross entropies, binary ones included, gaussian_nll_loss and poisson_nll_loss; ValueError
        for other losses.
        """
        return derived.BITS_PER_DIMENSION.of(self._loss, self.mean)

    @cached_property
    def derived_figures(self) -> dict[str, tuple[float, tuple[float, float]]]:
        """`perplexity`, `rmse`, `bits_per_dimension`, where the loss has them, with 95 % intervals.

        By name: the figure, and its two bounds, which are those of the mean, transformed.
        """
        low, high = self.interval()
        return {
            each.name: (each.of_mean(self.mean), (each.of_mean(low), each.of_mean(high)))
            for each in derived.ALL
            if self._loss in each.losses
        }

    def to_dict(self) -> dict[str, Any]:
        """Return the figures with values that JSON has; NaN and infinities as texts.

        Example:
            >>> batch = {"input": [1.0, 3.0], "target": [0.0, 0.0]}
            >>> client.summarize("mse_loss", [batch]).to_dict()["mean"]
            5.0
        """
        return figures(self)

    @cached_property
    def _estimate(self) -> Estimate:
        return statistics.estimate(self._group, self._candidate)

    def __repr__(self) -> str:
        return f"<Statistics: {sentence(self)}>"


_COUNTS = ("count", "ignored_count", "nan_count", "infinite_count")
_NUMBERS = (
    "weight_sum",
    "mean",
    "finite_mean",
    "standard_error",
    "std",
    "minimum",
    "maximum",
    "sum",
    "mean_numerator",
    "mean_denominator",
)
QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
"""The quantiles that tables show."""


def figures(of: Statistics) -> dict[str, Any]:
    """Return all figures by name, as JSON has them."""
    low, high = of.interval()
    found: dict[str, Any] = {name: getattr(of, name) for name in _COUNTS}
    found |= {name: json_values(getattr(of, name)) for name in _NUMBERS}
    found["interval"] = [json_number(low), json_number(high)]
    found |= {"clustered": of.clustered, "small": of.small}
    found["quantiles"] = {
        f"{share:g}": json_number(value)
        for share, value in zip(QUANTILES, of.quantile(QUANTILES), strict=True)
    }
    found |= {name: json_number(value) for name, (value, _) in of.derived_figures.items()}
    return found


def sentence(of: Statistics) -> str:
    """Return the number of rows and the mean with its interval, and what to beware of."""
    rows = f"{of.count:,} row{'' if of.count == 1 else 's'}"
    if not of.count:
        return ", ".join([rows, *warnings(of)])
    low, high = of.interval()
    interval = f" (95 % {low:.6g} to {high:.6g})" if math.isfinite(high - low) else ""
    return ", ".join([rows, f"mean {of.mean:.6g}{interval}", *warnings(of)])


def warnings(of: Statistics) -> list[str]:
    """Return what to beware of, in words."""
    found = []
    if of.nan_count:
        found.append(f"{of.nan_count:,} with the loss NaN")
    if of.infinite_count:
        found.append(f"{of.infinite_count:,} with an infinite loss")
    if (of.nan_count or of.infinite_count) and of.weight_sum:
        found.append(f"the others have the mean {of.finite_mean:.6g}")
    if of.ignored_count:
        found.append(f"{of.ignored_count:,} ignored")
    if of.count and of.small:
        found.append("too few for the normal law")
    return found
