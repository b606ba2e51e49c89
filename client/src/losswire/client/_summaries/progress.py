"""How far a summary is, for people and for programs."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class SummaryProgress:
    """How far a summary is: what the callable `progress` gets.

    Example:
        >>> batches = [{"input": [1.0, 3.0], "target": [0.0, 0.0]}] * 2
        >>> seen = []
        >>> summary = client.summarize("mse_loss", batches, progress=seen.append)
        >>> seen[-1].rows, seen[-1].means
        (4, (5.0,))
    """

    rows: int
    """How many rows are counted, with those of a summary that is continued."""
    total_rows: int | None
    """How many rows there are; None where this is not known."""
    seconds: float
    """The seconds since the beginning of the call."""
    rows_per_second: float
    """How many rows were counted a second, in this call."""
    means: tuple[float, ...]
    """The mean of the loss so far, of each candidate; one where there are no candidates."""
    standard_errors: tuple[float, ...]
    """The standard error of each mean, without regard to clusters."""
    has_clusters: bool = False
    """Whether rows have clusters: then only the finished summary has an honest interval."""

    @property
    def remaining_seconds(self) -> float | None:
        """The seconds that the other rows will take at this speed; None where nobody knows."""
        if self.total_rows is None or not self.rows_per_second:
            return None
        return max(0, self.total_rows - self.rows) / self.rows_per_second

    def __str__(self) -> str:
        """Return it as a line for people: rows, rows a second, means with their intervals.

        Without intervals where rows have clusters: they would be too narrow.
        """
        total = self.total_rows
        rows = f"{self.rows:,} rows" if not total else f"{self.rows:,} of {total:,} rows"
        half_widths = [_Z * each for each in self.standard_errors]
        means = ", ".join(
            f"{mean:.6g}" if self.has_clusters else f"{mean:.6g} ± {half:.2g}"
            for mean, half in zip(self.means, half_widths, strict=False)
        )
        left = self.remaining_seconds
        parts = [rows, f"{self.rows_per_second:,.0f} rows/s", f"mean {means}" if means else ""]
        parts.append(f"{_duration(self.seconds)} so far" if left is None else _left(left))
        return " · ".join(each for each in parts if each)


_Z = 1.959963984540054
"""Standard errors from the mean to either end of the 95 % interval."""


def _left(seconds: float) -> str:
    return f"{_duration(seconds)} left"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
