"""The losses of one candidate of a summary or a comparison."""

from functools import cached_property

from losswire.summaries.figures.row_loss import RowLoss, row_loss
from losswire.summaries.figures.slices import SliceTable, Tables
from losswire.summaries.figures.statistics import Statistics
from losswire.v1 import summary_pb2


class CandidateStatistics(Statistics):
    """The losses of one candidate of a comparison, over all rows and by slice.

    Example:
        >>> batch = {"x": [1.0, 3.0], "y": [2.0, 3.0], "target": [0.0, 0.0]}
        >>> candidates = {"a": {"input": "x"}, "b": {"input": "y"}}
        >>> client.compare("mse_loss", [batch], candidates=candidates)["b"].worst[0].value
        9.0
    """

    def __init__(self, message: summary_pb2.LossSummary, candidate: int) -> None:
        """Wrap one candidate of a message; a comparison makes its own."""
        super().__init__(message.total, message.loss, candidate)
        self._message = message

    @cached_property
    def slices(self) -> Tables[SliceTable]:
        """The tables of slices, as `Summary.slices`."""
        return slices_of(self._message, self._candidate)

    @cached_property
    def worst(self) -> list[RowLoss]:
        """The rows with the largest losses, NaN before all others, the worst first."""
        return worst_of(self._message, self._candidate)


def slices_of(message: summary_pb2.LossSummary, candidate: int = 0) -> Tables[SliceTable]:
    """Return the tables of slices of one candidate, by column."""
    total, loss = message.total, message.loss
    return Tables(message.tables, lambda table: SliceTable(table, total, loss, candidate))


def worst_of(message: summary_pb2.LossSummary, candidate: int = 0) -> list[RowLoss]:
    """Return the rows with the largest losses of one candidate, the worst first."""
    return [row_loss(each, candidate) for each in message.total.distributions[candidate].worst]
