"""The rules of the values of inputs: each describes itself, checks values and draws examples."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from losswire.server.catalogue.shapes import Bindings, Shape
from losswire.wire import OptionScalar

Array = npt.NDArray[Any]

_UNSIGNED = {size: np.dtype(f"u{size}") for size in (1, 2, 4, 8)}
Options = Mapping[str, OptionScalar | None]


@dataclass(frozen=True, slots=True)
class Context:
    """The facts that a rule may look at, besides the values of its own input."""

    bindings: Bindings
    options: Options
    inputs: Mapping[str, Array]
    """Of a request, all inputs; of the header of a chunked call, those that do not stream;
    while examples are drawn, those before this one."""
    first_row: int = 0
    """The offset of the first row in the whole input, in a part of a chunked call."""


@dataclass(frozen=True, kw_only=True)
class Values:
    """Any number: the base class of all rules, and the rule of inputs without another."""

    @property
    def rule(self) -> str:
        """The rule in words; empty when every value is accepted."""
        return ""

    @property
    def enforced(self) -> bool:
        """Whether a value outside of the rule is refused; else torch computes with it."""
        return False

    def violation(self, array: Array, context: Context) -> str | None:
        """Return the text of the error of the values; None: they are accepted.

        Runs on private host memory before anything is computed: with some wrong values torch
        reads outside of its buffers, or loses the device.
        """
        del array, context
        return None

    def example(self, rng: np.random.Generator, shape: Shape, context: Context) -> Array:
        """Draw accepted values, in float64 or int64."""
        del context
        return rng.standard_normal(shape)


REALS = Values()


@dataclass(frozen=True, kw_only=True)
class ClassIndices(Values):
    """Indices into an axis, or the value of an option that marks ignored rows."""

    axis: str = "C"
    or_option: str | None = None
    option_default: int = -100
    """The value of the option if it is left out and its default is None."""

    @property
    def rule(self) -> str:
        """The rule in words."""
        other = f", or {self.or_option}" if self.or_option else ""
        return f"class indices in [0, {self.axis}){other}"

    @property
    def enforced(self) -> bool:
        """Always: torch indexes memory with these numbers."""
        return True

    def violation(self, array: Array, context: Context) -> str | None:
        """Return an error that names the first index out of range."""
        classes = context.bindings.axes[self.axis]
        # One pass over unsigned numbers finds both ends: negative numbers wrap to huge ones.
        wrong = array.view(_UNSIGNED[array.dtype.itemsize]) >= classes
        if not wrong.any():
            return None
        mark = self._mark(context.options)
        if mark is not None:
            wrong &= array != mark
            if not wrong.any():
                return None
        where = np.unravel_index(int(wrong.argmax()), array.shape)
        at = position(where, context.first_row)
        text = f"class index {array[where]} at {at} is not in [0, {classes})"
        return text if mark is None else f"{text} and is not {self.or_option} ({mark})"

    def _mark(self, options: Options) -> OptionScalar | None:
        """Return the index that marks ignored rows; None: every index must be a class."""
        if self.or_option is None:
            return None
        given = options[self.or_option]
        return self.option_default if given is None else given

    def example(self, rng: np.random.Generator, shape: Shape, context: Context) -> Array:
        """Draw classes."""
        return rng.integers(0, max(context.bindings.axes[self.axis], 1), shape)


@dataclass(frozen=True, kw_only=True)
class Within(Values):
    """Numbers in the closed interval [low, high]."""

    low: float
    high: float
    meaning: str
    refused: bool = True
    """Whether other numbers are refused, because torch refuses them (on CUDA, fatally)."""
    nan: bool = False
    """Whether NaN passes."""

    @property
    def rule(self) -> str:
        """The rule in words."""
        return f"{self.meaning} in [{self.low:g}, {self.high:g}]"

    @property
    def enforced(self) -> bool:
        """Whether other numbers are refused."""
        return self.refused

    def violation(self, array: Array, context: Context) -> str | None:
        """Return an error that names the first value outside, or NaN."""
        if not self.refused or not array.size:
            return None
        inside = (array >= self.low) & (array <= self.high)  # false for NaN
        if self.nan:
            inside |= np.isnan(array)
        if inside.all():
            return None
        where = np.unravel_index(int(inside.argmin()), array.shape)
        at = position(where, context.first_row)
        return f"{array[where]} at {at} is not in [{self.low:g}, {self.high:g}]"

    def example(self, rng: np.random.Generator, shape: Shape, context: Context) -> Array:
        """Draw from the inner part of the interval, or of its part around 0 if it is infinite."""
        del context
        low, high = max(self.low, -8.0), min(self.high, 8.0)
        return low + (high - low) * rng.uniform(0.05, 0.95, shape)


@dataclass(frozen=True, kw_only=True)
class ClassLists(Values):
    """Lists of indices into an axis, which end at the first -1."""

    axis: str = "C"

    @property
    def rule(self) -> str:
        """The rule in words."""
        return f"class indices in [0, {self.axis}), then -1; only these or -1 behind it"

    @property
    def enforced(self) -> bool:
        """Always: torch indexes memory with these numbers."""
        return True

    def violation(self, array: Array, context: Context) -> str | None:
        """Return an error that names the first index out of range, after the -1, too."""
        classes = context.bindings.axes[self.axis]
        wrong = (array < -1) | (array >= classes)
        if not wrong.any():
            return None
        where = np.unravel_index(int(wrong.argmax()), array.shape)
        at = position(where, context.first_row)
        return f"class index {array[where]} at {at} is not in [-1, {classes})"

    def example(self, rng: np.random.Generator, shape: Shape, context: Context) -> Array:
        """Draw some distinct classes for each row."""
        del context
        classes = rng.permuted(np.broadcast_to(np.arange(shape[-1]), shape), axis=-1)
        lengths = rng.integers(0, shape[-1] + 1, shape[:-1])
        return np.where(np.arange(shape[-1]) < lengths[..., np.newaxis], classes, -1)


@dataclass(frozen=True, kw_only=True)
class Signs(Values):
    """1 and -1."""

    @property
    def rule(self) -> str:
        """The rule in words."""
        return "1 or -1"

    def example(self, rng: np.random.Generator, shape: Shape, context: Context) -> Array:
        """Draw signs."""
        del context
        return rng.choice(np.array([-1, 1]), shape)


@dataclass(frozen=True, kw_only=True)
class Counts(Values):
    """Numbers of events."""

    @property
    def rule(self) -> str:
        """The rule in words."""
        return "counts of at least 0"

    def example(self, rng: np.random.Generator, shape: Shape, context: Context) -> Array:
        """Draw counts."""
        del context
        return rng.integers(0, 8, shape)


@dataclass(frozen=True, kw_only=True)
class Rates(Values):
    """Expected counts, or with some option their logarithms."""

    unless: str

    @property
    def rule(self) -> str:
        """The rule in words."""
        return f"at least 0 without {self.unless}"

    def example(self, rng: np.random.Generator, shape: Shape, context: Context) -> Array:
        """Draw rates of at most 8, or small logarithms."""
        if context.options[self.unless]:
            return rng.standard_normal(shape)
        return rng.uniform(0.25, 8.0, shape)


SIGNS = Signs()
COUNTS = Counts()
UNIT = Within(low=0.0, high=1.0, meaning="probabilities")
DISTRIBUTION = Within(low=0.0, high=1.0, meaning="probabilities", refused=False)
LOG_PROBABILITIES = Within(low=-float("inf"), high=0.0, meaning="log-probabilities", refused=False)


def position(where: tuple[Any, ...], first_row: int = 0) -> str:
    """Format an index as `[0, 3]`; `first_row` is the offset of the first row."""
    numbers = [int(each) for each in where]
    if numbers:
        numbers[0] += first_row
    return f"[{', '.join(map(str, numbers))}]"
