"""The memory that the state of a summary takes, before it is read from its message."""

from collections.abc import Sequence

from losswire.summaries._distribution import GROUP_BYTES
from losswire.summaries._sketch import bytes_of_sketches
from losswire.summaries._worst import row_bytes
from losswire.v1 import summary_pb2


def bytes_of(message: summary_pb2.LossSummary) -> int:
    """Return the bytes of the state of a summary whose form was checked, at most."""
    found = [_bytes_of_table([message.total], message.scale)]
    for table in message.tables:
        other = [table.other] if table.HasField("other") else []
        found.append(_bytes_of_table([*table.slices, *other], message.scale))
    kept = [each.worst for each in message.total.distributions]
    kept += [each.most_different for each in message.total.pairs]
    found += [row_bytes(row.ByteSize()) for rows in kept for row in rows]
    found += [400 + 4 * each.ByteSize() + 150 * len(each.ranges) for each in message.included]
    return sum(found)


def _bytes_of_table(groups: Sequence[summary_pb2.GroupSummary], scale: int) -> int:
    if not groups:
        return 0
    width, pairs = len(groups[0].distributions), len(groups[0].pairs)
    # Joint moments and those of clusters, of 2 numbers for each candidate.
    moments = 2 * 8 * (1 + 2 * width + width * (2 * width + 1))
    total = len(groups) * (300 + width * GROUP_BYTES + pairs * 24 + moments)
    for each in range(width):
        total += bytes_of_sketches([group.distributions[each].sketch for group in groups], scale)
    for each in range(pairs):
        total += bytes_of_sketches([group.pairs[each].sketch for group in groups], scale)
    for group in groups:
        total += sum(80 + 4 * len(each) for each in group.labels)
        total += sum(500 + 16 * width + 4 * len(each.name) for each in group.clusters.open)
    return total
