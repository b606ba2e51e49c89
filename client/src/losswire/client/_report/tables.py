"""Tables with the numbers of a figure."""

from collections.abc import Sequence

from losswire.client._report.buckets import Bar, total
from losswire.client._report.markup import Html
from losswire.client._report.parts import Cell, Column, table
from losswire.summaries.figures import numbers


def bars_table(caption: str, bars: Sequence[Bar], unit: str) -> Html:
    """Return the numbers of a histogram."""
    whole = total(bars) or 1.0
    return table(
        caption,
        [Column("from"), Column("to"), Column(unit), Column("share")],
        [
            [
                Cell(numbers.significant(each.low)),
                Cell(numbers.significant(each.high)),
                Cell(numbers.count(each.weight)),
                Cell(numbers.share(each.weight / whole)),
            ]
            for each in bars
            if each.weight
        ],
    )


def points_table(points: Sequence[tuple[float, float]]) -> Html:
    """Return the numbers of a cumulative curve: about 20 of its points."""
    step = max(1, len(points) // 20)
    kept = [*points[::step], *([points[-1]] if (len(points) - 1) % step else [])]
    return table(
        "Share of the rows up to a loss",
        [Column("loss"), Column("share")],
        [[Cell(numbers.significant(value)), Cell(numbers.share(share))] for value, share in kept],
    )
