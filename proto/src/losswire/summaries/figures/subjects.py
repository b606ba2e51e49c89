"""What sentences and reports read of Statistics, Lift and Difference, as protocols."""

from collections.abc import Mapping, Sequence
from typing import Protocol


class Figures(Protocol):
    """The numbers of some rows."""

    @property
    def count(self) -> int:
        """How many rows take part."""
        ...

    @property
    def ignored_count(self) -> int:
        """How many do not."""
        ...

    @property
    def nan_count(self) -> int:
        """How many losses are NaN."""
        ...

    @property
    def infinite_count(self) -> int:
        """How many are infinite."""
        ...

    @property
    def weight_sum(self) -> float:
        """The sum of the weights."""
        ...

    @property
    def mean(self) -> float:
        """The mean, NaN or infinite where a row is."""
        ...

    @property
    def finite_mean(self) -> float:
        """The mean of the finite rows."""
        ...

    @property
    def standard_error(self) -> float:
        """The standard error of that."""
        ...

    @property
    def clustered(self) -> bool:
        """Whether it is by cluster."""
        ...

    @property
    def small(self) -> bool:
        """Whether there are too few rows for the normal law."""
        ...

    @property
    def std(self) -> float:
        """The standard deviation of the row losses."""
        ...

    @property
    def derived_figures(self) -> Mapping[str, tuple[float, tuple[float, float]]]:
        """What else people expect of the loss, such as its perplexity, with intervals."""
        ...

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Return the interval of the mean."""
        ...

    def quantile(self, q: float) -> float:
        """Return a quantile."""
        ...


class Lift(Protocol):
    """How far a slice lies from all rows."""

    @property
    def label(self) -> str:
        """The slice."""
        ...

    @property
    def statistics(self) -> Figures:
        """Its numbers."""
        ...

    @property
    def lift(self) -> float:
        """Its mean minus that of all rows."""
        ...

    @property
    def interval(self) -> tuple[float, float]:
        """The interval of that."""
        ...

    @property
    def p_adjusted(self) -> float:
        """The p-value after Holm's correction over the slices of the table."""
        ...

    @property
    def small(self) -> bool:
        """Whether there are few rows."""
        ...


class Difference(Protocol):
    """How the losses of two candidates differ."""

    @property
    def mean(self) -> float:
        """The mean of the first minus that of the second."""
        ...

    @property
    def p_value(self) -> float:
        """The probability of a difference as large where there is none."""
        ...

    @property
    def wins(self) -> int:
        """Rows where the first has the smaller loss."""
        ...

    @property
    def ties(self) -> int:
        """Rows with equal losses."""
        ...

    @property
    def losses(self) -> int:
        """Rows where the first has the larger loss."""
        ...

    @property
    def count(self) -> int:
        """How many rows are compared."""
        ...

    def by_slice(self, column: str) -> Sequence["SliceDifference"]:
        """Return the differences in the slices of a table."""
        ...

    @property
    def small(self) -> bool:
        """Whether there are few rows."""
        ...

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Return the interval of the mean."""
        ...


class SliceDifference(Protocol):
    """How two candidates differ in one slice."""

    @property
    def label(self) -> str:
        """The slice."""
        ...

    @property
    def difference(self) -> Difference:
        """The difference there."""
        ...

    @property
    def p_adjusted(self) -> float:
        """The p-value after Holm's correction over the slices of the table."""
        ...
