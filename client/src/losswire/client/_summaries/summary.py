"""The summary of a loss over a data set."""

from functools import cached_property
from pathlib import Path
from typing import Any

from losswire.client._summaries.state import State, write_page
from losswire.client._summaries.tables import frame_of
from losswire.summaries.figures.candidates import slices_of, worst_of
from losswire.summaries.figures.documents import to_dict
from losswire.summaries.figures.row_loss import RowLoss
from losswire.summaries.figures.slices import SliceTable, Tables
from losswire.summaries.figures.statistics import Statistics, sentence
from losswire.v1 import summary_pb2


class Summary(State, Statistics):
    """The losses of the rows of a data set, or of a part of it: a state that can be merged.

    Made by `Client.summarize`. Its own figures are those of all rows, see `Statistics`.

    Example:
        >>> batches = [{"input": [1.0, 3.0], "target": [0.0, 0.0]}]
        >>> summary = client.summarize("mse_loss", batches, partition="part 1")
        >>> summary.count, summary.mean, summary.rmse, summary.quantile(1)
        (2, 5.0, 2.23606797749979, 9.0)
        >>> summary.included
        {'part 1': [(0, 2)]}
    """

    def __init__(self, message: summary_pb2.LossSummary) -> None:
        """Wrap a message; ValueError when it is malformed or that of a comparison."""
        State.__init__(self, message)
        Statistics.__init__(self, message.total, message.loss)

    @cached_property
    def slices(self) -> Tables[SliceTable]:
        """The tables of slices by column; a cross by its columns, as `("a", "b")` or `"a×b"`."""
        return slices_of(self.message)

    @cached_property
    def worst(self) -> list[RowLoss]:
        """The rows with the largest losses, NaN before all others, the worst first."""
        return worst_of(self.message)

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the buckets with values that JSON has; NaN is the text "NaN".

        Example:
            >>> batch = {"input": [1.0, 3.0], "target": [0.0, 0.0]}
            >>> client.summarize("mse_loss", [batch]).to_dict()["count"]
            2
        """
        return to_dict(self.message)

    def to_frame(self) -> Any:
        """Return a pandas DataFrame with a row for all rows and one for each slice.

        ImportError without pandas, which `losswire[pandas]` has.

        Example:
            >>> batch = {"input": [1.0, 3.0], "target": [0.0, 0.0], "country": ["DE", "FR"]}
            >>> frame = client.summarize("mse_loss", [batch], slices=["country"]).to_frame()
            >>> frame[["table", "label", "mean"]].values.tolist()
            [['', '', 5.0], ['country', 'DE', 1.0], ['country', 'FR', 9.0]]
        """
        return frame_of(self, self.slices)

    def plot(self, *, column: str | None = None, figsize: tuple[float, float] | None = None) -> Any:
        """Return a figure of matplotlib: the distribution of the losses, and the slices.

        `column`: the table of slices to draw; None: the first. `figsize` is in inches. ImportError
        without matplotlib, which `losswire[plot]` has; KeyError where there is no such table.

        Example:
            >>> batch = {"input": [1.0, 3.0], "target": [0.0, 0.0]}
            >>> figure = client.summarize("mse_loss", [batch]).plot()
            >>> len(figure.axes)
            1
        """
        from losswire.client._report import plot  # noqa: PLC0415 - matplotlib is an extra

        return plot(self, column=column, figsize=figsize)

    def report(self, path: str | Path) -> Path:
        """Write one self-contained HTML page with everything, and return its path.

        Example:
            >>> import tempfile
            >>> batch = {"input": [1.0, 3.0], "target": [0.0, 0.0]}
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     client.summarize("mse_loss", [batch]).report(f"{folder}/report.html").name
            'report.html'
        """
        from losswire.client._report import summary_page  # noqa: PLC0415 - most never need it

        return write_page(summary_page(self), path)

    def __repr__(self) -> str:
        return f"<Summary of {self.loss}: {sentence(self)}>"

    def _repr_html_(self) -> str:
        from losswire.client._report.notebook import summary_fragment  # noqa: PLC0415 - as above

        return summary_fragment(self)
