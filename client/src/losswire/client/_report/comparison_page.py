"""The page of a comparison: the verdict first, then the differences, then each candidate."""

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from typing import Final, Protocol

from losswire.client._report import differences, forest
from losswire.client._report.differences import Pair
from losswire.client._report.markup import Html, element, join
from losswire.client._report.origin import origin
from losswire.client._report.parts import (
    Cell,
    Column,
    facts,
    fold,
    name,
    paragraph,
    rows_of_each,
    section,
    table,
)
from losswire.client._report.rows import rows_table
from losswire.summaries import statistics
from losswire.summaries.figures import numbers, words
from losswire.summaries.figures.subjects import Difference, Figures
from losswire.summaries.figures.words import shorten
from losswire.v1.summary_pb2 import LossSummary, PairSummary

CROSS: Final = "\u00d7"
"""What joins the columns of a table."""

_FEW_ROWS: Final = 10
"""Of the worst rows of each candidate, which are shown folded."""

_LINES: Final[Sequence[tuple[str, Callable[[Figures], float], Callable[[float], str]]]] = (
    ("smallest", lambda each: each.quantile(0), numbers.significant),
    ("median", lambda each: each.quantile(0.5), numbers.significant),
    ("p90", lambda each: each.quantile(0.9), numbers.significant),
    ("p99", lambda each: each.quantile(0.99), numbers.significant),
    ("largest", lambda each: each.quantile(1), numbers.significant),
    ("standard deviation of rows", lambda each: each.std, numbers.significant),
    ("rows", lambda each: each.count, numbers.count),
    ("NaN", lambda each: each.nan_count, numbers.count),
    ("infinite", lambda each: each.infinite_count, numbers.count),
)
"""The numbers of each candidate: what they are called, how they are read and written."""


class ComparisonLike(Protocol):
    """What the page of a comparison reads."""

    @property
    def message(self) -> LossSummary:
        """The whole state."""
        ...

    @property
    def accuracy(self) -> float:
        """The relative accuracy of quantiles."""
        ...

    @property
    def candidates(self) -> Sequence[str]:
        """The names."""
        ...

    def __getitem__(self, candidate: str) -> Figures:
        """Return the numbers of one."""
        ...

    def difference(self, first: str, second: str) -> Difference:
        """Return the first minus the second."""
        ...


def comparison_body(comparison: ComparisonLike) -> Html:
    """Return the body of the page of a comparison."""
    message = comparison.message
    pairs = detailed_pairs(comparison)
    most = rows_of_each(len(pairs) * len(message.tables))
    return element(
        "main",
        _head(comparison, pairs),
        _matrix(comparison) if len(comparison.candidates) > 2 else None,  # noqa: PLR2004
        differences.overall(pairs, message.loss),
        *(
            differences.by_slice("\u00d7".join(each.columns), pairs, most)
            for each in message.tables
        ),
        differences.most_different(pairs, parted=len(message.included) > 1),
        _side_by_side(comparison),
        origin(message, comparison.accuracy),
    )


def detailed_pairs(comparison: ComparisonLike) -> list[Pair]:
    """Return the pairs that are shown in detail: of more than two, the best with each other one."""
    candidates = list(comparison.candidates)
    best = _best(comparison)
    chosen = (
        [(candidates[0], candidates[1])]
        if len(candidates) == 2  # noqa: PLR2004
        else [(best, each) for each in candidates if each != best]
    )
    return [
        Pair(
            first,
            second,
            comparison.difference(first, second),
            _state(comparison.message, candidates.index(first), candidates.index(second)),
            (candidates.index(first), candidates.index(second)),
        )
        for first, second in chosen
    ]


def _state(message: LossSummary, first: int, second: int) -> PairSummary:
    """Return what is kept of a pair, in this order."""
    order = list(combinations(range(len(message.candidates)), 2))
    kept = message.total.pairs[order.index((min(first, second), max(first, second)))]
    if first < second:
        return kept
    turned = PairSummary(wins=kept.losses, ties=kept.ties, losses=kept.wins)
    turned.sketch.CopyFrom(statistics.negated(kept.sketch))
    turned.most_different.extend(kept.most_different)
    return turned


def _best(comparison: ComparisonLike) -> str:
    """Return the candidate with the lowest mean; one whose mean is NaN is never the best."""

    def key(candidate: str) -> tuple[bool, float]:
        mean = comparison[candidate].mean
        return mean != mean, mean  # noqa: PLR0124 - NaN is not equal to itself

    return min(comparison.candidates, key=key)


def _head(comparison: ComparisonLike, pairs: Sequence[Pair]) -> Html:
    """Return the verdict and the facts of the data set."""
    message = comparison.message
    only = pairs[0]
    first = (
        join(only.verdict)
        if len(pairs) == 1
        else join(name(only.first), f" has the lowest mean {message.loss}.")
    )
    others = (
        [
            element(
                "ul",
                *(
                    element("li", " ".join(filter(None, (each.verdict, exceptions(message, each)))))
                    for each in pairs
                ),
            )
        ]
        if len(pairs) > 1
        else []
    )
    other = exceptions(message, only) if len(pairs) == 1 else None
    return element(
        "header",
        element("p", f"Losswire comparison \u00b7 {message.loss}", class_="kicker"),
        element("h1", first),
        *others,
        element("p", other, class_="lead") if other else None,
        differences.hero(only) if len(pairs) == 1 else None,
        facts(_facts(comparison)),
        paragraph(
            words.READING,
            f" {words.clusters_sentence(message)} Candidates are compared row by row (paired), so "
            "that what makes a row hard for both does not widen the interval.",
        ),
    )


