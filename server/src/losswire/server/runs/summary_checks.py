"""Checks that a summary is one, and what a list shows of it."""

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np

from losswire.server.runs.checks import MAX_KEY_BYTES, MAX_VALUE_BYTES
from losswire.summaries import MAX_CANDIDATES, MAX_TABLES, MergeError, check_message, statistics
from losswire.v1 import run_service_pb2, summary_pb2
from losswire.wire import Violation

_FIELD: Final = "run.summary"


def check_summary(summary: summary_pb2.LossSummary) -> Iterator[Violation]:
    """Check the form of a summary, and that its counts fit together."""
    # First, because these say which group it is.
    if wrong := list(_check_groups(summary)):
        yield from wrong
        return
    try:
        check_message(summary)
    except MergeError as error:
        yield Violation(_FIELD, str(error))
        return
    if len(summary.loss.encode()) > MAX_VALUE_BYTES or "\0" in summary.loss:
        yield Violation(f"{_FIELD}.loss", "it is not the name of a loss")
    yield from _check_candidates(summary.candidates)
    if len(summary.tables) > MAX_TABLES:
        yield Violation(f"{_FIELD}.tables", f"there are {len(summary.tables)} of {MAX_TABLES}")
        return
    for number, table in enumerate(summary.tables):
        yield from _check_table(summary, table, f"{_FIELD}.tables[{number}]")


def figures_of(summary: summary_pb2.LossSummary) -> list[run_service_pb2.RunFigures]:
    """Return what a list shows of each candidate.

    Raises ValueError or ArithmeticError for moments of which no number follows.
    """
    # Sums that are infinite or NaN are the caller's, and so are the figures that follow.
    with np.errstate(all="ignore"):
        return [
            run_service_pb2.RunFigures(
                candidate=name,
                count=summary.total.distributions[index].count,
                mean=found.mean,
                standard_error=found.standard_error,
            )
            for index, name in enumerate(summary.candidates or [""])
            for found in [statistics.estimate(summary.total, index)]
        ]


def _check_candidates(names: Sequence[str]) -> Iterator[Violation]:
    field = f"{_FIELD}.candidates"
    if len(names) == 1 or len(names) > MAX_CANDIDATES:
        yield Violation(field, f"expected none, or 2 to {MAX_CANDIDATES}, got {len(names)}")
    if len(set(names)) != len(names):
        yield Violation(field, "two have the same name")
    if any(not 1 <= len(name.encode()) <= MAX_KEY_BYTES for name in names):
        yield Violation(field, f"a name has 1 to {MAX_KEY_BYTES} bytes")


def _check_table(
    summary: summary_pb2.LossSummary, table: summary_pb2.SliceTable, field: str
) -> Iterator[Violation]:
    if not table.columns:
        yield Violation(f"{field}.columns", "a table has at least one column")
    groups = [*table.slices, *([table.other] if table.HasField("other") else [])]
    for index, whole in enumerate(summary.total.distributions):
        counted = sum(each.distributions[index].count for each in groups)
        if counted != whole.count:
            yield Violation(
                field, f"its slices have {counted} rows together, and the total has {whole.count}"
            )


def _check_groups(summary: summary_pb2.LossSummary) -> Iterator[Violation]:
    """Check the counts of all groups, whatever the form of the summary."""
    yield from _check_group(summary.total, f"{_FIELD}.total")
    for number, table in enumerate(summary.tables):
        field = f"{_FIELD}.tables[{number}]"
        for place, each in enumerate(table.slices):
            yield from _check_group(each, f"{field}.slices[{place}]")
        if table.HasField("other"):
            yield from _check_group(table.other, f"{field}.other")


def _check_group(group: summary_pb2.GroupSummary, field: str) -> Iterator[Violation]:
    for index, each in enumerate(group.distributions):
        parts = (each.nan_count, each.positive_infinity_count, each.negative_infinity_count)
        if min(each.count, each.ignored_count, *parts) < 0 or sum(parts) > each.count:
            yield Violation(
                f"{field}.distributions[{index}]",
                f"of {each.count} rows {parts[0]} are NaN and {parts[1] + parts[2]} infinite",
            )
