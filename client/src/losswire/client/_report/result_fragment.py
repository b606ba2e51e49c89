"""The result of one evaluation, for notebooks."""

from collections.abc import Iterator, Mapping
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from losswire.client._report import heatmap
from losswire.client._report.markup import Html, element, join
from losswire.client._report.parts import Cell, Column, facts, figure, name, paragraph, table
from losswire.summaries.figures import numbers

_MOST_GRADIENTS: Final = 4
_TABLE_COLUMNS: Final = 12
"""The columns of a gradient up to which its numbers are written as a table."""


class ReceiptLike(Protocol):
    """What a drawing reads of a receipt."""

    @property
    def device(self) -> str:
        """The device."""
        ...

    @property
    def engine(self) -> str:
        """The path."""
        ...

    @property
    def compute_dtype(self) -> str:
        """The type computed in."""
        ...

    @property
    def server_version(self) -> str:
        """The version of the server."""
        ...

    @property
    def torch_version(self) -> str:
        """The version of torch."""
        ...


class ResultLike(Protocol):
    """What a drawing reads of a result."""

    @property
    def loss(self) -> npt.NDArray[Any]:
        """The loss, or the values."""
        ...

    @property
    def gradients(self) -> Mapping[str, npt.NDArray[Any]]:
        """The gradients by input name."""
        ...

    @property
    def sum(self) -> float:
        """The sum of the values."""
        ...

    @property
    def mean_numerator(self) -> float:
        """The numerator of the mean."""
        ...

    @property
    def mean_denominator(self) -> float:
        """The denominator of the mean."""
        ...

    @property
    def count(self) -> int:
        """How many values took part."""
        ...

    @property
    def compute_nanoseconds(self) -> int:
        """How long it was computed."""
        ...

    @property
    def receipt(self) -> ReceiptLike:
        """What computed it."""
        ...


def result_body(result: ResultLike) -> Html:
    """Return the loss, how its mean was formed, and a heat map of each gradient."""
    shown = list(result.gradients.items())[:_MOST_GRADIENTS]
    more = len(result.gradients) - len(shown)
    return join(
        element("p", _sentence(result), class_="answer"),
        facts(_facts(result)),
        _picture("values of the loss", result.loss) if result.loss.ndim else None,
        *(_picture(f"gradient of {key}", each) for key, each in shown),
        paragraph(f"{numbers.rows(more, 'other gradient')} not shown.") if more else None,
    )


def _sentence(result: ResultLike) -> str:
    """Return the loss in a sentence."""
    values = numbers.rows(result.count, "value")
    if result.loss.ndim:
        return f"{values} of a loss, {_shape(result.loss)}."
    return f"Loss {_precise(float(result.loss), result.loss.dtype)}, of {values}."


def _precise(value: float, dtype: np.dtype[Any]) -> str:
    """Return a number with the digits that its type has."""
    return numbers.significant(value, 10 if dtype == np.float64 else 7 if dtype.itemsize > 2 else 4)  # noqa: PLR2004 - bytes


def _facts(result: ResultLike) -> list[tuple[str, str | Html]]:
    """Return how the mean was formed, and by what."""
    receipt = result.receipt
    numerator, denominator = (
        numbers.trimmed(numbers.significant(each, 7))
        for each in (result.mean_numerator, result.mean_denominator)
    )
    return [
        ("sum", numbers.trimmed(numbers.significant(result.sum, 7))),
        ("mean", f"{numerator} / {denominator}"),
        ("values", numbers.count(result.count)),
        ("computed in", name(f"{receipt.compute_dtype}, {receipt.engine}")),
        ("on", name(receipt.device)),
        ("by", name(f"Losswire {receipt.server_version}, torch {receipt.torch_version}")),
        ("time", f"{numbers.significant(result.compute_nanoseconds / 1e6)}{numbers.SPACE}ms"),
    ]


def _shape(array: npt.NDArray[Any]) -> str:
    """Return type and shape of an array."""
    lengths = " \u00d7 ".join(map(str, array.shape)) or "a single number"
    return f"{array.dtype.name} {lengths}"


def _picture(title: str, array: npt.NDArray[Any]) -> Html:
    """Return an array as a heat map with its numbers."""
    whole = f"{title}, {_shape(array)}"
    grid = heatmap.grid_of(array)
    if grid is None:
        return paragraph(f"{whole}: no elements.")
    words = " ".join(_words(grid))
    drawing = heatmap.draw(grid, f"Heat map of the {whole}. {words}")
    if (grid.rows, grid.columns) == grid.high.shape and grid.columns <= _TABLE_COLUMNS:
        return figure(whole, drawing, _numbers(grid, whole), words)
    return element(
        "figure",
        element("figcaption", whole),
        element("div", drawing, class_="plot"),
        paragraph(words),
    )


def _words(grid: heatmap.Grid) -> Iterator[str]:
    """Return in sentences what a heat map shows."""
    low, high = float(grid.low.min()), float(grid.high.max())
    size = grid.rows * grid.columns
    if np.isfinite([low, high]).all():
        yield f"From {numbers.significant(low)} to {numbers.significant(high)}."
    yield f"Norm {numbers.significant(grid.norm)}."
    for count, what in (
        (grid.zero_count, "zero"),
        (grid.nan_count, "NaN, hatched"),
        (grid.infinite_count, "infinite, framed"),
    ):
        if count:
            yield f"{numbers.count(count)} of {numbers.count(size)} are {what}."
    rows, columns = grid.joined
    if rows * columns > 1:
        yield (
            f"A cell stands for up to {rows} \u00d7 {columns} elements and has the colour of the "
            "one with the largest magnitude."
        )
    yield "Blue is below zero, orange above."


def _numbers(grid: heatmap.Grid, caption: str) -> Html:
    """Return the numbers of a small array."""
    return table(
        caption,
        [Column("row", "text"), *(Column(str(j)) for j in range(grid.columns))],
        [
            [Cell(str(i)), *(Cell(numbers.significant(float(each), 4)) for each in row)]
            for i, row in enumerate(grid.extreme)
        ],
    )
