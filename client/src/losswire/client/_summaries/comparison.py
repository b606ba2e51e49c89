"""Several models compared over the same rows."""

import difflib
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from losswire.client._summaries.state import State, write_page
from losswire.client._summaries.tables import frame_of, pandas
from losswire.summaries.figures.candidates import CandidateStatistics
from losswire.summaries.figures.difference import Difference, SliceDifference
from losswire.summaries.figures.documents import difference_of, differences, to_dict
from losswire.summaries.figures.row_loss import RowLoss
from losswire.summaries.figures.slices import Table, Tables
from losswire.v1 import summary_pb2


class Comparison(State, Mapping[str, CandidateStatistics]):
    """The losses of 2 to 8 candidates over the same rows: a state that can be merged.

    Made by `Client.compare`. A mapping of each candidate's name to its `Statistics`.

    Example:
        >>> batch = {"x": [1.0, 3.0], "y": [2.0, 3.0], "target": [0.0, 0.0]}
        >>> candidates = {"a": {"input": "x"}, "b": {"input": "y"}}
        >>> comparison = client.compare("mse_loss", [batch], candidates=candidates)
        >>> comparison["a"].mean, comparison["b"].mean, comparison.difference("a", "b").mean
        (5.0, 6.5, -1.5)
    """

    _is_comparison = True

    def __init__(self, message: summary_pb2.LossSummary) -> None:
        """Wrap a message; ValueError when it is malformed or that of a summary."""
        super().__init__(message)
        self._statistics = {
            name: CandidateStatistics(message, position)
            for position, name in enumerate(message.candidates)
        }

    @property
    def candidates(self) -> tuple[str, ...]:
        """The names of the candidates, in the order of the call."""
        return tuple(self._statistics)

    def __getitem__(self, candidate: str) -> CandidateStatistics:
        self._position(candidate)
        return self._statistics[candidate]

    def __iter__(self) -> Iterator[str]:
        return iter(self._statistics)

    def __len__(self) -> int:
        return len(self._statistics)

    def _position(self, candidate: str) -> int:
        names = list(self._statistics)
        if candidate in self._statistics:
            return names.index(candidate)
        near = difflib.get_close_matches(str(candidate), names, n=3) or names
        raise KeyError(f"no candidate {candidate!r}; nearest: {', '.join(near)}")

    def worst(self, candidate: str) -> list[RowLoss]:
        """Return the rows with a candidate's largest losses, the worst first; KeyError.

        Example:
            >>> batch = {"x": [1.0, 3.0], "y": [2.0, 3.0], "target": [0.0, 0.0]}
            >>> candidates = {"a": {"input": "x"}, "b": {"input": "y"}}
            >>> client.compare("mse_loss", [batch], candidates=candidates).worst("a")[0].values
            (9.0, 9.0)
        """
        return self[candidate].worst

    def difference(self, first: str, second: str) -> Difference:
        """Return the losses of one candidate minus those of another, row by row.

        KeyError for names that are none, ValueError for one and the same.

        Example:
            >>> batch = {"x": [1.0, 3.0], "y": [2.0, 3.0], "target": [0.0, 0.0]}
            >>> candidates = {"a": {"input": "x"}, "b": {"input": "y"}}
            >>> comparison = client.compare("mse_loss", [batch], candidates=candidates)
            >>> comparison.difference("b", "a").mean
            1.5
        """
        one, other = self._position(first), self._position(second)
        if one == other:
            raise ValueError(f"difference: {first!r} is compared with itself")
        return difference_of(self.message, one, other)

    @property
    def slices(self) -> Tables[Table[Difference]]:
        """The first candidate minus the second, by column and label.

        `difference(...).slices` has those of other pairs, `comparison[name].slices` the losses of
        one candidate.
        """
        return self._first_pair.slices

    def by_slice(self, column: str | tuple[str, ...]) -> list[SliceDifference]:
        """Return the first candidate minus the second in each slice, the largest first.

        With p values corrected for the number of slices; KeyError where there is no such table.

        Example:
            >>> batch = {"x": [1.0, 3.0], "y": [2.0, 3.0], "target": [0.0, 0.0], "c": ["u", "v"]}
            >>> candidates = {"a": {"input": "x"}, "b": {"input": "y"}}
            >>> comparison = client.compare(
            ...     "mse_loss", [batch], candidates=candidates, slices=["c"]
            ... )
            >>> [(each.label, each.difference.mean) for each in comparison.by_slice("c")]
            [('v', 0.0), ('u', -3.0)]
        """
        return self._first_pair.by_slice(column)

    @cached_property
    def _first_pair(self) -> Difference:
        first, second, *_ = self.candidates
        return self.difference(first, second)

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the buckets with values that JSON has; NaN is the text "NaN".

        Example:
            >>> batch = {"x": [1.0, 3.0], "y": [2.0, 3.0], "target": [0.0, 0.0]}
            >>> candidates = {"a": {"input": "x"}, "b": {"input": "y"}}
            >>> client.compare("mse_loss", [batch], candidates=candidates).to_dict()["candidates"]
            ['a', 'b']
        """
        return to_dict(self.message)

    def to_frame(self) -> Any:
        """Return a pandas DataFrame: for each candidate a row for all rows and each slice.

        ImportError without pandas, which `losswire[pandas]` has.

        Example:
            >>> batch = {"x": [1.0, 3.0], "y": [2.0, 3.0], "target": [0.0, 0.0]}
            >>> candidates = {"a": {"input": "x"}, "b": {"input": "y"}}
            >>> frame = client.compare("mse_loss", [batch], candidates=candidates).to_frame()
            >>> frame[["candidate", "mean"]].values.tolist()
            [['a', 5.0], ['b', 6.5]]
        """
        frames = [frame_of(each, each.slices, candidate=name) for name, each in self.items()]
        return pandas().concat(frames, ignore_index=True)

    def plot(self, *, column: str | None = None, figsize: tuple[float, float] | None = None) -> Any:
        """Return a figure of matplotlib: the differences of the first pair, and its slices.

        `column`: the table of slices to draw; None: the first. `figsize` is in inches. ImportError
        without matplotlib, which `losswire[plot]` has; KeyError where there is no such table.

        Example:
            >>> batch = {"x": [1.0, 3.0], "y": [2.0, 3.0], "target": [0.0, 0.0]}
            >>> candidates = {"a": {"input": "x"}, "b": {"input": "y"}}
            >>> figure = client.compare("mse_loss", [batch], candidates=candidates).plot()
            >>> len(figure.axes)
            1
        """
        from losswire.client._report import plot  # noqa: PLC0415 - matplotlib is an extra

        return plot(self, column=column, figsize=figsize)

    def report(self, path: str | Path) -> Path:
        """Write one self-contained HTML page with everything, and return its path.

        Example:
            >>> import tempfile
            >>> batch = {"x": [1.0, 3.0], "y": [2.0, 3.0], "target": [0.0, 0.0]}
            >>> candidates = {"a": {"input": "x"}, "b": {"input": "y"}}
            >>> comparison = client.compare("mse_loss", [batch], candidates=candidates)
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     comparison.report(f"{folder}/report.html").name
            'report.html'
        """
        from losswire.client._report import comparison_page  # noqa: PLC0415 - most never need it

        return write_page(comparison_page(self), path)

    def __repr__(self) -> str:
        verdicts = " ".join(each.verdict for each in differences(self.message))
        return f"<Comparison of {self.loss}, {self.rows:,} rows: {verdicts}>"

    def _repr_html_(self) -> str:
        from losswire.client._report.notebook import comparison_fragment  # noqa: PLC0415 - as above

        return comparison_fragment(self)
