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
class _Second:
    """Second moments of numerators and denominators over observations."""

    count: float
    means: Floats
    """(2k), of one observation."""
    products: Floats
    """(2k, 2k), centred sums of products."""

    def form(self, left: Floats, right: Floats) -> float:
        """Return the sum over observations of two linear forms, each about its mean."""
        return float(left @ self.products @ right)


def _second_of(message: summary_pb2.Moments) -> _Second:
    dimension = len(message.means)
    products = np.zeros((dimension, dimension))
    lower = np.tril_indices(dimension)
    products[lower] = message.products
    products.T[lower] = message.products
    means = np.array(message.means) + np.array(message.mean_residuals)
    return _Second(message.weight, means, products)


def _clusters_of(message: summary_pb2.ClusterSummary) -> _Second:
    table = all_clusters(message)
    moments = summary_pb2.Moments()
    table.write(0, moments)
    return _second_of(moments)


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


def _standard_error(second: _Second, coefficients: Floats) -> float:
    """Return the standard error of a sum of linear forms of each observation."""
    if second.count < 2:  # noqa: PLR2004 (a variance needs two)
        return math.nan
    variance = second.form(coefficients, coefficients) * second.count / (second.count - 1)
    return math.sqrt(max(variance, 0.0))


def _coefficients(found: summary_pb2.LossDistribution) -> tuple[float, float]:
    """Return the influence of a row's numerator and denominator on the mean."""
    below = found.mean_denominator
    return _ratio(1, below), _ratio(-finite_mean(found), below)


def estimate_of(found: summary_pb2.LossDistribution) -> Estimate:
    """Return the mean of one candidate with its standard error, without regard to clusters."""
    count = found.count - found.nan_count
    count -= found.positive_infinity_count + found.negative_infinity_count
    value = mean(found)
    if not math.isfinite(value) or not len(found.terms.means):
        return Estimate(value, math.nan, count)
    second = _second_of(found.terms)
    return Estimate(value, _standard_error(second, np.array(_coefficients(found))), count)


def estimate(group: summary_pb2.GroupSummary, candidate: int = 0) -> Estimate:
    """Return the mean of a candidate in some rows; by clusters where rows have them.

    With a loss that is NaN or infinite, so is the mean, and the standard error is NaN.
    """
    plain = estimate_of(group.distributions[candidate])
    if not group.HasField("clusters"):
        return plain
    second = _clusters_of(group.clusters)
    count = int(second.count)
    if not math.isfinite(plain.mean) or not len(second.means):
        return Estimate(plain.mean, math.nan, count, clustered=True)
    form = np.zeros(len(second.means))
    at = 2 * candidate
    form[at : at + 2] = _coefficients(_of_joint(group, second, candidate))
    return Estimate(plain.mean, _standard_error(second, form), count, clustered=True)


def _of_joint(
    group: summary_pb2.GroupSummary, second: _Second, candidate: int
) -> summary_pb2.LossDistribution:
    """Return the sums of a candidate over the rows that are finite in all candidates."""
    if len(group.distributions) == 1:
        return group.distributions[0]
    above, below = second.means[2 * candidate : 2 * candidate + 2] * second.count
    return summary_pb2.LossDistribution(mean_numerator=above, mean_denominator=below)


def difference(group: summary_pb2.GroupSummary, first: int, second: int) -> Estimate:
    """Return how much the mean of one candidate is above that of another, over the same rows.

    The rows are paired: what makes a row hard for both has no part in the standard error. Rows
    that are not finite in all candidates have no part, and the difference is NaN where the mean of
    either is.
    """
    clustered = group.HasField("clusters")
    moments = _clusters_of(group.clusters) if clustered else _second_of(group.joint)
    count = int(moments.count)
    means = [mean(group.distributions[each]) for each in (first, second)]
    value = means[0] - means[1] if all(map(math.isfinite, means)) else math.nan
    if not math.isfinite(value) or not len(moments.means):
        return Estimate(value, math.nan, count, clustered)
    form = np.zeros(len(moments.means))
    for sign, each in ((1, first), (-1, second)):
        parts = _coefficients(_of_joint(group, moments, each))
        form[2 * each : 2 * each + 2] += sign * np.array(parts)
    return Estimate(value, _standard_error(moments, form), count, clustered)


def lift(
    part: summary_pb2.GroupSummary, whole: summary_pb2.GroupSummary, candidate: int = 0
) -> Estimate:
    """Return how much the mean of a slice is above that of all rows, of which it is a part.

    With clusters, which may be in several slices, the standard error is that of two independent
    means: too large rather than too small.
    """
    ours, every = estimate(part, candidate), estimate(whole, candidate)
    value = ours.mean - every.mean
    if ours.clustered:
        error = math.hypot(ours.standard_error, every.standard_error)
        return Estimate(value, error, ours.count, clustered=True)
    inner, outer = part.distributions[candidate], whole.distributions[candidate]
    if not math.isfinite(value) or every.count < 2 or not ours.count:  # noqa: PLR2004
        return Estimate(value, math.nan, ours.count)
    mine, total = _second_of(inner.terms), _second_of(outer.terms)
    c_part, c_whole = np.array(_coefficients(inner)), np.array(_coefficients(outer))
    # A row of the slice moves both means, and another row moves one of them.
    variance = mine.form(c_part, c_part) - 2 * mine.form(c_part, c_whole)
    variance += total.form(c_whole, c_whole)
    variance *= total.count / (total.count - 1)
    error = math.sqrt(max(variance, 0.0))
    return Estimate(value, error if ours.count > 1 else math.nan, ours.count)


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
    "lift",
    "mean",
    "quantile",
    "quantiles",
    "std",
]
