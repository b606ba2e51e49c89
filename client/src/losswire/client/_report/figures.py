"""The main figures of a report by matplotlib, for notebooks and papers."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from losswire.client._report.axes import LogAxis, SignedLogAxis
from losswire.client._report.buckets import Bar, bars_of, coarser, rebinned, total
from losswire.client._report.comparison_page import CROSS, ComparisonLike, detailed_pairs
from losswire.client._report.differences import Pair, kind, reach_of, written
from losswire.client._report.forest import Whisker, whisker
from losswire.client._report.markup import visible
from losswire.client._report.summary_page import SummaryLike, log_bars
from losswire.summaries.figures import numbers, words
from losswire.summaries.figures.words import shorten

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_BARS: Final = 48
_MOST: Final = 20
"""The slices of one figure: those with the largest and the smallest means."""
_COLOURS: Final = {"": "#0b62c4", "better": "#0072b2", "worse": "#d55e00", "tie": "#7a8590"}
_BAR: Final = "#7fb0e6"
_QUIET: Final = "#5b6570"


def plot(
    subject: SummaryLike | ComparisonLike,
    *,
    column: str | None = None,
    figsize: tuple[float, float] | None = None,
) -> "Figure":
    """Return a figure: the distribution and, beside it, the slices of one table with intervals.

    Of a comparison: the differences of the first pair of the report. `column` names the table;
    None: the first one. `figsize` is in inches.

    Raises ImportError without matplotlib, KeyError where there is no such table.
    """
    try:
        from matplotlib.figure import Figure  # noqa: PLC0415 - an extra
    except ImportError:
        raise ImportError("plot needs matplotlib: pip install 'losswire[plot]'") from None
    tables = [CROSS.join(each.columns) for each in subject.message.tables]
    if column is not None and column not in tables:
        raise KeyError(f"no slices by {column!r}; there are: {', '.join(tables) or 'none'}")
    chosen = column or next(iter(tables), None)
    figure = Figure(figsize=figsize or ((11, 4.2) if chosen else (6.5, 4.2)), layout="constrained")
    grid = figure.subplots(1, 2 if chosen else 1, squeeze=False)[0]
    if subject.message.candidates:
        _draw_comparison(subject, grid, chosen)  # type: ignore[arg-type]
    else:
        _draw_summary(subject, grid, chosen)  # type: ignore[arg-type]
    for axes in grid:
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def _draw_summary(summary: SummaryLike, grid: Any, column: str | None) -> None:
    """Draw the losses of a summary and of its slices."""
    axes = grid[0]
    bars, axis = log_bars(bars_of(coarser(summary.message.total.distributions[0].sketch, _BARS)))
    _histogram(axes, bars, [_BAR] * len(bars))
    if isinstance(axis, SignedLogAxis):
        axes.set_xscale("symlog", linthresh=axis.least)
        axes.set_xticks([value for value, _ in axis.ticks()])
    elif isinstance(axis, LogAxis):
        axes.set_xscale("log")
    _mean(axes, summary.finite_mean, summary.interval(), f"Row losses, mean {words.mean(summary)}")
    axes.set_xlabel(_text(summary.message.loss))
    if column is None:
        return
    lifts = _ends(summary.slices[column].by_lift())
    whiskers = [
        whisker(each.statistics.finite_mean, each.statistics.interval(), small=each.small)
        for each in lifts
    ]
    labels = [each.label for each in lifts]
    _forest(grid[1], labels, whiskers, summary.finite_mean)
    grid[1].set_xlabel(f"mean {_text(summary.message.loss)}")
    grid[1].set_title(_text(f"Slices by {column}"), fontsize="medium")


def _draw_comparison(comparison: ComparisonLike, grid: Any, column: str | None) -> None:
    """Draw how the first pair of a comparison differs."""
    pair = detailed_pairs(comparison)[0]
    axes = grid[0]
    bars = _difference_bars(pair)
    colours = [
        _COLOURS["tie" if each.low < 0 < each.high else "worse" if each.high > 0 else "better"]
        for each in bars
    ]
    _histogram(axes, bars, colours)
    _mean(
        axes,
        pair.difference.mean,
        pair.difference.interval(),
        f"Differences, mean {written(pair.difference)}",
    )
    loss = comparison.message.loss
    axes.set_xlabel(_text(f"{loss}, {pair.title}"))
    if column is None:
        return
    found = _ends(sorted(pair.difference.by_slice(column), key=lambda each: -each.difference.mean))
    whiskers = [
        whisker(
            each.difference.mean,
            each.difference.interval(),
            small=each.difference.small,
            kind=kind(each.difference) if each.p_adjusted < words.CLEAR else "tie",
        )
        for each in found
    ]
    _forest(grid[1], [each.label for each in found], whiskers, 0.0)
    grid[1].set_xlabel(_text(f"mean {loss}, {pair.title}"))
    grid[1].set_title(_text(f"Differences by {column}"), fontsize="medium")


def _difference_bars(pair: Pair) -> list[Bar]:
    """Return bars of equal width around zero."""
    fine = bars_of(pair.state.sketch)
    reach = reach_of(fine, total(fine))
    return rebinned(fine, [reach * i / 20 - reach / 40 for i in range(-20, 22)])


def _ends(found: Sequence[Any]) -> list[Any]:
    """Return the first and the last of many."""
    return list(found) if len(found) <= _MOST else [*found[: _MOST // 2], *found[-_MOST // 2 :]]


def _histogram(axes: "Axes", bars: Sequence[Bar], colours: Sequence[str]) -> None:
    """Draw bars whose heights are shares in per cent."""
    whole = total(bars) or 1.0
    axes.bar(
        [each.low for each in bars],
        [each.weight / whole * 100 for each in bars],
        [each.high - each.low for each in bars],
        align="edge",
        color=colours,
        edgecolor="white",
        linewidth=0.5,
    )
    axes.set_ylabel("rows, %")


def _mean(axes: "Axes", mean: float, interval: tuple[float, float], title: str) -> None:
    """Draw a mean with its interval as a band, and write both above."""
    axes.axvspan(*interval, color=_COLOURS[""], alpha=0.2, linewidth=0)
    axes.axvline(mean, color=_COLOURS[""])
    bounds = f"95{numbers.SPACE}% interval {numbers.interval(interval)}"
    axes.set_title(f"{title}\n{bounds}", fontsize="medium")


def _forest(
    axes: "Axes", labels: Sequence[str], whiskers: Sequence[Whisker], reference: float
) -> None:
    """Draw means with their intervals, the first on top; hollow where there are few rows."""
    axes.axvline(reference, color=_QUIET, linestyle=":", linewidth=1)
    for place, each in enumerate(reversed(whiskers)):
        axes.errorbar(
            [each.value],
            [place],
            xerr=[[each.value - each.low], [each.high - each.value]],
            fmt="o",
            color=_COLOURS[each.kind],
            markerfacecolor="white" if each.small else _COLOURS[each.kind],
            capsize=3,
        )
    axes.set_yticks(range(len(labels)), [_text(each, 24) for each in reversed(labels)])


def _text(text: str, most: int = 40) -> str:
    """Return a name as text: matplotlib reads what is between dollar signs as a formula."""
    return shorten(visible(text), most).replace("$", r"\$")
