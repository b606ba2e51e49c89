"""Which rows a summary covers: ranges of row numbers, by partition."""

from collections.abc import Iterable
from typing import Final

from losswire.summaries._rows import MergeError
from losswire.v1 import summary_pb2

MAX_ROW: Final = (1 << 63) - 1
"""The most rows, and the largest number of the row after the last one."""


class Included:
    """Ranges of rows by partition, which never overlap."""

    def __init__(self) -> None:
        """Start without rows."""
        self.rows = 0
        """How many rows they are."""
        self._ranges: dict[str, list[tuple[int, int]]] = {}

    @property
    def nbytes(self) -> int:
        """The memory of the ranges, in bytes, about."""
        return sum(200 + 2 * len(key) + 150 * len(each) for key, each in self._ranges.items())

    def check(self, partition: str, begin: int, end: int) -> None:
        """Raise MergeError where some of these rows are covered already, or are too many."""
        if max(end, self.rows + end - begin) > MAX_ROW:
            raise MergeError(f"rows up to {end - 1}: their numbers do not fit into int64")
        for first, last in self._ranges.get(partition, []):
            if begin < last and first < end:
                common = (max(begin, first), min(end, last))
                name = f"partition {partition!r}" if partition else "the partition without a key"
                raise MergeError(
                    f"rows {common[0]} to {common[1] - 1} of {name} would be counted twice"
                )

    def add(self, partition: str, begin: int, end: int) -> None:
        """Add rows that are not covered."""
        if begin == end:
            return
        self.rows += end - begin
        ranges = self._ranges.setdefault(partition, [])
        if ranges and ranges[-1][1] == begin:
            ranges[-1] = (ranges[-1][0], end)
            return
        ranges.append((begin, end))
        ranges.sort()
        joined = [ranges[0]]
        for each in ranges[1:]:
            if joined[-1][1] == each[0]:
                joined[-1] = (joined[-1][0], each[1])
            else:
                joined.append(each)
        self._ranges[partition] = joined

    def check_all(self, messages: Iterable[summary_pb2.IncludedRows]) -> None:
        """Raise MergeError where rows of these messages are covered already."""
        for each in messages:
            for span in each.ranges:
                self.check(each.partition, span.begin, span.end)

    def add_all(self, messages: Iterable[summary_pb2.IncludedRows]) -> None:
        """Add the rows of these messages."""
        for each in messages:
            for span in each.ranges:
                self.add(each.partition, span.begin, span.end)

    def messages(self) -> list[summary_pb2.IncludedRows]:
        """Return the messages, in the order of the keys."""
        return [
            summary_pb2.IncludedRows(
                partition=key,
                ranges=[
                    summary_pb2.RowRange(begin=begin, end=end) for begin, end in self._ranges[key]
                ],
            )
            for key in sorted(self._ranges)
        ]
