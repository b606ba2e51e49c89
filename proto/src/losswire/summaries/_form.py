"""The form of a summary that came from outside: what the merging of it relies on."""

from collections.abc import Iterable

from losswire.summaries._buckets import MAX_SCALE, MIN_SCALE, bucket_indices
from losswire.summaries._rows import MergeError
from losswire.v1 import summary_pb2

_LIMITS = {
    scale: bucket_indices([5e-324, 1.7976931348623157e308], scale).tolist()
    for scale in range(MIN_SCALE, MAX_SCALE + 1)
}
"""The buckets of the smallest and of the largest float64, by scale."""


def check_message(message: summary_pb2.LossSummary) -> None:
    """Check the form of a summary that came from outside; MergeError says what is wrong."""
    if not message.loss:
        raise MergeError("loss: is empty")
    if not MIN_SCALE <= message.scale <= MAX_SCALE:
        raise MergeError(f"scale: {message.scale} is not in [{MIN_SCALE}, {MAX_SCALE}]")
    _check_included(message.included)
    width = max(len(message.candidates), 1)
    _check_group(message.total, width, ())
    for table in message.tables:
        for group in table.slices:
            _check_group(group, width, table.columns)
        if len({tuple(each.labels) for each in table.slices}) < len(table.slices):
            raise MergeError(f"the table {' x '.join(table.columns)} has a slice twice")
        if table.HasField("other"):
            _check_group(table.other, width, ())


def _check_included(messages: Iterable[summary_pb2.IncludedRows]) -> None:
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
        if each.partition in seen:
            raise MergeError(f"included: has the partition {each.partition!r} twice")
        seen.add(each.partition)


def _check_group(group: summary_pb2.GroupSummary, width: int, columns: Iterable[str]) -> None:
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


def _check_sketch(sketch: summary_pb2.LossSketch) -> None:
    if not MIN_SCALE <= sketch.scale <= MAX_SCALE:
        raise MergeError(f"a sketch has the scale {sketch.scale}")
    for indices, weights in (
        (sketch.positive_indices, sketch.positive_weights),
        (sketch.negative_indices, sketch.negative_weights),
    ):
        if len(indices) != len(weights):
            raise MergeError("a sketch has as many weights as indices, or is malformed")
        if not indices:
            continue
        ascending = all(map(int.__lt__, indices[:-1], indices[1:]))
        if not ascending:
            raise MergeError("the buckets of a sketch are not in ascending order")
        lowest, highest = _LIMITS[sketch.scale]
        if indices[0] < lowest or indices[-1] > highest:
            raise MergeError("a sketch has a bucket beyond those of float64")
