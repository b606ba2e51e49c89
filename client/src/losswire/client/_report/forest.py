"""Draws means with their intervals on a common axis, one small drawing in each row of a table."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from losswire.client._report.axes import LinearAxis, around
from losswire.client._report.charts import ticks
from losswire.client._report.markup import Html, element, percent, visible

_HEIGHT: Final = 24
_MIDDLE: Final = 12
_TICKS: Final = 3


@dataclass(frozen=True)
class Whisker:
    """A number with its interval."""

    value: float
    low: float
    high: float
    small: bool = False
    """Whether there are few rows: then it is drawn hollow and does not widen the axis."""
    kind: str = ""


def whisker(
    value: float, interval: tuple[float, float], *, small: bool = False, kind: str = ""
) -> Whisker:
    """Return a number with its interval, to be drawn."""
    return Whisker(value, *interval, small, kind)


def axis_of(whiskers: Sequence[Whisker], reference: float, *, signed: bool = False) -> LinearAxis:
    """Return an axis with room for the reference and every interval of enough rows."""
    shown = [each for each in whiskers if not each.small] or list(whiskers)
    values = [reference, *(each.value for each in whiskers)]
    for each in shown:
        values += [each.low, each.high]
    return around(values, signed=signed, most=_TICKS)


def draw(whisker: Whisker, axis: LinearAxis, reference: float) -> Html:
    """Return one row: the reference as a line, the interval as a bar through a point."""
    at = percent(axis.place(reference))
    drawn = [element("line", class_="reference", x1=at, x2=at, y1=-6, y2=_HEIGHT + 6)]
    if math.isfinite(whisker.value):
        kind = f"whisker {whisker.kind}".strip()
        if math.isfinite(whisker.low) and math.isfinite(whisker.high):
            drawn += _interval(whisker, axis, kind)
        drawn.append(
            element(
                "circle",
                class_=f"{kind}{' small' if whisker.small else ''}",
                cx=percent(axis.place(whisker.value)),
                cy=_MIDDLE,
                r=4.5,
            )
        )
    return element("svg", *drawn, class_="row", width="100%", height=_HEIGHT, aria_hidden="true")


def _interval(whisker: Whisker, axis: LinearAxis, kind: str) -> list[Html]:
    """Return the bar, with an arrow where it goes beyond the axis."""
    low, high = percent(axis.place(whisker.low)), percent(axis.place(whisker.high))
    drawn = [element("line", class_=kind, x1=low, x2=high, y1=_MIDDLE, y2=_MIDDLE)]
    for value, x, beyond, arrow in (
        (whisker.low, low, whisker.low < axis.low, "\u2039"),
        (whisker.high, high, whisker.high > axis.high, "\u203a"),
    ):
        if beyond:
            drawn.append(element("text", arrow, class_="beyond", x=x, y=_MIDDLE + 5))
        elif math.isfinite(value):
            drawn.append(element("line", class_=kind, x1=x, x2=x, y1=_MIDDLE - 4, y2=_MIDDLE + 4))
    return drawn


def scale(axis: LinearAxis, label: str) -> Html:
    """Return the axis itself, for the head of the column."""
    return element(
        "svg",
        element("line", class_="axis", x1="0%", x2="100%", y1=0, y2=0),
        ticks(axis, 0),
        role="img",
        aria_label=visible(label),
        class_="scale",
        width="100%",
        height=22,
    )
