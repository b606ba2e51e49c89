"""Writes numbers as people read them, with as many digits as are known."""

import math
from collections.abc import Iterable
from typing import Final

SPACE: Final = "\u00a0"
"""Between a number and its unit: no line breaks there."""
MINUS: Final = "\u2212"

_LARGE: Final = 1e7
_SMALL: Final = 1e-4
_LEAST_P: Final = 1e-6


def count(value: float) -> str:
    """Return a number of rows, or a weight, with its thousands apart."""
    return f"{value:,.0f}" if float(value).is_integer() else significant(value, 4)


def rows(value: int, what: str = "row") -> str:
    """Return `1 row`, `2 rows`."""
    return f"{count(value)} {what}{'' if value == 1 else 's'}"


def significant(value: float, digits: int = 3) -> str:
    """Return a number with `digits` significant digits."""
    special = _special(value)
    if special is not None:
        return special
    size = abs(value)
    if size and not _SMALL <= size < _LARGE:
        return _scientific(value, digits - 1)
    exponent = math.floor(math.log10(size)) if size else 0
    return _signed(value, max(0, digits - 1 - exponent))


def within(value: float, error: float) -> str:
    """Return a number with the digits that an error of this size leaves: two of the error's."""
    special = _special(value)
    if special is not None:
        return special
    if not (math.isfinite(error) and error > 0):
        return trimmed(significant(value, 6))
    last = math.floor(math.log10(error)) - 1
    size = max(abs(value), error)
    if not _SMALL <= size < _LARGE:
        exponent = math.floor(math.log10(size))
        return _scientific(value, min(max(0, exponent - last), 15))
    return _signed(value, min(max(0, -last), 15))


def probability(value: float) -> str:
    """Return a p-value: `p = 0.012`, `p < 1e-6`."""
    if math.isnan(value):
        return "p unknown"
    written = p(value)
    return f"p {written}" if written[0] == "<" else f"p = {written}"


def p(value: float) -> str:
    """Return a p-value alone."""
    if math.isnan(value):
        return "\u2013"
    if value < _LEAST_P:
        return f"< {significant(_LEAST_P, 1)}"
    return significant(value, 2) if value < 0.995 else "1"  # noqa: PLR2004 - rounds to 1.00


def share(value: float, *, sign: bool = False) -> str:
    """Return a fraction in per cent."""
    special = _special(value)
    if special is not None:
        return special
    digits = 0 if abs(value) >= 0.0995 else 1  # noqa: PLR2004 - from 10 % on without decimals
    text = _signed(value * 100, digits)
    if 0 < value < 0.0005:  # noqa: PLR2004 - would be written 0.0
        text = "< 0.1"
    plus = "+" if sign and value > 0 else ""
    return f"{plus}{text}{SPACE}%"


def interval(bounds: Iterable[float], between: str = " to ") -> str:
    """Return an interval with the digits that its width leaves."""
    low, high = bounds
    if math.isnan(low) or math.isnan(high):
        return "unknown"
    error = (high - low) / 2
    return f"{within(low, error)}{between}{within(high, error)}"


def level(value: float) -> str:
    """Return a level of confidence: `95 %`."""
    return f"{value * 100:g}{SPACE}%"


def plus(text: str) -> str:
    """Return a written number with a sign where it has none and is not zero."""
    return text if text[0] in f"{MINUS}-n+<" or not text.strip("0.,") else f"+{text}"


def trimmed(text: str) -> str:
    """Return a written number without zeros at its end."""
    mantissa, mark, exponent = text.partition("e")
    if "." in mantissa:
        mantissa = mantissa.rstrip("0").rstrip(".")
    return f"{mantissa}{mark}{exponent}"


def _special(value: float) -> str | None:
    """Return what a number that is no number is called."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "infinite" if value > 0 else f"{MINUS}infinite"
    return None


def _signed(value: float, digits: int) -> str:
    """Return a number in decimals with a real minus, and no minus before a zero."""
    text = f"{abs(value):,.{digits}f}"
    return f"{MINUS}{text}" if value < 0 and text.strip("0.,") else text


def _scientific(value: float, digits: int) -> str:
    """Return a number with a short exponent."""
    mantissa, _, exponent = f"{abs(value):.{digits}e}".partition("e")
    # A real minus, at which no line is broken.
    written = str(int(exponent)).replace("-", MINUS)
    return f"{MINUS if value < 0 else ''}{mantissa}e{written}"
