"""The form of a summary that came from outside: what the merging of it relies on."""

from collections.abc import Iterable
from functools import cache

from losswire.summaries._buckets import MAX_SCALE, MIN_SCALE, bucket_indices
from losswire.summaries._included import MAX_ROW
from losswire.summaries._rows import MergeError
from losswire.v1 import summary_pb2


def check_message(message: summary_pb2.LossSummary) -> None:
    """Check the form of a summary that came from outside; MergeError says what is wrong."""
    if not message.loss:
        raise MergeError("loss: is empty")
    if not MIN_SCALE <= message.scale <= MAX_SCALE:
        raise MergeError(f"scale: {message.scale} is not in [{MIN_SCALE}, {MAX_SCALE}]")
    rows = _check_included(message.included)
    width = max(len(message.candidates), 1)
    _check_group(message.total, width, (), rows)
    for table in message.tables:
        for group in table.slices:
            _check_group(group, width, table.columns, rows)
        if len({tuple(each.labels) for each in table.slices}) < len(table.slices):
            raise MergeError(f"the table {' x '.join(table.columns)} has a slice twice")
        if table.HasField("other"):
            _check_group(table.other, width, (), rows)


def _check_included(messages: Iterable[summary_pb2.IncludedRows]) -> int:
    """Check the rows that a summary covers; returns their number."""
    rows = 0
    seen: set[str] = set()
    for each in messages:
        before = -1
        for span in each.ranges:
            if not before < span.begin < span.end:
                raise MergeError(
                    f"included: the rows {span.begin} to {span.end - 1} of partition "
                    f"{each.partition!r} are not a range above those before"
                )
            before = span.end
            rows += span.end - span.begin
        if each.partition in seen:
            raise MergeError(f"included: has the partition {each.partition!r} twice")
        seen.add(each.partition)
    if rows > MAX_ROW:
        raise MergeError(f"included: {rows} rows are more than int64 counts")
    return rows


def _check_group(
    group: summary_pb2.GroupSummary, width: int, columns: Iterable[str], rows: int
) -> None:
    columns = list(columns)
    if len(group.labels) != len(columns):
        raise MergeError(f"a slice has the labels {list(group.labels)} for the columns {columns}")
    pairs = width * (width - 1) // 2
    if len(group.distributions) != width or len(group.pairs) != pairs:
        raise MergeError(f"a group has other candidates than the {width} of the summary")
    moments = [(each.terms, 2) for each in group.distributions]
    moments += [(each.values, 1) for each in group.distributions]
    moments += [(group.joint, 2 * width), (group.clusters.folded, 2 * width)]
    for each, dimension in moments:
        lengths = (len(each.means), len(each.products))
        if lengths not in ((0, 0), (dimension, dimension * (dimension + 1) // 2)):
            raise MergeError(f"moments of {dimension} numbers have the lengths {lengths}")
    sketches = [each.sketch for each in group.distributions]
    for sketch in (*sketches, *(each.sketch for each in group.pairs)):
        _check_sketch(sketch)
    if any(len(each.sums) != 2 * width for each in group.clusters.open):
        raise MergeError("an open cluster has other candidates than the summary")
    if not all(each.weight >= 0 for each, _ in moments):
        raise MergeError("the weight of moments is negative or NaN")
    _check_rows(group, width, rows)


def _check_rows(group: summary_pb2.GroupSummary, width: int, rows: int) -> None:
    """Check the rows that are counted, and those that are kept."""
    kept = [row for each in group.distributions for row in each.worst]
    kept += [row for each in group.pairs for row in each.most_different]
    if any(len(each.values) != width for each in kept):
        raise MergeError("one of the worst rows has other candidates than the summary")
    for each in group.distributions:
        _check_counts(each, rows)
    for pair in group.pairs:
        outcomes = (pair.wins, pair.ties, pair.losses)
        if min(outcomes) < 0 or sum(outcomes) > rows:
            raise MergeError(f"a pair has {outcomes} rows of the {rows} that are included")


def _check_counts(found: summary_pb2.LossDistribution, rows: int) -> None:
    """Check that no count or weight is negative, and that no more rows are counted than there are.

    Sums may be anything: those of losses beyond float64 are infinite or NaN.
    """
    special = (found.nan_count, found.positive_infinity_count, found.negative_infinity_count)
    counts = (found.count, found.ignored_count, *special)
    if min(counts) < 0 or sum(special) > found.count or found.count + found.ignored_count > rows:
        raise MergeError(f"a group has the counts {counts} for the {rows} rows that are included")
    if not (found.weight_sum >= 0 and found.weight_square_sum >= 0):
        raise MergeError("a sum of weights is negative or NaN")


def _check_sketch(sketch: summary_pb2.LossSketch) -> None:
    if not MIN_SCALE <= sketch.scale <= MAX_SCALE:
        raise MergeError(f"a sketch has the scale {sketch.scale}")
    if not sketch.zero_weight >= 0:
        raise MergeError("a weight of a sketch is negative or NaN")
    for indices, weights in (
        (sketch.positive_indices, sketch.positive_weights),
        (sketch.negative_indices, sketch.negative_weights),
    ):
        if len(indices) != len(weights):
            raise MergeError("a sketch has as many weights as indices, or is malformed")
        if not indices:
            continue
        if not all(each >= 0 for each in weights):
            raise MergeError("a weight of a sketch is negative or NaN")
        ascending = all(map(int.__lt__, indices[:-1], indices[1:]))
        if not ascending:
            raise MergeError("the buckets of a sketch are not in ascending order")
        lowest, highest = _limits(sketch.scale)
        if indices[0] < lowest or indices[-1] > highest:
            raise MergeError("a sketch has a bucket beyond those of float64")


@cache
def _limits(scale: int) -> tuple[int, int]:
    """The buckets of the smallest and of the largest float64 at a scale."""
    lowest, highest = bucket_indices([5e-324, 1.7976931348623157e308], scale).tolist()
    return lowest, highest
