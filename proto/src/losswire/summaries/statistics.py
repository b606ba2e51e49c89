"""What a summary says: means with intervals, differences, quantiles, slices that stand out.

Derived at the end and never merged. The mean is a ratio R = A / B of sums over rows, whose variance
by the delta method is n / (n - 1) * sum (n_i - R d_i)^2 / B^2; with clusters, n_i and d_i are sums
over a cluster and n is the number of clusters. Intervals and p values are those of the normal law.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Final

import numpy as np
import numpy.typing as npt

from losswire.summaries._buckets import accuracy_of, representatives
from losswire.summaries._clusters import all_clusters
from losswire.v1 import summary_pb2

Floats = npt.NDArray[np.float64]

FEW: Final = 30
"""With fewer rows or clusters than this, the normal law is too narrow."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean or a difference of means, with its uncertainty."""

    mean: float
    """The mean or the difference."""
    standard_error: float
    """The standard deviation of the mean over repeated samples; NaN where it is unknown."""
    count: int
    """The number of independent observations: clusters where rows have them, else rows."""
    clustered: bool = False
    """Whether the observations are clusters."""

    @property
    def small(self) -> bool:
        """Whether there are too few observations (fewer than 30) for the normal law."""
        return self.count < FEW

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Return the bounds that contain the true mean with probability `level`, in (0, 1).

        Raises ValueError for other levels.
        """
        if not 0 < level < 1:
            raise ValueError(f"level: expected a number between 0 and 1, got {level}")
        half = NormalDist().inv_cdf((1 + level) / 2) * self.standard_error
        return self.mean - half, self.mean + half

    @property
    def p_value(self) -> float:
        """The two-sided p value of the hypothesis that it is 0; NaN where it is unknown."""
        if math.isnan(self.mean) or math.isnan(self.standard_error):
            return math.nan
        if self.standard_error == 0:
            return 1.0 if self.mean == 0 else 0.0
        return math.erfc(abs(self.mean / self.standard_error) / math.sqrt(2))


@dataclass(frozen=True, slots=True)
class _Observations:
    """Second moments of n - origin x d and d of each candidate, over rows or clusters."""

    count: float
    means: Floats
    """(2k), of one observation."""
    products: Floats
    """(2k, 2k), centred sums of products."""

    def ratio(self, candidate: int) -> float:
        """Return the mean of a candidate, minus its origin."""
        return _ratio(self.means[2 * candidate], self.means[2 * candidate + 1])

    def influence(self, candidate: int, ratio: float | None = None) -> Floats:
        """Return the linear form of an observation that is its influence on a candidate's mean.

        `ratio` is the mean that it is measured from, minus the origin; None: the candidate's own.
        """
        below = self.means[2 * candidate + 1] * self.count
        form = np.zeros(len(self.means))
        form[2 * candidate] = _ratio(1, below)
        form[2 * candidate + 1] = _ratio(
            -(self.ratio(candidate) if ratio is None else ratio), below
        )
        return form

    def product(self, left: Floats, right: Floats) -> float:
        """Return the sum over observations of the product of two forms, each about its mean."""
        return float(left @ self.products @ right)

    def standard_error(self, form: Floats) -> float:
        """Return the standard error of the sum of a form."""
        if self.count < 2:  # noqa: PLR2004 (a variance needs two)
            return math.nan
        variance = self.product(form, form) * self.count / (self.count - 1)
        return math.sqrt(max(variance, 0.0))


def _observations(message: summary_pb2.Moments) -> _Observations:
    dimension = len(message.means)
    products = np.zeros((dimension, dimension))
    rows, columns = np.tril_indices(dimension)
    products[rows, columns] = message.products
    products[columns, rows] = message.products
    return _Observations(message.weight, np.array(message.means), products)


def _clusters_of(message: summary_pb2.ClusterSummary) -> _Observations:
    moments = summary_pb2.Moments()
    all_clusters(message).write(0, moments)
    return _observations(moments)


def finite_mean(found: summary_pb2.LossDistribution) -> float:
    """Return the mean of the finite rows; NaN where there are none."""
    return _ratio(found.mean_numerator, found.mean_denominator)


def mean(found: summary_pb2.LossDistribution) -> float:
    """Return the mean as torch's reduction gives it: NaN or infinite if a row's loss is."""
    both = found.positive_infinity_count and found.negative_infinity_count
    if found.nan_count or both:
        return math.nan
    if found.positive_infinity_count:
        return math.inf
    if found.negative_infinity_count:
        return -math.inf
    return finite_mean(found)


def _ratio(numerator: float, denominator: float) -> float:
    """Divide as in IEEE 754."""
    with np.errstate(all="ignore"):
        return float(np.float64(numerator) / np.float64(denominator))


def infinite_count(found: summary_pb2.LossDistribution) -> int:
    """Return how many rows have a loss that is infinite, of either sign."""
    return found.positive_infinity_count + found.negative_infinity_count


def _finite_count(found: summary_pb2.LossDistribution) -> int:
    return found.count - found.nan_count - infinite_count(found)


def estimate_of(found: summary_pb2.LossDistribution) -> Estimate:
    """Return the mean of one candidate with its standard error, without regard to clusters."""
    value, count = mean(found), _finite_count(found)
    if not math.isfinite(value) or not found.terms.means:
        return Estimate(value, math.nan, count)
    rows = _observations(found.terms)
    return Estimate(value, rows.standard_error(rows.influence(0)), count)


def estimate(group: summary_pb2.GroupSummary, candidate: int = 0) -> Estimate:
    """Return the mean of a candidate in some rows; by clusters where rows have them.

    With a loss that is NaN or infinite, so is the mean, and the standard error is NaN.
    """
    plain = estimate_of(group.distributions[candidate])
    if not group.HasField("clusters"):
        return plain
    clusters = _clusters_of(group.clusters)
    error = math.nan
    if math.isfinite(plain.mean) and len(clusters.means):
        error = clusters.standard_error(clusters.influence(candidate))
    return Estimate(plain.mean, error, int(clusters.count), clustered=True)


def difference(group: summary_pb2.GroupSummary, first: int, second: int) -> Estimate:
    """Return how much the mean of one candidate is above that of another, over the same rows.

    The rows are paired: what makes a row hard for both has no part in the standard error. Neither
    have rows that are not finite in all candidates. The difference is NaN where either mean is.
    """
    clustered = group.HasField("clusters")
    found = _clusters_of(group.clusters) if clustered else _observations(group.joint)
    value = _above(group.distributions[first], group.distributions[second])
    error = math.nan
    if math.isfinite(value) and len(found.means):
        error = found.standard_error(found.influence(first) - found.influence(second))
    return Estimate(value, error, int(found.count), clustered)


def _above(first: summary_pb2.LossDistribution, second: summary_pb2.LossDistribution) -> float:
    """Return how much one mean is above another, exact also where they are nearly equal."""
    ends = mean(first), mean(second)
    if not all(map(math.isfinite, ends)) or not first.terms.means or not second.terms.means:
        return ends[0] - ends[1]
    ratios = [_observations(each.terms).ratio(0) for each in (first, second)]
    return (first.origin - second.origin) + (ratios[0] - ratios[1])


def lift(
    part: summary_pb2.GroupSummary, whole: summary_pb2.GroupSummary, candidate: int = 0
) -> Estimate:
    """Return how much the mean of a slice is above that of all rows, of which it is a part.

    With clusters, which may be in several slices, the standard error is that of two independent
    means: too large rather than too small.
    """
    ours, every = estimate(part, candidate), estimate(whole, candidate)
    inner, outer = part.distributions[candidate], whole.distributions[candidate]
    value = _above(inner, outer)
    if ours.clustered:
        error = math.hypot(ours.standard_error, every.standard_error)
        return Estimate(value, error, ours.count, clustered=True)
    if not math.isfinite(value) or every.count < 2 or ours.count < 2:  # noqa: PLR2004
        return Estimate(value, math.nan, ours.count)
    mine, total = _observations(inner.terms), _observations(outer.terms)
    # A row of the slice moves both means, and another row moves one of them.
    on_part, on_whole = mine.influence(0), total.influence(0)
    shared = on_whole.copy()
    shared[1] += _ratio(outer.origin - inner.origin, -outer.mean_denominator)
    variance = mine.product(on_part, on_part) - 2 * mine.product(on_part, shared)
    variance += total.product(on_whole, on_whole)
    variance *= total.count / (total.count - 1)
    return Estimate(value, math.sqrt(max(variance, 0.0)), ours.count)


def std(found: summary_pb2.LossDistribution) -> float:
    """Return the standard deviation of the values of the finite rows, by weight.

    sqrt(n / (n - 1) * sum w (v - m)^2 / sum w), where n is the number of rows.
    """
    count, weight = found.terms.weight, found.values.weight
    if count < 2 or weight == 0:  # noqa: PLR2004 (a deviation needs two)
        return math.nan
    return math.sqrt(max(found.values.products[0], 0.0) / weight * count / (count - 1))


def effective_count(found: summary_pb2.LossDistribution) -> float:
    """Return the number of rows of equal weight with the same information: (sum w)^2 / sum w^2."""
    return _ratio(found.weight_sum**2, found.weight_square_sum)


def quantiles(sketch: summary_pb2.LossSketch, probabilities: Sequence[float]) -> list[float]:
    """Return the smallest values that have at least these shares of the weight below or at them.

    Each is off by at most `accuracy_of(sketch.scale)` of itself. NaN where there are no values.
    Raises ValueError for a probability outside of [0, 1].
    """
    for each in probabilities:
        if not 0 <= each <= 1:
            raise ValueError(f"quantile: expected a number in [0, 1], got {each}")
    values, weights = buckets(sketch)
    if not len(values):
        return [math.nan] * len(probabilities)
    cumulated = np.cumsum(weights)
    # Sums of weights are rounded: without this the quantile 1 could lie beyond the last bucket.
    wanted = np.array(probabilities) * cumulated[-1]
    at = np.searchsorted(cumulated, wanted * (1 - 1e-15), side="left")
    found: list[float] = values[np.minimum(at, len(values) - 1)].tolist()
    return found


def quantile(found: summary_pb2.LossDistribution, probability: float) -> float:
    """Return a quantile of the values of the finite rows, within their extremes."""
    [value] = quantiles(found.sketch, [probability])
    if probability in (0, 1) and found.HasField("minimum"):
        return found.maximum if probability else found.minimum
    return min(max(value, found.minimum), found.maximum) if found.HasField("minimum") else value


def buckets(sketch: summary_pb2.LossSketch) -> tuple[Floats, Floats]:
    """Return the value that represents each bucket, in ascending order, and its weight."""
    values, weights = [], []
    if sketch.negative_indices:
        indices = np.array(sketch.negative_indices, np.int64)[::-1]
        values.append(-representatives(indices, sketch.scale))
        weights.append(np.array(sketch.negative_weights)[::-1])
    if sketch.zero_weight:
        values.append(np.zeros(1))
        weights.append(np.array([sketch.zero_weight]))
    if sketch.positive_indices:
        values.append(representatives(np.array(sketch.positive_indices), sketch.scale))
        weights.append(np.array(sketch.positive_weights))
    if not values:
        return np.zeros(0), np.zeros(0)
    return np.concatenate(values), np.concatenate(weights)


def negated(sketch: summary_pb2.LossSketch) -> summary_pb2.LossSketch:
    """Return the sketch of the same numbers with the other sign."""
    return summary_pb2.LossSketch(
        scale=sketch.scale,
        zero_weight=sketch.zero_weight,
        positive_indices=sketch.negative_indices,
        positive_weights=sketch.negative_weights,
        negative_indices=sketch.positive_indices,
        negative_weights=sketch.positive_weights,
    )


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p values corrected for their number (Holm 1979), in the same order; NaN stays."""
    known = [each for each in range(len(p_values)) if not math.isnan(p_values[each])]
    adjusted = list(p_values)
    largest = 0.0
    for rank, each in enumerate(sorted(known, key=lambda at: p_values[at])):
        largest = max(largest, min(1.0, (len(known) - rank) * p_values[each]))
        adjusted[each] = largest
    return adjusted


__all__ = [
    "FEW",
    "Estimate",
    "accuracy_of",
    "buckets",
    "difference",
    "effective_count",
    "estimate",
    "estimate_of",
    "finite_mean",
    "holm",
    "infinite_count",
    "lift",
    "mean",
    "negated",
    "quantile",
    "quantiles",
    "std",
]
