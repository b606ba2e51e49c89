"""The parts that every page is made of: sections, facts, tables, figures."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from losswire.client._report.markup import Html, element, safe
from losswire.summaries.figures.words import shorten

MOST_ROWS: Final = 50
"""Rows of one table of a page; the sentence below it says how many there are."""


_LONGEST: Final = 240
"""The characters of a name that are kept to be pointed at."""


@dataclass(frozen=True)
class Column:
    """A column of a table."""

    name: str | Html
    kind: str = "number"
    """`number`, `text` or `plot`."""


@dataclass(frozen=True)
class Cell:
    """What stands in a cell, and by what it is sorted."""

    content: str | Html
    sort: float | None = None
    kind: str = ""


def rows_of_each(tables: int) -> int:
    """Return how many rows each of some tables may show, so that the page stays small."""
    return max(8, min(MOST_ROWS, 2 * MOST_ROWS // max(1, tables)))


def section(title: str, *children: str | Html | None, lead: str | Html | None = None) -> Html:
    """Return a section with its heading."""
    return element(
        "section",
        element("h2", title),
        element("p", lead, class_="lead") if lead else None,
        *children,
    )


def paragraph(*children: str | Html) -> Html:
    """Return a paragraph in the quiet colour."""
    return element("p", *children, class_="note")


def name(text: str, most: int = 80) -> Html:
    """Return a name that someone chose, kept apart from the direction of the text around it."""
    whole = shorten(text, _LONGEST) if len(text) > most else None
    return element("bdi", shorten(text, most), title=whole)


def facts(pairs: Sequence[tuple[str, str | Html]]) -> Html:
    """Return names with their values, side by side."""
    return element(
        "dl", *(element("div", element("dt", key), element("dd", value)) for key, value in pairs)
    )


def table(
    caption: str, columns: Sequence[Column], rows: Sequence[Sequence[Cell]], *, kind: str = ""
) -> Html:
    """Return a table that a reader can sort where scripts run, and that folds on a phone."""
    head = element(
        "tr",
        *(element("th", each.name, scope="col", class_=each.kind) for each in columns),
    )
    body = [
        element(
            "tr",
            *(
                _cell(cell, column, i, labelled=kind == "forest")
                for i, (cell, column) in enumerate(zip(row, columns, strict=True))
            ),
        )
        for row in rows
    ]
    return element(
        "div",
        element(
            "table",
            element("caption", caption),
            element("thead", head),
            element("tbody", *body),
            class_=kind or None,
        ),
        class_="scroll",
    )


def _cell(cell: Cell, column: Column, position: int, *, labelled: bool) -> Html:
    """Return one cell; the first of a row names the row."""
    label = column.name if labelled and column.kind == "number" else None
    sort = cell.sort
    return element(
        "td" if position else "th",
        cell.content,
        scope=None if position else "row",
        class_=f"{column.kind} {cell.kind}".strip(),
        data_sort=None if sort is None else repr(float(sort)),
        data_label=label,
    )


def figure(title: str, drawing: Html, twin: Html, note: str | Html | None = None) -> Html:
    """Return a drawing with the same numbers as a table below it."""
    return element(
        "figure",
        element("figcaption", title),
        element("div", drawing, class_="plot"),
        paragraph(note) if note else None,
        fold("The numbers of this figure", twin),
    )


def fold(title: str, *children: Html) -> Html:
    """Return something that is shown when it is asked for; in print, where it is open."""
    return element("details", element("summary", title), *children)


def cut(shown: int, of: int, what: str, which: str) -> Html | None:
    """Return a sentence that says what a table leaves out; None if it leaves out nothing."""
    if shown >= of:
        return None
    return paragraph(safe(f"{shown} of {of:,} {what}: {which}."))