def exceptions(message: LossSummary, pair: Pair) -> str | None:
    """Return in which slices the verdict is the other way round."""
    single = [each.columns[0] for each in message.tables if len(each.columns) == 1]
    if differences.kind(pair.difference) == "tie":
        return None
    return words.exceptions_sentence(
        pair.difference.mean,
        {each: pair.difference.by_slice(each) for each in single},
        pair.first,
        pair.second,
    )


def _facts(comparison: ComparisonLike) -> list[tuple[str, str | Html]]:
    """Return the facts of the data set."""
    message = comparison.message
    rows = [comparison[each] for each in comparison.candidates]
    both = round(message.total.joint.weight)
    ignored = max(each.ignored_count for each in rows)
    odd = max(each.nan_count + each.infinite_count for each in rows)
    options = ", ".join(
        f"{key} = {words.option(value)}" for key, value in sorted(message.options.items())
    )
    return [
        ("rows", numbers.count(max(each.count for each in rows))),
        ("compared", numbers.count(both)),
        ("ignored", numbers.count(ignored) if ignored else "none"),
        ("NaN or infinite", numbers.count(odd) if odd else "none"),
        ("options", name(options, 200) if options else "defaults"),
    ]


def _matrix(comparison: ComparisonLike) -> Html:
    """Return every pair as a table: row minus column."""
    names = list(comparison.candidates)
    return section(
        "Every pair",
        table(
            "Mean loss of the row minus that of the column, with the interval",
            [Column("row \u2212 column", "text"), *(Column(name(each, 30)) for each in names)],
            [
                [
                    Cell(name(row, 30)),
                    *(
                        Cell("\u2013")
                        if row == column
                        else _matrix_cell(comparison.difference(row, column))
                        for column in names
                    ),
                ]
                for row in names
            ],
            kind="matrix",
        ),
        paragraph("Below zero the row is better. p is that of each pair alone."),
    )


def _matrix_cell(difference: Difference) -> Cell:
    """Return the difference of one pair with its interval and p-value."""
    return Cell(
        join(
            element("strong", differences.written(difference)),
            element("br"),
            element("small", numbers.interval(difference.interval(), " \u2026 ")),
            element("br"),
            element("small", numbers.probability(difference.p_value)),
        ),
        difference.mean,
        differences.kind(difference),
    )


def _side_by_side(comparison: ComparisonLike) -> Html:
    """Return the numbers of each candidate."""
    message = comparison.message
    figures = {each: comparison[each] for each in comparison.candidates}
    return section(
        "Each candidate",
        means(figures, message.loss),
        _numbers(figures, comparison.accuracy),
        *(_worst(message, k, each) for k, each in enumerate(figures)),
    )


def means(figures: Mapping[str, Figures], loss: str) -> Html:
    """Return the means with their intervals on one axis."""
    whiskers = [
        forest.whisker(each.finite_mean, each.interval(), small=each.small)
        for each in figures.values()
    ]
    lowest = min(figures.values(), key=lambda each: each.finite_mean).finite_mean
    axis = forest.axis_of(whiskers, lowest)
    return table(
        "Means",
        [
            Column("candidate", "text"),
            Column(forest.scale(axis, f"Mean {loss} of each candidate"), "plot"),
            Column("mean"),
            Column(f"95{numbers.SPACE}% interval", "interval"),
        ],
        [
            [
                Cell(name(each, 60)),
                Cell(forest.draw(whisker, axis, lowest), one.finite_mean),
                Cell(words.mean(one), one.finite_mean),
                Cell(numbers.interval(one.interval(), " \u2026 "), one.interval()[0]),
            ]
            for (each, one), whisker in zip(figures.items(), whiskers, strict=True)
        ],
        kind="forest",
    )


def _numbers(figures: Mapping[str, Figures], accuracy: float) -> Html:
    """Return the other numbers, a column for each candidate."""
    return join(
        table(
            "Numbers of each candidate",
            [Column("", "text"), *(Column(name(each, 40)) for each in figures)],
            [
                [Cell(title), *(Cell(write(read(one)), read(one)) for one in figures.values())]
                for title, read, write in _LINES
            ],
        ),
        paragraph(f"Quantiles are within {numbers.share(accuracy)} of the value."),
    )


def _worst(message: LossSummary, k: int, candidate: str) -> Html | None:
    """Return the worst rows of one candidate, folded."""
    rows = message.total.distributions[k].worst[:_FEW_ROWS]
    if not rows:
        return None
    title = f"Worst rows of {shorten(candidate, 60)}"
    columns = [(each, [row.values[i] for row in rows]) for i, each in enumerate(message.candidates)]
    return fold(title, rows_table(title, rows, columns, parted=len(message.included) > 1))
