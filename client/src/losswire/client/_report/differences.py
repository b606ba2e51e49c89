"""The parts of a page that show how candidates differ."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from losswire.client._report import charts, forest
from losswire.client._report.axes import LinearAxis
from losswire.client._report.buckets import Bar, bars_of, rebinned, total
from losswire.client._report.charts import Mark
from losswire.client._report.markup import Html, element, join
from losswire.client._report.parts import Cell, Column, cut, figure, name, paragraph, section, table
from losswire.client._report.rows import rows_table
from losswire.client._report.tables import bars_table
from losswire.summaries.figures import numbers, words
from losswire.summaries.figures.subjects import Difference, SliceDifference
from losswire.summaries.figures.words import shorten
from losswire.v1.summary_pb2 import PairSummary


@dataclass(frozen=True)
class Pair:
    """Two candidates that are shown in detail."""

    first: str
    second: str
    difference: Difference
    state: PairSummary
    places: tuple[int, int]
    """Their numbers among the candidates."""

    @property
    def verdict(self) -> str:
        """Which is better, as a sentence."""
        return words.verdict(self.difference, self.first, self.second)

    @property
    def title(self) -> str:
        """What the difference is called."""
        return f"{shorten(self.first, 40)} {numbers.MINUS} {shorten(self.second, 40)}"


def written(difference: Difference) -> str:
    """Return the difference with the digits that its interval leaves, and a sign."""
    low, high = difference.interval()
    return numbers.plus(numbers.within(difference.mean, (high - low) / 2))


def kind(difference: Difference) -> str:
    """Return the class of a difference: who is better, as far as the interval says so."""
    low, high = difference.interval()
    return "better" if high < 0 else "worse" if low > 0 else "tie"


def hero(pair: Pair) -> Html:
    """Return the difference, large."""
    return element(
        "div",
        element(
            "p",
            element("strong", written(pair.difference)),
            element(
                "span",
                f"mean difference, {pair.title}",
                element("br"),
                f"95{numbers.SPACE}% interval {numbers.interval(pair.difference.interval())}, "
                f"{numbers.probability(pair.difference.p_value)}",
            ),
        ),
        class_="hero",
    )


def overall(pairs: Sequence[Pair], loss: str) -> Html:
    """Return the differences against zero, who wins how often, and their distributions."""
    return section(
        "Difference, row by row",
        _forest(pairs, loss),
        *(_grid([wins(each) for each in pairs])),
        *(_grid([drawn for each in pairs if (drawn := distribution(each, loss))])),
    )


def _grid(figures: list[Html]) -> list[Html]:
    """Return several figures side by side, and one alone."""
    return figures if len(figures) == 1 else [element("div", *figures, class_="two")]


def _sides(first: str, second: str) -> Html:
    """Return what the two sides of zero say."""
    return element(
        "div",
        element("span", f"\u2190 {shorten(first, 30)} better"),
        element("span", f"{shorten(second, 30)} better \u2192"),
        class_="sides",
    )


def _forest(pairs: Sequence[Pair], loss: str) -> Html:
    """Return each pair's difference with its interval against zero."""
    whiskers = [_whisker(each.difference) for each in pairs]
    axis = forest.axis_of(whiskers, 0.0, signed=True)
    label = f"Differences of mean {loss} against zero"
    return join(
        table(
            label,
            [
                Column("difference", "text"),
                Column(forest.scale(axis, label), "plot"),
                Column("mean"),
                Column(f"95{numbers.SPACE}% interval", "interval"),
                Column("p"),
                Column("", "text verdicts"),
            ],
            [
                [
                    Cell(name(each.title, 90)),
                    Cell(forest.draw(whisker, axis, 0.0), each.difference.mean),
                    Cell(written(each.difference), each.difference.mean),
                    Cell(
                        numbers.interval(each.difference.interval(), " \u2026 "),
                        each.difference.interval()[0],
                    ),
                    Cell(numbers.p(each.difference.p_value), each.difference.p_value),
                    _verdict(each.difference, each),
                ]
                for each, whisker in zip(pairs, whiskers, strict=True)
            ],
            kind="forest",
        ),
        paragraph("Below zero, to the left of the line, the first has the smaller loss."),
    )


def _whisker(difference: Difference, *, clear: bool = True) -> forest.Whisker:
    """Return a difference to draw, in the colour of the better one where that is clear."""
    sign = kind(difference) if clear else "tie"
    return forest.whisker(difference.mean, difference.interval(), small=difference.small, kind=sign)


def _verdict(difference: Difference, pair: Pair) -> Cell:
    """Return who is better, in a few words."""
    text = words.outcome(difference, pair.first, pair.second)
    return Cell(text, None, "verdict" if text.endswith("better") else "quiet")


def wins(pair: Pair) -> Html:
    """Return how often each has the smaller loss."""
    one = pair.state
    rows = one.wins + one.ties + one.losses or 1
    first, second = shorten(pair.first, 40), shorten(pair.second, 40)
    parts = [
        (f"{first} smaller", one.wins, "better"),
        ("equal", one.ties, "tie"),
        (f"{second} smaller", one.losses, "worse"),
    ]
    sentence = ", ".join(f"{what}: {numbers.count(n)} rows" for what, n, _ in parts)
    legend = element(
        "div",
        *(
            element("span", f"{what} {numbers.share(n / rows)}", class_=sign)
            for what, n, sign in parts
        ),
        class_="legend",
    )
    twin = table(
        "Rows by which has the smaller loss",
        [Column("", "text"), Column("rows"), Column("share")],
        [
            [Cell(what), Cell(numbers.count(n), n), Cell(numbers.share(n / rows), n)]
            for what, n, _ in parts
        ],
    )
    drawn = charts.split_bar(sentence, [(what, n / rows, sign) for what, n, sign in parts])
    return figure(
        f"In how many rows each has the smaller loss, {pair.title}", join(drawn, legend), twin
    )


