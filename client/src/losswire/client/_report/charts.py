"""Draws figures as inline SVG that is as wide as the page: positions are per cent of the width."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from losswire.client._report.axes import Axis
from losswire.client._report.buckets import Bar, total
from losswire.client._report.markup import Html, element, join, percent, visible
from losswire.summaries.figures import numbers

_HEIGHT: Final = 168
_LABELS: Final = 22
"""The height of the numbers below an axis."""
_MARK: Final = 16
"""The height of one mark's name above a figure."""
_NARROWEST: Final = 0.0015


@dataclass(frozen=True)
class Mark:
    """A vertical line with a name."""

    name: str
    value: float
    kind: str = "quantile"
    interval: tuple[float, float] | None = None


def histogram(
    label: str,
    bars: Sequence[Bar],
    axis: Axis,
    *,
    unit: str,
    marks: Sequence[Mark] = (),
    signed: bool = False,
    everything: float | None = None,
) -> Html:
    """Return bars whose heights are shares of the whole weight."""
    whole = everything or total(list(bars)) or 1.0
    tallest = max((each.weight for each in bars), default=0.0) / whole or 1.0
    top = _MARK * len(marks)
    size = {"top": top, "whole": whole, "tallest": tallest}
    drawn = [
        _bar(bar, axis, **size, unit=unit, kind=_sign(bar) if signed else "")
        for bar in bars
        if bar.weight > 0
    ]
    return _frame(label, axis, top, join(_levels(top, tallest), *drawn), marks)


def _bar(
    bar: Bar, axis: Axis, *, top: float, whole: float, tallest: float, unit: str, kind: str
) -> Html:
    """Return one bar, which says its numbers when it is pointed at."""
    part = bar.weight / whole
    left, right = axis.place(bar.low), axis.place(bar.high)
    if right - left < _NARROWEST:
        middle = min(max((left + right) / 2, _NARROWEST), 1 - _NARROWEST)
        left, right = middle - _NARROWEST, middle + _NARROWEST
    tall = max(1.0, part / tallest * _HEIGHT)
    where = (
        numbers.significant(bar.low)
        if bar.low == bar.high
        else f"{numbers.significant(bar.low)} to {numbers.significant(bar.high)}"
    )
    return element(
        "rect",
        element("title", f"{where}: {numbers.share(part)} ({numbers.count(bar.weight)} {unit})"),
        class_=f"bar {kind}".strip(),
        x=percent(left),
        width=percent(right - left),
        y=round(top + _HEIGHT - tall, 1),
        height=round(tall, 1),
    )


def _levels(top: int, tallest: float) -> Html:
    """Return two quiet lines that say how high the bars are."""
    steps = [step * 10.0**power for power in range(-6, 1) for step in (1, 2, 5)]
    step = max((each for each in steps if each <= tallest * 0.55), default=steps[0])
    heights = [step * i for i in (1, 2) if step * i <= tallest]
    return join(
        *(
            join(
                element("line", class_="grid", x1="0%", x2="100%", y1=y, y2=y),
                element("text", _level(height), class_="level", x="100%", y=y - 4),
            )
            for height in heights
            for y in [round(top + _HEIGHT * (1 - height / tallest), 1)]
        )
    )


def _sign(bar: Bar) -> str:
    """Return on which side of zero a bar is."""
    if bar.low < 0 < bar.high or bar.low == bar.high == 0:
        return "tie"
    return "worse" if bar.high > 0 else "better"


def _level(height: float) -> str:
    """Return a share that is a round number."""
    return f"{height * 100:g}{numbers.SPACE}%"


def curve(
    label: str, points: Sequence[tuple[float, float]], axis: Axis, marks: Sequence[Mark] = ()
) -> Html:
    """Return a curve of shares from 0 to 1."""
    top = _MARK * len(marks)
    levels = join(
        *(
            join(
                element("line", class_="grid", x1="0%", x2="100%", y1=y, y2=y),
                element("text", _level(height), class_="level", x="100%", y=y - 4),
            )
            for height in (0.5, 1.0)
            for y in [round(top + _HEIGHT * (1 - height), 1)]
        )
    )
    path = " ".join(
        f"{'L' if i else 'M'}{axis.place(value) * 1000:.1f} {(1 - share) * 1000:.1f}"
        for i, (value, share) in enumerate(points)
    )
    line = element(
        "svg",
        element("path", d=path, class_="curve", vector_effect="non-scaling-stroke"),
        viewBox="0 0 1000 1000",
        preserveAspectRatio="none",
        x=0,
        y=top,
        width="100%",
        height=_HEIGHT,
    )
    return _frame(label, axis, top, join(levels, line), marks)


def _frame(label: str, axis: Axis, top: int, drawn: Html, marks: Sequence[Mark]) -> Html:
    """Return a figure with its axis below and its marks above."""
    bottom = top + _HEIGHT
    return element(
        "svg",
        drawn,
        *_marks(axis, bottom, marks),
        element("line", class_="axis", x1="0%", x2="100%", y1=bottom, y2=bottom),
        ticks(axis, bottom),
        role="img",
        aria_label=visible(label),
        class_="chart",
        width="100%",
        height=bottom + _LABELS,
    )


def ticks(axis: Axis, bottom: int) -> Html:
    """Return the numbers below an axis."""
    return join(
        *(
            join(
                element("line", class_="axis", x1=x, x2=x, y1=bottom, y2=bottom + 4),
                element("text", text, class_="tick", x=x, y=bottom + 17),
            )
            for value, text in axis.ticks()
            for x in [percent(axis.place(value))]
        )
    )


def _marks(axis: Axis, bottom: int, marks: Sequence[Mark]) -> list[Html]:
    """Return the marks: each name on a line of its own, so that none covers another."""
    drawn = []
    for i, mark in enumerate(sorted(marks, key=lambda each: -each.value)):
        y = _MARK * i
        place = axis.place(mark.value)
        x = percent(place)
        if mark.interval is not None:
            low, high = (axis.place(each) for each in mark.interval)
            drawn.append(
                element(
                    "rect",
                    class_="band",
                    x=percent(low),
                    width=percent(high - low),
                    y=y,
                    height=bottom - y,
                )
            )
        ends = place > 0.62  # noqa: PLR2004 - to the left of its line where there is no room
        drawn += [
            element("line", class_=f"mark {mark.kind}", x1=x, x2=x, y1=y, y2=bottom),
            element(
                "text",
                mark.name,
                class_=f"name {'before' if ends else 'after'}",
                x=x,
                y=y + 12,
                dx=-6 if ends else 6,
            ),
        ]
    return drawn


def split_bar(label: str, parts: Sequence[tuple[str, float, str]]) -> Html:
    """Return one bar of several parts: the name, the share and the class of each."""
    drawn, at = [], 0.0
    for name, share, kind in parts:
        if share > 0:
            drawn.append(
                element(
                    "rect",
                    element("title", f"{name}: {numbers.share(share)}"),
                    class_=f"bar {kind}",
                    x=percent(at),
                    width=percent(share),
                    y=0,
                    height=24,
                )
            )
        at += share
    return element(
        "svg",
        *drawn,
        role="img",
        aria_label=visible(label),
        class_="split",
        width="100%",
        height=24,
    )
