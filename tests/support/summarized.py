"""Summaries of drawn rows, and what numpy says of the same rows."""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from losswire.summaries import Column, Rows, Settings, SummaryState, statistics
from losswire.v1 import summary_pb2

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Data:
    """Rows of a data set, of k candidates."""

    values: Floats
    """(k, N)."""
    numerators: Floats | None = None
    denominators: Floats | None = None
    weights: Floats | None = None
    counted: npt.NDArray[np.bool_] | None = None
    columns: dict[str, Column] = field(default_factory=dict)
    clusters: Column | None = None
    ids: Column | None = None

    @property
    def count(self) -> int:
        """The number of rows."""
        return len(self.values[0])

    def between(self, start: int, stop: int) -> Rows:
        """Return some rows, which are neighbours."""

        def cut(array: Floats | None) -> Floats | None:
            return None if array is None else array[..., start:stop]

        def cut_column(column: Column | None) -> Column | None:
            return None if column is None else Column(column.codes[start:stop], column.labels)

        return Rows(
            values=self.values[:, start:stop],
            numerators=cut(self.numerators),
            denominators=cut(self.denominators),
            weights=cut(self.weights),
            counted=None if self.counted is None else self.counted[:, start:stop],
            columns={
                name: Column(each.codes[start:stop], each.labels)
                for name, each in self.columns.items()
            },
            clusters=cut_column(self.clusters),
            ids=cut_column(self.ids),
            partition="data",
            first_row=start,
        )


def summary_of(
    settings: Settings, data: Data, start: int = 0, stop: int | None = None, step: int = 700
) -> summary_pb2.LossSummary:
    """Summarize rows of the data, some at a time."""
    state = SummaryState(settings)
    end = data.count if stop is None else stop
    for first in range(start, end, step):
        state.add(data.between(first, min(first + step, end)))
    return state.message()


_IN_LAST_BITS = (
    "sum",
    "mean_numerator",
    "mean_denominator",
    "weight_sum",
    "weight_square_sum",
    "origin",
    "terms",
    "values",
)


def _groups(summary: summary_pb2.LossSummary) -> list[summary_pb2.GroupSummary]:
    return [summary.total, *(each for table in summary.tables for each in table.slices)]


def exact(summary: summary_pb2.LossSummary) -> summary_pb2.LossSummary:
    """Return a summary without what depends on the order of merging: the sums."""
    found = summary_pb2.LossSummary()
    found.CopyFrom(summary)
    for group in _groups(found):
        group.ClearField("joint")
        group.ClearField("clusters")
        for each in group.distributions:
            for name in _IN_LAST_BITS:
                each.ClearField(name)  # type: ignore[arg-type]
    return found


def sums(summary: summary_pb2.LossSummary) -> list[float]:
    """Return the sums of a summary, and what follows from its moments, in one order."""
    found: list[float] = []
    for group in _groups(summary):
        for candidate, each in enumerate(group.distributions):
            found += [each.sum, each.mean_numerator, each.mean_denominator]
            found += [each.weight_sum, each.weight_square_sum, each.values.weight]
            found += [each.origin + each.values.means[0], *each.values.products]
            estimates = [statistics.estimate(group, candidate), statistics.estimate_of(each)]
            found += [part for at in estimates for part in (at.mean, at.standard_error, at.count)]
        for first in range(len(group.distributions)):
            for second in range(first):
                between = statistics.difference(group, first, second)
                found += [between.mean, between.standard_error, between.count]
    return found
