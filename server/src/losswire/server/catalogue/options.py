"""The options of a loss and the rules of their values."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from losswire.server.catalogue.layouts import Layout
from losswire.server.catalogue.shapes import Bindings
from losswire.wire import OptionScalar


@dataclass(frozen=True, slots=True)
class OptionContext:
    """The facts that an option's rule may look at."""

    layout: Layout | None
    """The layout that matched; None: none did."""
    bindings: Bindings


class OptionRule(Protocol):
    """A rule for the value of an option."""

    @property
    def rule(self) -> str:
        """The rule in words."""

    def violation(self, value: Any, context: OptionContext) -> str | None:  # noqa: ANN401 (any option)
        """Return the text of the error of a value; None: it is accepted."""


@dataclass(frozen=True, kw_only=True)
class Range:
    """An interval with both bounds unless these are open; the default is all numbers but NaN.

    A bound may be infinite: it is accepted like any other, unless it is open.
    """

    low: float = -float("inf")
    high: float = float("inf")
    open_low: bool = False
    open_high: bool = False

    @property
    def rule(self) -> str:
        """The interval in mathematical notation: `[0, inf]` has infinity, `[0, inf)` has not."""
        left = "(" if self.open_low else "["
        right = ")" if self.open_high else "]"
        return f"{left}{self.low:g}, {self.high:g}{right}"

    def violation(self, value: float, context: OptionContext) -> str | None:
        """Refuse NaN and numbers outside of the interval."""
        del context
        above = value > self.low if self.open_low else value >= self.low
        below = value < self.high if self.open_high else value <= self.high
        return None if above and below else f"{value:g} is not in {self.rule}"


@dataclass(frozen=True, kw_only=True)
class NegativeIn:
    """An integer that must be negative in some layouts."""

    layouts: tuple[str, ...]
    reason: str

    @property
    def rule(self) -> str:
        """The rule in words."""
        return f"negative {self.reason}"

    def violation(self, value: int, context: OptionContext) -> str | None:
        """Refuse 0 and more in those layouts."""
        if value < 0 or context.layout is None or context.layout.name not in self.layouts:
            return None
        return f"{value} must be {self.rule}"


@dataclass(frozen=True, kw_only=True)
class AbsentIn:
    """An option that must be left out in some layouts."""

    layouts: tuple[str, ...]
    reason: str

    @property
    def rule(self) -> str:
        """The rule in words."""
        return f"left out {self.reason}"

    def violation(self, value: OptionScalar, context: OptionContext) -> str | None:
        """Refuse any value in those layouts."""
        if context.layout is None or context.layout.name not in self.layouts:
            return None
        return f"{value} must be {self.rule}"


@dataclass(frozen=True, kw_only=True)
class IndexOf:
    """An index into an axis."""

    axis: str

    @property
    def rule(self) -> str:
        """The rule in words."""
        return f"an index in [0, {self.axis})"

    def violation(self, value: int, context: OptionContext) -> str | None:
        """Refuse an index out of range; an empty axis is an error of its input instead."""
        length = context.bindings.axes.get(self.axis)
        if not length or 0 <= value < length:
            return None
        return f"{value} is not in [0, {length})"


@dataclass(frozen=True, kw_only=True)
class FiniteIfEmpty:
    """A number that must be finite and not negative where an axis is empty."""

    axis: str

    @property
    def rule(self) -> str:
        """The rule in words."""
        return f"finite and at least 0 if {self.axis} is empty"

    def violation(self, value: float, context: OptionContext) -> str | None:
        """Refuse infinite and negative numbers over an empty axis."""
        if context.bindings.axes.get(self.axis) != 0 or 0 <= value < float("inf"):
            return None
        return f"{value:g} must be {self.rule}"


@dataclass(frozen=True, kw_only=True)
class AxisOf:
    """The number of one of the axes of a group, negative from the innermost."""

    group: str

    @property
    def rule(self) -> str:
        """The rule in words."""
        return "an axis of the input, in [-rank, rank)"

    def violation(self, value: int, context: OptionContext) -> str | None:
        """Refuse an axis out of range; a scalar counts as one axis, as in torch."""
        lengths = context.bindings.groups.get(self.group)
        if lengths is None:
            return None
        rank = max(len(lengths), 1)
        return None if -rank <= value < rank else f"{value} is not in [{-rank}, {rank})"


@dataclass(frozen=True, kw_only=True)
class Option:
    """The meaning and rules of an option; its type and default are in the signature."""

    meaning: str
    """One sentence."""
    rules: tuple[OptionRule, ...] = ()
    choices: tuple[str, ...] = ()
    """The accepted values of a text option; empty: it is not a text."""


@dataclass(frozen=True, slots=True)
class OptionField:
    """The type and default of an option, from the signature."""

    type: type[OptionScalar]
    default: OptionScalar | None
    required: bool

    def typed(self, value: OptionScalar | None) -> OptionScalar | None:
        """Return a value in the option's type; None: it has another type."""
        if self.type is float and type(value) is int:
            return float(value)
        return value if type(value) is self.type else None

    @property
    def kind(self) -> str:
        """The name of the type, and of its field in the message."""
        return _KIND_NAMES[self.type]


_KIND_NAMES: Mapping[type, str] = {
    bool: "a bool",
    int: "an integer (int64)",
    float: "a number (double)",
    str: "a text (string)",
}
