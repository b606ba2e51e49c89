"""The page of a summary."""

import math
from collections.abc import Mapping, Sequence
from typing import Final, Protocol

from losswire.client._report import charts, forest
from losswire.client._report.axes import Axis, LinearAxis, LogAxis, SignedLogAxis
from losswire.client._report.buckets import Bar, bars_of, coarser, cumulative, rebinned, total
from losswire.client._report.charts import Mark
from losswire.client._report.markup import Html, element, join
from losswire.client._report.origin import origin
from losswire.client._report.parts import (
    Cell,
    Column,
    cut,
    facts,
    figure,
    name,
    paragraph,
    rows_of_each,
    section,
    table,
)
from losswire.client._report.rows import worst_rows
from losswire.client._report.tables import bars_table, points_table
from losswire.summaries.figures import numbers, words
from losswire.summaries.figures.subjects import Figures, Lift
from losswire.summaries.statistics import effective_count
from losswire.v1.summary_pb2 import LossSummary

QUANTILES: Final = (0.5, 0.9, 0.99)
_BARS: Final = 48
_FEW: Final = 0.005
"""The share of the values that may be too small for a signed logarithmic axis."""


class SliceLifts(Protocol):
    """A table of slices."""

    def by_lift(self) -> Sequence[Lift]:
        """Return the slices, the highest first."""
        ...


class SummaryLike(Figures, Protocol):
    """What the page of a summary reads."""

    @property
    def message(self) -> LossSummary:
        """The whole state."""
        ...

    @property
    def accuracy(self) -> float:
        """The relative accuracy of quantiles."""
        ...

    @property
    def slices(self) -> Mapping[str, SliceLifts]:
        """The tables of slices."""
        ...


def summary_body(summary: SummaryLike) -> Html:
    """Return the body of the page of a summary."""
    message = summary.message
    lifts = {column: list(each.by_lift()) for column, each in summary.slices.items()}
    return element(
        "main",
        _head(summary, lifts),
        _distribution(summary) if message.total.distributions[0].weight_sum else None,
        *(
            slice_section(column, each, summary, rows_of_each(len(lifts)), explained=not i)
            for i, (column, each) in enumerate(lifts.items())
        ),
        worst_rows(message, 0),
        origin(message, summary.accuracy),
    )


def _head(summary: SummaryLike, lifts: Mapping[str, Sequence[Lift]]) -> Html:
    """Return the answer: in a sentence, as one number with its interval, in facts."""
    message = summary.message
    has_values = bool(message.total.distributions[0].weight_sum)
    sentence = words.mean_sentence(message.loss, summary)
    more = [words.rows_sentence(summary)]
    if has_values:
        more.append(words.spread_sentence(summary))
    slices = words.slices_sentence(single_columns(message, lifts))
    return element(
        "header",
        element("p", "Losswire evaluation", class_="kicker"),
        element("h1", sentence),
        element("p", " ".join([*more, *([slices] if slices else [])]), class_="lead"),
        hero(summary, message.loss) if has_values else None,
        facts(_facts(summary)),
        paragraph(
            words.READING,
            f" {words.clusters_sentence(message)}",
            " There are too few rows for the normal law: take this interval as a rough guide."
            if summary.small
            else "",
        ),
    )


def single_columns(
    message: LossSummary, lifts: Mapping[str, Sequence[Lift]]
) -> Mapping[str, Sequence[Lift]]:
    """Return the tables of single columns; all where there are none."""
    names = [each.columns[0] for each in message.tables if len(each.columns) == 1]
    return {each: lifts[each] for each in names if each in lifts} or lifts


def hero(figures: Figures, label: str) -> Html:
    """Return the mean, large, above its interval drawn to scale."""
    low, high = figures.interval()
    return element(
        "div",
        element(
            "p",
            element("strong", words.mean(figures)),
            element(
                "span",
                f"mean {label}" if math.isfinite(figures.mean) else "mean of the finite rows",
                element("br"),
                f"95{numbers.SPACE}% interval {numbers.interval((low, high))}",
            ),
        ),
        class_="hero",
    )


