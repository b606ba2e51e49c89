"""How the losses of two candidates differ over the same rows."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, overload

from losswire.summaries import statistics
from losswire.summaries.figures.histogram import Histogram, histogram_of
from losswire.summaries.figures.row_loss import RowLoss, row_loss
from losswire.summaries.figures.slices import Table, Tables
from losswire.summaries.statistics import Estimate
from losswire.v1 import summary_pb2
from losswire.wire import json_number

LEVEL = 0.05
"""The p value below which a difference is said to be there."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Two candidates, by their positions and names."""

    first: int
    second: int
    names: tuple[str, str]
    position: int
    """Where the pair is among all pairs of a message."""

    @property
    def is_turned(self) -> bool:
        """Whether the message has it the other way round."""
        return self.first > self.second


def pair_of(candidates: Sequence[str], first: int, second: int) -> Pair:
    """Return the pair of two different candidates."""
    low, high = sorted((first, second))
    # Pairs are 0 and 1, 0 and 2, ..., 1 and 2, ...
    position = low * len(candidates) - low * (low + 1) // 2 + high - low - 1
    return Pair(first, second, (candidates[first], candidates[second]), position)


@dataclass(frozen=True, slots=True)
class SliceDifference:
    """How two candidates differ in one slice.

    Example:
        >>> batch = {"x": [1.0, 3.0], "y": [2.0, 3.0], "target": [0.0, 0.0], "c": ["u", "v"]}
        >>> candidates = {"a": {"input": "x"}, "b": {"input": "y"}}
        >>> comparison = client.compare("mse_loss", [batch], candidates=candidates, slices=["c"])
        >>> [each.label for each in comparison.by_slice("c")]
        ['v', 'u']
    """

    label: str
    """The slice."""
    difference: "Difference"
    """The difference there."""
    p_value: float
    """How probable so large a difference is where there is none, taken alone."""
    p_adjusted: float
    """The same, corrected for the number of slices (Holm 1979)."""
    small: bool
    """Whether fewer than 30 rows or clusters make the p value too small."""


