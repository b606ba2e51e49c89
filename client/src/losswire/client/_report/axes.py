"""Axes: where on the width a number stands, and which numbers are written below it."""

import math
from dataclasses import dataclass
from typing import Final, Protocol

from losswire.summaries.figures import numbers

_STEPS: Final = (1.0, 2.0, 2.5, 5.0, 10.0)
_MOST_TICKS: Final = 5


class Axis(Protocol):
    """An axis across the width of a figure."""

    def place(self, value: float) -> float:
        """Return where a number stands: 0 at the left end, 1 at the right; cut off there."""
        ...

    def ticks(self) -> list[tuple[float, str]]:
        """Return the numbers to write, and how."""
        ...


@dataclass(frozen=True)
class LinearAxis:
    """Equal distances are equal differences."""

    low: float
    high: float
    signed: bool = False
    """Whether positive numbers have a plus."""
    most: int = _MOST_TICKS
    """About how many numbers are written."""

    def place(self, value: float) -> float:
        """Return where a number stands."""
        # Halves, because the difference of two finite numbers may be infinite.
        width = self.high / 2 - self.low / 2
        return min(1.0, max(0.0, (value / 2 - self.low / 2) / width)) if width > 0 else 0.5

    def ticks(self) -> list[tuple[float, str]]:
        """Return round numbers at equal distances."""
        rough = (self.high / 2 - self.low / 2) / self.most * 2
        if not (math.isfinite(rough) and rough > 0):
            return [(self.low, numbers.significant(self.low))]
        power = 10.0 ** math.floor(math.log10(rough))
        step = next((each * power for each in _STEPS if each * power >= rough * 0.999), rough)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        found = [(i * step, numbers.within(i * step, step * 0.999)) for i in range(first, last + 1)]
        if self.signed:
            found = [(value, numbers.plus(text)) for value, text in found]
        return [(value, numbers.trimmed(text)) for value, text in found]


@dataclass(frozen=True)
class LogAxis:
    """Equal distances are equal ratios; for positive numbers."""

    low: float
    high: float

    def place(self, value: float) -> float:
        """Return where a number stands; 0 and less at the left end."""
        if value <= self.low:
            return 0.0
        width = math.log(self.high) - math.log(self.low)
        return min(1.0, (math.log(value) - math.log(self.low)) / width) if width > 0 else 0.5

    def ticks(self) -> list[tuple[float, str]]:
        """Return powers of ten, with 2 and 5 between them where there are few."""
        first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
        decades = last - first
        factors = (1, 2, 5) if decades <= 2 else (1, 3) if decades == 3 else (1,)  # noqa: PLR2004
        step = max(1, math.ceil(decades / (_MOST_TICKS + 2)))
        values = [
            factor * 10.0**power for power in range(first, last + 1, step) for factor in factors
        ]
        return [
            (value, numbers.trimmed(numbers.significant(value, 1)))
            for value in values
            if self.low * 0.999 <= value <= self.high * 1.001
        ]


@dataclass(frozen=True)
class SignedLogAxis:
    """Logarithmic on both sides of zero; magnitudes below `least` are at zero."""

    least: float
    most: float
    negative: bool = True
    positive: bool = True

    def place(self, value: float) -> float:
        """Return where a number stands."""
        sides = LogAxis(self.least, self.most)
        # Zero has a place of its own, a few per cent wide, between the sides.
        reach = sides.place(abs(value)) * 0.97 + 0.03 if abs(value) > self.least else 0.0
        if self.negative and self.positive:
            return 0.5 + math.copysign(reach, value) / 2
        return 1 - reach if self.negative else reach

    def ticks(self) -> list[tuple[float, str]]:
        """Return zero and a few magnitudes on each side."""
        first, last = math.ceil(math.log10(self.least)), math.floor(math.log10(self.most))
        per_side = 2 if self.negative and self.positive else 4
        step = max(1, math.ceil((last - first + 1) / per_side))
        magnitudes = [10.0**power for power in range(last, first - 1, -step)]
        shown = [0.0]
        if self.positive:
            shown += magnitudes
        if self.negative:
            shown += [-each for each in magnitudes]
        return [(each, numbers.trimmed(numbers.significant(each, 1))) for each in sorted(shown)]


def around(
    values: list[float], *, signed: bool = False, most: int = _MOST_TICKS, padding: float = 0.06
) -> LinearAxis:
    """Return an axis with room for all of these numbers; those that are not finite are left out."""
    finite = [each for each in values if math.isfinite(each)] or [0.0]
    low, high = min(finite), max(finite)
    margin = (high / 2 - low / 2) * 2 * padding or abs(high) * padding or 1.0
    return LinearAxis(low - margin, high + margin, signed=signed, most=most)