def _facts(summary: SummaryLike) -> list[tuple[str, str | Html]]:
    """Return the facts of the data set."""
    message = summary.message
    found: list[tuple[str, str | Html]] = [
        ("rows", numbers.count(summary.count)),
        ("ignored", numbers.count(summary.ignored_count) if summary.ignored_count else "none"),
        ("NaN", numbers.count(summary.nan_count) if summary.nan_count else "none"),
        ("infinite", numbers.count(summary.infinite_count) if summary.infinite_count else "none"),
        *_derived(summary),
    ]
    if summary.weight_sum:
        effective = effective_count(message.total.distributions[0])
        found.insert(4, ("effective rows", numbers.count(round(effective))))
    options = ", ".join(
        f"{key} = {words.option(value)}" for key, value in sorted(message.options.items())
    )
    found.append(("options", name(options, 200) if options else "defaults"))
    return found


def _derived(figures: Figures) -> list[tuple[str, str | Html]]:
    """Return what else people expect of the loss, such as its perplexity."""
    return [
        (key.replace("_", " "), numbers.within(value, (high - low) / 2))
        for key, (value, (low, high)) in figures.derived_figures.items()
    ]


def log_figure(summary: SummaryLike) -> Html:
    """Return the logarithmic histogram of all row losses, with the mean and some quantiles."""
    message = summary.message
    unit = unit_of(message)
    marks = [
        Mark(f"{quantile_name(q)} {numbers.significant(summary.quantile(q))}", summary.quantile(q))
        for q in QUANTILES
    ]
    mean_mark = Mark(f"mean {words.mean(summary)}", summary.finite_mean, "mean", summary.interval())
    bars, axis = _log_bars_of(summary)
    return figure(
        "Histogram, logarithmic",
        charts.histogram(
            f"Logarithmic histogram of {message.loss}. {words.spread_sentence(summary)}",
            bars,
            axis,
            unit=unit,
            marks=[*marks, mean_mark],
        ),
        bars_table("Histogram, logarithmic", bars, unit),
    )


def _log_bars_of(summary: SummaryLike) -> tuple[list[Bar], Axis]:
    """Return the bars of all row losses for a logarithmic axis, and the axis."""
    return log_bars(bars_of(coarser(summary.message.total.distributions[0].sketch, _BARS)))


def _distribution(summary: SummaryLike) -> Html:
    """Return histograms, the cumulative curve, and the table of quantiles."""
    message = summary.message
    unit = unit_of(message)
    _, axis = _log_bars_of(summary)
    fine = bars_of(message.total.distributions[0].sketch)
    linear, straight, beyond = linear_bars(fine, summary.quantile(0), summary.quantile(0.99))
    points = cumulative(fine, 160, axis.place)
    loss = message.loss
    return section(
        "Distribution of the row losses",
        _numbers(summary),
        log_figure(summary),
        element(
            "div",
            figure(
                "Histogram, linear",
                charts.histogram(
                    f"Linear histogram of {loss} up to its quantile 0.99",
                    linear,
                    straight,
                    unit=unit,
                    everything=total(fine),
                ),
                bars_table("Histogram, linear", linear, unit),
                f"{numbers.share(beyond)} of the rows are beyond the right edge."
                if beyond > 0
                else None,
            ),
            figure(
                "Share of the rows up to a loss",
                charts.curve(f"Cumulative distribution of {loss}", points, axis),
                points_table(points),
            ),
            class_="two",
        ),
    )


def quantile_name(q: float) -> str:
    """Return what a quantile is called."""
    return "median" if q == 0.5 else f"p{q * 100:g}"  # noqa: PLR2004 - the median


def unit_of(message: LossSummary) -> str:
    """Return what buckets count: rows, or their weight where that differs."""
    one = message.total.distributions[0]
    return "rows" if one.weight_sum == one.weight_square_sum else "weight"


def log_bars(bars: Sequence[Bar]) -> tuple[list[Bar], Axis]:
    """Return the bars to draw on a logarithmic axis, and the axis."""
    magnitudes = [max(abs(each.low), abs(each.high)) for each in bars if each.low != each.high]
    if not magnitudes:
        return list(bars), LinearAxis(-1.0, 1.0)
    if all(each.low > 0 for each in bars):
        return list(bars), LogAxis(bars[0].low, bars[-1].high)
    axis = SignedLogAxis(
        _least(bars, max(magnitudes)),
        max(magnitudes),
        negative=any(each.low < 0 for each in bars),
        positive=any(each.high > 0 for each in bars),
    )
    return list(bars), axis


