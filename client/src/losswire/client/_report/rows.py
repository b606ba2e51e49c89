"""Tables of single rows: the worst ones, and those that differ most."""

from collections.abc import Sequence

from losswire.client._report.markup import Html
from losswire.client._report.parts import MOST_ROWS, Cell, Column, cut, name, section, table
from losswire.summaries.figures import numbers
from losswire.v1.summary_pb2 import LossSummary, RowLoss


def worst_rows(message: LossSummary, k: int) -> Html | None:
    """Return the rows with the largest losses; None where none were kept."""
    rows = message.total.distributions[k].worst
    if not rows:
        return None
    shown = rows[:MOST_ROWS]
    drawn = rows_table(
        "Worst rows",
        shown,
        [("loss", [each.values[k] for each in shown])],
        parted=len(message.included) > 1,
    )
    return section(
        "Worst rows",
        drawn,
        cut(len(shown), len(rows), "rows", "those with the largest losses"),
    )


def rows_table(
    caption: str,
    rows: Sequence[RowLoss],
    columns: Sequence[tuple[str, Sequence[float]]],
    *,
    parted: bool,
) -> Html:
    """Return a table of rows with some numbers of each, and what is known of them.

    `parted`: whether they are of several partitions, so that theirs is named.
    """
    named = any(each.WhichOneof("id") for each in rows)
    weighted = any(each.weight != 1 for each in rows)
    labels = sorted({key for each in rows for key in each.labels})
    head = [
        Column("id" if named else "row", "text"),
        *(Column(title) for title, _ in columns),
        *([Column("weight")] if weighted else []),
        *(Column(name(each, 40), "text") for each in labels),
        *([Column("partition", "text")] if parted else []),
        *([Column("row")] if named else []),
    ]
    body = [
        [
            _id(row),
            *(Cell(numbers.significant(values[i], 4), values[i]) for _, values in columns),
            *([Cell(numbers.significant(row.weight), row.weight)] if weighted else []),
            *(Cell(name(row.labels.get(each, ""), 60)) for each in labels),
            *([Cell(name(row.partition, 60))] if parted else []),
            *([Cell(numbers.count(row.row), row.row)] if named else []),
        ]
        for i, row in enumerate(rows)
    ]
    return table(caption, head, body, kind="rows")


def _id(row: RowLoss) -> Cell:
    """Return a row's id: the caller's own, or its number."""
    kind = row.WhichOneof("id")
    if kind == "name":
        return Cell(name(row.name))
    number = row.number if kind == "number" else row.row
    return Cell(str(number), number)
