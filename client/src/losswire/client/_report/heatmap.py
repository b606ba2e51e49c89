"""Draws the gradient of an input as a small heat map: zero has the colour of the paper."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from losswire.client._report.markup import Html, element, visible

Floats = npt.NDArray[np.float64]

MOST_ROWS: Final = 24
MOST_COLUMNS: Final = 64
"""The cells of a heat map; those of a larger array are joined."""
_LEVELS: Final = 8
"""The shades of each sign."""
_BLOCK: Final = 1 << 20
"""How many elements are converted to float64 at a time."""
_TALLEST: Final = 14.0
"""The pixels of the height of a cell."""
_NORMS: Final = 0.12
"""The share of the width that the norms of the rows take."""


@dataclass(frozen=True, kw_only=True)
class Grid:
    """An array joined to few cells, with what was counted on the way."""

    rows: int
    columns: int
    """The shape of the array as a matrix: the first axis, and all others."""
    high: Floats
    low: Floats
    """The largest and the smallest number of each cell; NaN where one is."""
    square_sums: Floats
    """The sum of the squares of the finite numbers in each row of cells."""
    nan_count: int
    infinite_count: int
    zero_count: int

    @property
    def extreme(self) -> Floats:
        """The number of the largest magnitude in each cell; NaN where one is."""
        return np.where(np.abs(self.low) > np.abs(self.high), self.low, self.high)

    @property
    def norm(self) -> float:
        """The Euclidean norm of all finite numbers."""
        return math.sqrt(self.square_sums.sum())

    @property
    def joined(self) -> tuple[int, int]:
        """The most rows and columns that one cell stands for."""
        rows, columns = self.high.shape
        return math.ceil(self.rows / rows), math.ceil(self.columns / columns)


def grid_of(array: npt.NDArray[Any]) -> Grid | None:
    """Return an array as few cells; None where it has no elements."""
    if not array.size:
        return None
    matrix = array.reshape(array.shape[0] if array.ndim > 1 else 1, -1)
    rows, columns = matrix.shape
    tops, lefts = _edges(rows, MOST_ROWS), _edges(columns, MOST_COLUMNS)
    high = np.full((len(tops), len(lefts)), -math.inf)
    low = np.full((len(tops), len(lefts)), math.inf)
    sums = np.zeros(len(tops))
    counts = np.zeros(3, np.int64)
    for i, block in _blocks(matrix, tops):
        finite = np.isfinite(block)
        counts += (np.isnan(block).sum(), np.isinf(block).sum(), (block == 0).sum())
        with np.errstate(over="ignore"):
            sums[i] += np.square(block, where=finite, out=np.zeros_like(block)).sum()
        high[i] = np.maximum(high[i], np.maximum.reduceat(block.max(axis=0), lefts))
        low[i] = np.minimum(low[i], np.minimum.reduceat(block.min(axis=0), lefts))
    nan, infinite, zero = map(int, counts)
    return Grid(
        rows=rows,
        columns=columns,
        high=high,
        low=low,
        square_sums=sums,
        nan_count=nan,
        infinite_count=infinite,
        zero_count=zero,
    )


def _edges(length: int, most: int) -> list[int]:
    """Return where each of at most `most` groups of neighbours begins."""
    groups = min(length, most)
    return [length * i // groups for i in range(groups)]


def _blocks(matrix: npt.NDArray[Any], tops: Sequence[int]) -> Iterator[tuple[int, Floats]]:
    """Return the rows of each group in float64, a few at a time."""
    step = max(1, _BLOCK // matrix.shape[1])
    for i, top in enumerate(tops):
        end = tops[i + 1] if i + 1 < len(tops) else len(matrix)
        for start in range(top, end, step):
            yield i, matrix[start : min(end, start + step)].astype(np.float64)


def reach_of(grid: Grid) -> float:
    """Return the largest finite magnitude, which has the darkest shade of either sign."""
    bounds = np.concatenate([np.abs(grid.high).ravel(), np.abs(grid.low).ravel()])
    finite = bounds[np.isfinite(bounds)]
    return float(finite.max()) if finite.size else 0.0


def draw(grid: Grid, label: str) -> Html:
    """Return the heat map, with the norm of each row as a bar at the right where there are more."""
    rows, columns = grid.high.shape
    tall = min(_TALLEST, 320 / rows) * rows
    cells = element(
        "svg",
        *(
            element("path", d="".join(_square(i, j) for i, j in places), class_=kind)
            for kind, places in _by_shade(grid).items()
        ),
        viewBox=f"0 0 {columns} {rows}",
        preserveAspectRatio="none",
        width=f"{(1 - _NORMS if rows > 1 else 1) * 100:g}%",
        height=round(tall, 1),
    )
    return element(
        "svg",
        cells,
        _norms(grid, tall) if rows > 1 else None,
        element("rect", class_="edge", x="0", y="0", width="100%", height=round(tall, 1)),
        role="img",
        aria_label=visible(label),
        class_="heat",
        width="100%",
        height=round(tall, 1),
    )


def _by_shade(grid: Grid) -> dict[str, list[tuple[int, int]]]:
    """Return the cells of each shade; one path for each keeps the drawing small."""
    reach = reach_of(grid)
    found: dict[str, list[tuple[int, int]]] = {}
    for (i, j), value in np.ndenumerate(grid.extreme):
        kind = _shade(float(value), reach)
        if kind:
            found.setdefault(kind, []).append((i, j))
    return dict(sorted(found.items()))


def _shade(value: float, reach: float) -> str:
    """Return the class of a cell: NaN, infinite, or a sign with a shade; empty for zero."""
    if math.isnan(value):
        return "nan"
    if math.isinf(value):
        return "above infinite" if value > 0 else "below infinite"
    if not value:
        return ""
    # At least the palest shade: only zero itself looks like zero.
    level = max(1, round(abs(value) / reach * _LEVELS))
    return f"{'above' if value > 0 else 'below'} s{level}"


def _square(row: int, column: int) -> str:
    """Return one cell as a part of a path."""
    return f"M{column} {row}h1v1h-1z"


def _norms(grid: Grid, tall: float) -> Html:
    """Return the norm of each row of cells as a bar."""
    norms = np.sqrt(grid.square_sums)
    longest = float(norms.max()) or 1.0
    bars = "".join(
        f"M0 {i + 0.15:g}h{length / longest * 100:.1f}v.7h-{length / longest * 100:.1f}z"
        for i, length in enumerate(norms.tolist())
        if math.isfinite(length) and length
    )
    return element(
        "svg",
        element("path", d=bars, class_="norm") if bars else None,
        viewBox=f"0 0 100 {len(norms)}",
        preserveAspectRatio="none",
        x=f"{(1 - _NORMS) * 100 + 1:g}%",
        width=f"{_NORMS * 100 - 1:g}%",
        height=round(tall, 1),
    )