def distribution(pair: Pair, loss: str) -> Html | None:
    """Return the histogram of the differences, with zero in the middle."""
    fine = bars_of(pair.state.sketch)
    whole = total(fine)
    if not whole:
        return None
    reach = reach_of(fine, whole)
    bars = rebinned(fine, [reach * i / 20 - reach / 40 for i in range(-20, 22)])
    outside = 1 - total(bars) / whole
    unit = "rows" if float(whole).is_integer() else "weight"
    return figure(
        f"Distribution of the differences, {pair.title}",
        join(
            charts.histogram(
                f"Histogram of the differences of {loss}, {pair.title}",
                bars,
                LinearAxis(-reach * 1.025, reach * 1.025, signed=True),
                unit=unit,
                marks=[
                    Mark(
                        f"mean {written(pair.difference)}",
                        pair.difference.mean,
                        "mean",
                        pair.difference.interval(),
                    )
                ],
                signed=True,
                everything=whole,
            ),
            _sides(pair.first, pair.second),
        ),
        bars_table("Distribution of the differences", bars, unit),
        f"{numbers.share(outside)} of the rows differ by more than the figure shows."
        if outside > 1e-9  # noqa: PLR2004 - rounding
        else None,
    )


def reach_of(bars: Sequence[Bar], whole: float) -> float:
    """Return the magnitude that 98 of 100 differences do not exceed."""
    by_magnitude = sorted(bars, key=lambda each: max(abs(each.low), abs(each.high)))
    running, reach = 0.0, 0.0
    for each in by_magnitude:
        running += each.weight
        reach = max(abs(each.low), abs(each.high))
        if running >= 0.98 * whole:
            break
    return reach or 1.0


def by_slice(column: str, pairs: Sequence[Pair], most: int) -> Html:
    """Return the differences in each slice of a table, at most `most` for each pair."""
    return section(
        f"Differences by {column}",
        *(
            join(
                element("h3", each.title) if len(pairs) > 1 else None,
                slices(column, each, most),
            )
            for each in pairs
        ),
    )


def slices(column: str, pair: Pair, most: int) -> Html:
    """Return the slices of one table for one pair, the largest difference first."""
    found: list[SliceDifference] = sorted(
        pair.difference.by_slice(column), key=lambda each: _first(each.difference.mean)
    )
    half = most // 2
    shown = found if len(found) <= most else [*found[:half], *found[-half:]]
    whiskers = [_whisker(each.difference, clear=each.p_adjusted < words.CLEAR) for each in shown]
    axis = forest.axis_of(whiskers, 0.0, signed=True)
    label = f"Differences by {column}, {pair.title}, against zero"
    return join(
        table(
            label,
            [
                Column("slice", "text"),
                Column(forest.scale(axis, label), "plot"),
                Column("difference"),
                Column(f"95{numbers.SPACE}% interval", "interval"),
                Column("rows"),
                Column("p (Holm)"),
                Column("", "text verdicts"),
            ],
            [
                _slice(each, whisker, axis, pair)
                for each, whisker in zip(shown, whiskers, strict=True)
            ],
            kind="forest",
        ),
        cut(len(shown), len(found), "slices", "those with the largest differences either way"),
    )


def _first(value: float) -> float:
    """Return by what differences are sorted; NaN last."""
    return math.inf if math.isnan(value) else value


def _slice(
    each: SliceDifference, whisker: forest.Whisker, axis: LinearAxis, pair: Pair
) -> list[Cell]:
    """Return the difference in one slice."""
    difference = each.difference
    low, high = difference.interval()
    clear = each.p_adjusted < words.CLEAR
    verdict = (
        "few rows"
        if difference.small
        else "no difference seen"
        if not clear
        else f"{shorten(pair.first if difference.mean < 0 else pair.second, 24)} better"
    )
    return [
        Cell(name(each.label, 60) if each.label else element("i", "empty")),
        Cell(forest.draw(whisker, axis, 0.0), difference.mean),
        Cell(written(difference), difference.mean),
        Cell(numbers.interval((low, high), " \u2026 "), low),
        Cell(numbers.count(difference.count), difference.count),
        Cell(numbers.p(each.p_adjusted), each.p_adjusted),
        Cell(verdict, None, "verdict" if verdict.endswith("better") else "quiet"),
    ]


def most_different(pairs: Sequence[Pair], *, parted: bool) -> Html | None:
    """Return the rows that differ most; None where none were kept."""
    if not any(each.state.most_different for each in pairs):
        return None
    return section(
        "Rows that differ most",
        *(_most_different(each, len(pairs), parted=parted) for each in pairs),
    )


def _most_different(pair: Pair, of: int, *, parted: bool) -> Html:
    """Return the rows of one pair that differ most."""
    rows = pair.state.most_different[: max(5, 20 // of)]
    i, j = pair.places
    columns = [
        ("difference", [row.values[i] - row.values[j] for row in rows]),
        (pair.first, [row.values[i] for row in rows]),
        (pair.second, [row.values[j] for row in rows]),
    ]
    return join(
        element("h3", pair.title) if of > 1 else None,
        rows_table(f"Rows that differ most, {pair.title}", rows, columns, parted=parted),
        cut(len(rows), len(pair.state.most_different), "rows", "those that differ most"),
    )