def _least(bars: Sequence[Bar], most: float) -> float:
    """Return the magnitude from which on the axis is logarithmic: few values are below."""
    running, few = 0.0, _FEW * total(bars)
    for bar in sorted(bars, key=lambda each: max(abs(each.low), abs(each.high))):
        running += bar.weight if bar.low != bar.high else 0.0
        if running > few:
            return max(min(abs(bar.low), abs(bar.high)), most * 1e-9)
    return most * 1e-3


def linear_bars(
    bars: list[Bar], low: float, high: float, most: int = 40
) -> tuple[list[Bar], LinearAxis, float]:
    """Return bars of equal width up to `high`, their axis, and the share of what is beyond."""
    if low >= 0 and low < high / 2:
        low = 0.0
    if not high > low:
        width = abs(high) * 0.05 or 0.5
        low, high = low - width, high + width
    edges = [low + (high - low) * i / most for i in range(most + 1)]
    found = rebinned(bars, edges)
    beyond = 1 - total(found) / (total(bars) or 1.0)
    return found, LinearAxis(low, high), beyond if beyond > 1e-9 else 0.0  # noqa: PLR2004


def _numbers(summary: SummaryLike) -> Html:
    """Return the most important numbers, quantiles with their error."""
    error = f"\u00b1{numbers.SPACE}{numbers.share(summary.accuracy)}"
    return facts(
        [
            ("smallest", numbers.significant(summary.quantile(0), 4)),
            *(
                (quantile_name(q), _with_error(numbers.significant(summary.quantile(q)), error))
                for q in QUANTILES
            ),
            ("largest", numbers.significant(summary.quantile(1), 4)),
            ("standard deviation", numbers.significant(summary.std, 4)),
            ("standard error of the mean", numbers.significant(summary.standard_error, 2)),
        ]
    )


def _with_error(number: str, error: str) -> Html:
    """Return a number with its error beside it."""
    return join(number, " ", element("small", error))


def slice_section(
    column: str, lifts: Sequence[Lift], whole: Figures, most: int, *, explained: bool = True
) -> Html:
    """Return the slices of one table as a forest plot, the highest first."""
    shown = list(lifts) if len(lifts) <= most else [*lifts[: most // 2], *lifts[-(most // 2) :]]
    whiskers = [
        forest.whisker(each.statistics.finite_mean, each.statistics.interval(), small=each.small)
        for each in shown
    ]
    axis = forest.axis_of(whiskers, whole.finite_mean)
    rows = [
        _slice_row(each, whisker, axis, whole.finite_mean)
        for each, whisker in zip(shown, whiskers, strict=True)
    ]
    label = f"Means of the slices by {column}, with the mean of all rows as a line"
    return section(
        f"Slices by {column}",
        table(
            f"Slices by {column}",
            [
                Column("slice", "text"),
                Column(forest.scale(axis, label), "plot"),
                Column("mean"),
                Column(f"95{numbers.SPACE}% interval", "interval"),
                Column("rows"),
                Column("lift"),
                Column("p (Holm)"),
                Column("", "text verdicts"),
            ],
            rows,
            kind="forest",
        ),
        cut(len(shown), len(lifts), "slices", "those with the highest and the lowest means"),
        paragraph(
            "The line is the mean of all rows. Lift is a slice's mean against it; p is corrected "
            "for the number of slices (Holm). A hollow point has few rows: "
            "its interval is a rough guide."
        )
        if explained
        else None,
    )


def _slice_row(lift: Lift, whisker: forest.Whisker, axis: LinearAxis, mean: float) -> list[Cell]:
    """Return one slice."""
    statistics = lift.statistics
    relative = lift.lift / abs(mean) if mean else math.nan
    verdict = words.lift_verdict(lift)
    return [
        Cell(name(lift.label, 60) if lift.label else element("i", "empty")),
        Cell(forest.draw(whisker, axis, mean), statistics.finite_mean),
        Cell(words.mean(statistics), statistics.finite_mean),
        Cell(numbers.interval(statistics.interval(), " \u2026 "), statistics.interval()[0]),
        Cell(numbers.count(statistics.count), statistics.count),
        Cell(
            numbers.share(relative, sign=True) if math.isfinite(relative) else "\u2013",
            lift.lift,
        ),
        Cell(numbers.p(lift.p_adjusted), lift.p_adjusted),
        Cell(verdict, None, "verdict" if verdict.startswith("clearly") else "quiet"),
    ]
