"""Says in sentences what the figures show."""

import math
from collections.abc import Mapping, Sequence
from typing import Final

from losswire.summaries.figures import numbers
from losswire.summaries.figures.subjects import Difference, Figures, Lift, SliceDifference
from losswire.v1.evaluation_pb2 import OptionValue
from losswire.v1.summary_pb2 import LossSummary

CLEAR: Final = 0.05
"""An adjusted p below this is called clear."""

READING: Final = (
    "How to read an interval: if the evaluation were repeated with other rows of the same kind, "
    "about 95 of 100 such intervals would contain the true mean."
)


def shorten(text: str, most: int = 80) -> str:
    """Return a text of at most `most` characters, with an ellipsis where it was cut."""
    return text if len(text) <= most else text[: most - 1] + "\u2026"


def mean_sentence(loss: str, figures: Figures) -> str:
    """Return the sentence that a summary begins with."""
    if not figures.count:
        return f"No row took part in {loss}."
    over = numbers.rows(figures.count)
    if math.isfinite(figures.mean):
        bounds = numbers.interval(figures.interval())
        return f"Mean {loss} {mean(figures)} (95{numbers.SPACE}% interval {bounds}) over {over}."
    reason = " and ".join(_not_finite(figures))
    rest = ""
    if math.isfinite(figures.finite_mean):
        rest = f" The mean of the others is {mean(figures)}."
    written = "NaN" if math.isnan(figures.mean) else "infinite"
    return f"Mean {loss} is {written}: of {over}, {reason}.{rest}"


def mean(figures: Figures) -> str:
    """Return the mean of the finite rows with the digits that its error leaves."""
    low, high = figures.interval()
    error = (high - low) / 2
    if math.isnan(error):
        return numbers.significant(figures.finite_mean, 4)
    return numbers.within(figures.finite_mean, error)


def _not_finite(figures: Figures) -> list[str]:
    """Return how many rows are NaN and infinite, in words."""
    found = [("NaN", figures.nan_count), ("infinite", figures.infinite_count)]
    return [f"{numbers.count(n)} {'is' if n == 1 else 'are'} {what}" for what, n in found if n]


def rows_sentence(figures: Figures) -> str:
    """Return how many rows were ignored or had no finite loss."""
    ignored = (
        f"{numbers.rows(figures.ignored_count)} did not take part: ignored, or of weight 0."
        if figures.ignored_count
        else "Every row took part."
    )
    bad = _not_finite(figures)
    return f"{ignored} {'Of the losses, ' + ' and '.join(bad) if bad else 'All losses are finite'}."


def spread_sentence(figures: Figures) -> str:
    """Return where half of the rows and the last per cent lie."""
    median, last = (numbers.significant(figures.quantile(q)) for q in (0.5, 0.99))
    return f"Half of the rows lose at most {median}, one in a hundred more than {last}."


def lift_verdict(lift: Lift) -> str:
    """Return what is known of one slice."""
    if lift.small:
        return "few rows"
    if math.isnan(lift.p_adjusted):
        return "unknown"
    if lift.p_adjusted >= CLEAR:
        return "no difference seen"
    return "clearly higher" if lift.lift > 0 else "clearly lower"


def slices_sentence(tables: Mapping[str, Sequence[Lift]]) -> str | None:
    """Return which slices stand out, over all tables."""
    clear = [
        (column, each)
        for column, lifts in tables.items()
        for each in lifts
        if lift_verdict(each) == "clearly higher"
    ]
    if not any(tables.values()):
        return None
    if not clear:
        return "No slice has a clearly higher mean than all rows."
    column, worst = max(clear, key=lambda each: each[1].lift)
    base = worst.statistics.finite_mean - worst.lift
    by = numbers.share(worst.lift / base) if base > 0 else numbers.significant(worst.lift, 2)
    more = f", and {numbers.rows(len(clear) - 1, 'other slice')}" if len(clear) > 1 else ""
    where = f"{shorten(column, 40)} = {shorten(worst.label, 40)}"
    return f"Clearly above the mean of all rows: {where}, by {by}{more}."


def clusters_sentence(message: LossSummary) -> str:
    """Return how the standard error was formed."""
    if not message.clustered:
        return "Rows are taken as independent of each other."
    clusters = message.total.clusters
    number = round(clusters.folded.weight) + len(clusters.open)
    within = numbers.rows(number, "cluster")
    return f"Rows may depend on each other within {within}; intervals allow for that."


def option(value: OptionValue) -> str:
    """Return the value of an option as Python writes it."""
    kind = value.WhichOneof("value")
    return repr(getattr(value, kind)) if kind else "unset"


def exceptions_sentence(
    mean: float, slices: Mapping[str, Sequence[SliceDifference]], first: str, second: str
) -> str | None:
    """Return in which slices the other candidate is clearly better; None where in none."""
    found = [
        f"{shorten(column, 40)} = {shorten(each.label, 40)}"
        for column, differences in slices.items()
        for each in differences
        if each.p_adjusted < CLEAR and not each.difference.small and each.difference.mean * mean < 0
    ]
    if not found:
        return None
    more = f" and {numbers.rows(len(found) - 3, 'other slice')}" if len(found) > 3 else ""  # noqa: PLR2004
    better = first if mean > 0 else second
    return f"But {shorten(better, 40)} is clearly better in {', '.join(found[:3])}{more}."


def verdict(difference: Difference, first: str, second: str) -> str:
    """Return the sentence that a comparison begins with."""
    first, second = shorten(first, 40), shorten(second, 40)
    low, high = difference.interval()
    if not difference.count:
        return f"{first} and {second} share no row with a finite loss."
    if math.isnan(low):
        return f"{first} and {second} cannot be compared: how far they differ is not known."
    error = (high - low) / 2
    sure = numbers.probability(difference.p_value)
    few = " There are too few rows for the normal law." if difference.small else ""
    if low <= 0 <= high:
        mean = numbers.within(difference.mean, error)
        return (
            f"No difference seen between {first} and {second}: {mean} "
            f"({numbers.interval((low, high))}), {sure}.{few}"
        )
    better, worse = (first, second) if high < 0 else (second, first)
    least, most = sorted((abs(low), abs(high)))
    return (
        f"{better} is better than {worse}: the loss is lower by "
        f"{numbers.within(abs(difference.mean), error)} ({numbers.interval((least, most))}), "
        f"{sure}.{few}"
    )


def outcome(difference: Difference, first: str, second: str) -> str:
    """Return which of two candidates is better, in a few words."""
    low, high = difference.interval()
    if difference.small:
        return "few rows"
    if high < 0:
        return f"{shorten(first, 30)} better"
    if low > 0:
        return f"{shorten(second, 30)} better"
    return "no difference seen"