class Difference:
    """The losses of one candidate minus those of another, row by row over the same rows.

    Rows that are not finite in all candidates have no part in it. A win is a row where the first
    has the smaller loss.

    Example:
        >>> batch = {"x": [1.0, 3.0], "y": [2.0, 3.0], "target": [0.0, 0.0]}
        >>> candidates = {"a": {"input": "x"}, "b": {"input": "y"}}
        >>> comparison = client.compare("mse_loss", [batch], candidates=candidates)
        >>> difference = comparison.difference("a", "b")
        >>> difference.mean, difference.wins, difference.ties, difference.losses
        (-1.5, 1, 1, 0)
    """

    def __init__(
        self,
        group: summary_pb2.GroupSummary,
        pair: Pair,
        tables: Sequence[summary_pb2.SliceTable] = (),
    ) -> None:
        """Wrap the rows of a message; a comparison makes its own."""
        self._group = group
        self._pair = pair
        self._tables = tables
        self._kept = group.pairs[pair.position]

    @property
    def names(self) -> tuple[str, str]:
        """The first and the second candidate."""
        return self._pair.names

    @property
    def count(self) -> int:
        """How many rows are compared: those that are finite in both."""
        return self._kept.wins + self._kept.ties + self._kept.losses

    @property
    def mean(self) -> float:
        """The mean of the first minus that of the second; NaN where one of them is not finite."""
        return self._estimate.mean

    @property
    def standard_error(self) -> float:
        """The standard error of the paired difference; by clusters where the rows have them."""
        return self._estimate.standard_error

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Return the bounds that contain the true difference with probability `level`, in (0, 1).

        ValueError for other levels.
        """
        return self._estimate.interval(level)

    @property
    def p_value(self) -> float:
        """How probable a difference at least as large is where there is none; two-sided."""
        return self._estimate.p_value

    @property
    def clustered(self) -> bool:
        """Whether the standard error is that of clusters."""
        return self._estimate.clustered

    @property
    def small(self) -> bool:
        """Whether fewer than 30 rows or clusters make interval and p value too small."""
        return self._estimate.small

    @property
    def wins(self) -> int:
        """How many rows have a smaller loss with the first."""
        return self._kept.losses if self._pair.is_turned else self._kept.wins

    @property
    def ties(self) -> int:
        """How many rows have equal losses."""
        return self._kept.ties

    @property
    def losses(self) -> int:
        """How many rows have a larger loss with the first."""
        return self._kept.wins if self._pair.is_turned else self._kept.losses

    @overload
    def quantile(self, q: float) -> float: ...
    @overload
    def quantile(self, q: Sequence[float]) -> list[float]: ...
    def quantile(self, q: float | Sequence[float]) -> float | list[float]:
        """Return the difference that a share `q` in [0, 1] of the weight does not exceed.

        Off by at most the comparison's `accuracy` of itself. A list of shares gives a list. NaN
        where there are no rows; ValueError for other shares.
        """
        if isinstance(q, (int, float)):
            return statistics.quantiles(self.sketch, [q])[0]
        return statistics.quantiles(self.sketch, list(q))

    def histogram(self, bins: int | Sequence[float] | None = None) -> Histogram:
        """Return the weight of the differences by value; `bins` as in `Statistics.histogram`."""
        return histogram_of(self.sketch, bins)

    @cached_property
    def worst(self) -> list[RowLoss]:
        """The rows that differ most, either way, the largest difference first.

        Of all rows: a slice has none.
        """
        return [
            row_loss(each, self._pair.first, self._pair.second)
            for each in self._kept.most_different
        ]

    @cached_property
    def slices(self) -> Tables[Table["Difference"]]:
        """The differences in slices, by column and label; as `Summary.slices`."""
        pair = self._pair
        return Tables(self._tables, lambda table: Table(table, lambda g: Difference(g, pair)))

    def by_slice(self, column: str | tuple[str, ...]) -> list[SliceDifference]:
        """Return the difference in each slice of a table, the largest first; NaN comes last.

        `p_adjusted` is corrected for the number of slices. KeyError where there is no such table.
        """
        table = self.slices[column]
        adjusted = statistics.holm([each.p_value for each in table.values()])
        found = [
            SliceDifference(label, each, each.p_value, p_adjusted, each.small)
            for (label, each), p_adjusted in zip(table.items(), adjusted, strict=True)
        ]
        return sorted(
            found,
            key=lambda each: (
                math.isnan(each.difference.mean),
                -each.difference.mean,
                each.label,
            ),
        )

    @property
    def verdict(self) -> str:
        """One sentence for people: which is better, and by how much, or that none is seen to be."""
        first, second = self.names
        if not self.count:
            return f"No row has a finite loss with {first} and {second}."
        if math.isnan(self.mean):
            return f"{first} and {second} cannot be compared: a mean is not finite."
        low, high = self.interval()
        p = f"p = {self.p_value:.2g}" if self.p_value else "p < 1e-300"
        few = " There are too few rows for the normal law." if self.small else ""
        if math.isnan(self.p_value):
            return f"{first} minus {second} is {self.mean:.4g}; its uncertainty is unknown.{few}"
        if self.p_value >= LEVEL:
            return (
                f"No difference seen between {first} and {second}: {self.mean:.4g} "
                f"(95 % interval {low:.4g} to {high:.4g}, {p}).{few}"
            )
        word, low, high = ("lower", -high, -low) if self.mean < 0 else ("higher", low, high)
        return (
            f"{first} is {word} than {second} by {abs(self.mean):.4g} "
            f"(95 % interval {low:.4g} to {high:.4g}, {p}).{few}"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the figures with values that JSON has; NaN and infinities as texts."""
        return difference_dict(self)

    @cached_property
    def _estimate(self) -> Estimate:
        return statistics.difference(self._group, self._pair.first, self._pair.second)

    @cached_property
    def sketch(self) -> summary_pb2.LossSketch:
        """The differences in logarithmic buckets."""
        sketch = self._kept.sketch
        return statistics.negated(sketch) if self._pair.is_turned else sketch

    def __repr__(self) -> str:
        return f"<Difference: {self.verdict}>"


def difference_dict(of: Difference) -> dict[str, Any]:
    """Return the figures of a difference as JSON has them."""
    low, high = of.interval()
    return {
        "first": of.names[0],
        "second": of.names[1],
        "count": of.count,
        "mean": json_number(of.mean),
        "standard_error": json_number(of.standard_error),
        "interval": [json_number(low), json_number(high)],
        "p_value": json_number(of.p_value),
        "clustered": of.clustered,
        "small": of.small,
        "wins": of.wins,
        "ties": of.ties,
        "losses": of.losses,
    }
