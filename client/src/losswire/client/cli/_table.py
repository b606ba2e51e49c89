"""Tables and numbers as text."""

import math
from collections.abc import Iterator, Sequence


def table(
    titles: Sequence[str], rows: Sequence[Sequence[str]], indent: str = "  "
) -> Iterator[str]:
    """Align columns with spaces, a line for each row."""
    lines = [[" ".join(cell.split()) for cell in row] for row in (titles, *rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for row in lines:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        yield (indent + "  ".join(cells)).rstrip()


def number(value: float) -> str:
    """Write a figure for people, with six digits; `-` where it is unknown."""
    return "-" if math.isnan(value) else f"{value:.6g}"


def probability(value: float) -> str:
    """Write a p value; one too small for a float64 is not 0."""
    return "< 1e-300" if value == 0 else number(value)


def interval(bounds: tuple[float, float]) -> str:
    """Write an interval; `-` where it is unknown."""
    return "-" if math.isnan(bounds[0]) else f"[{number(bounds[0])}, {number(bounds[1])}]"
