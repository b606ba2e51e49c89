"""Says where the numbers of a report come from."""

from typing import Final

from losswire.client._report.markup import Html
from losswire.client._report.parts import (
    MOST_ROWS,
    Cell,
    Column,
    cut,
    fold,
    name,
    paragraph,
    section,
    table,
)
from losswire.summaries.figures import numbers, words
from losswire.v1.summary_pb2 import IncludedRows, LossSummary
from losswire.v1.tensor_pb2 import DataType

_MOST_RANGES: Final = 3


def origin(message: LossSummary, accuracy: float) -> Html:
    """Return what was evaluated, how and by what."""
    parts = message.included
    rows = sum(span.end - span.begin for each in parts for span in each.ranges)
    what = f"{numbers.rows(rows)} of {numbers.rows(len(parts), 'partition')}"
    return section(
        "Where these numbers come from",
        paragraph(
            f"Covers {what}. {words.clusters_sentence(message)} Means and intervals come from "
            "sums in float64, quantiles and histograms from buckets that are within "
            f"{numbers.share(accuracy)} of the value. Intervals follow the normal law."
        ),
        _receipts(message),
        _options(message),
        fold(f"What is included: {what}", *_included(message)),
    )


def _receipts(message: LossSummary) -> Html:
    """Return by what the losses were computed."""
    return table(
        "Computed by",
        [Column(each, "text") for each in ("device", "engine", "computed in", "Losswire", "torch")],
        [
            [
                Cell(name(each.device)),
                Cell(name(each.engine)),
                Cell(DataType.Name(each.compute_data_type).removeprefix("DATA_TYPE_").lower()),
                Cell(name(each.server_version)),
                Cell(name(each.torch_version)),
            ]
            for each in message.receipts[:MOST_ROWS]
        ],
    )


def _options(message: LossSummary) -> Html:
    """Return the options of the loss."""
    if not message.options:
        return paragraph("All options of the loss have their defaults.")
    return table(
        "Options of the loss",
        [Column("option", "text"), Column("value", "text")],
        [
            [Cell(name(key)), Cell(name(words.option(value)))]
            for key, value in sorted(message.options.items())
        ],
    )


def _included(message: LossSummary) -> list[Html]:
    """Return the partitions with their rows."""
    shown = message.included[:MOST_ROWS]
    drawn = table(
        "Included",
        [Column("partition", "text"), Column("rows"), Column("ranges", "text")],
        [
            [Cell(name(each.partition) if each.partition else "(unnamed)"), *_ranges(each)]
            for each in shown
        ],
    )
    left = cut(len(shown), len(message.included), "partitions", "the first ones")
    return [drawn, *([left] if left else [])]


def _ranges(each: IncludedRows) -> list[Cell]:
    """Return how many rows of a partition, and which."""
    rows = sum(span.end - span.begin for span in each.ranges)
    written = [f"{span.begin:,}\u2013{span.end - 1:,}" for span in each.ranges[:_MOST_RANGES]]
    more = len(each.ranges) - len(written)
    return [
        Cell(numbers.count(rows), rows),
        Cell(", ".join(written) + (f" and {more:,} more" if more else "")),
    ]
