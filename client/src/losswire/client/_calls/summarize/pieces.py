"""Batches cut into the rows of one message each, without those that a summary covers already."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from losswire.client._data.batch import Batch
from losswire.v1 import summary_pb2


@dataclass(frozen=True, slots=True)
class Piece:
    """The rows of one message."""

    batch: Batch
    partition: str
    """The key of the partition that they are in."""
    first_row: int
    """The number of the first of them there."""

    @property
    def end_row(self) -> int:
        """The number of the row behind the last of them."""
        return self.first_row + self.batch.rows

    def cut(self, step: int) -> "Iterator[Piece]":
        """Yield it in pieces of at most `step` rows, which differ by one row at most."""
        rows = self.batch.rows
        count = max(1, -(-rows // max(1, step)))
        for position in range(count):
            start, stop = rows * position // count, rows * (position + 1) // count
            yield self._between(start, stop)

    def _between(self, start: int, stop: int) -> "Piece":
        if (start, stop) == (0, self.batch.rows):
            return self
        return Piece(self.batch.rows_between(start, stop), self.partition, self.first_row + start)

    def without(self, covered: Iterable[tuple[int, int]]) -> "Iterator[Piece]":
        """Yield its rows that are in none of some ranges, which are in ascending order."""
        start = self.first_row
        for begin, end in covered:
            stop = min(begin, self.end_row)
            if start < stop:
                yield self._between(start - self.first_row, stop - self.first_row)
            start = max(start, min(end, self.end_row))
        if start < self.end_row:
            yield self._between(start - self.first_row, self.batch.rows)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cutting:
    """How batches become messages."""

    partition: str
    """The key of the partition of batches that do not name theirs."""
    can_cut: bool
    """Whether the loss allows to cut a batch."""
    piece_bytes: int
    """The size of a message to aim at."""

    def pieces(
        self, batches: Iterable[Batch], covered: Iterable[summary_pb2.IncludedRows]
    ) -> Iterator[Piece]:
        """Yield the rows of each message, in order, without those that are covered.

        Raises ValueError where only a part of a batch is covered that cannot be cut.
        """
        ranges = {each.partition: [(one.begin, one.end) for one in each.ranges] for each in covered}
        next_rows: dict[str, int] = {}
        for batch in batches:
            partition = self.partition if batch.partition is None else batch.partition
            first = next_rows.get(partition, 0) if batch.first_row is None else batch.first_row
            next_rows[partition] = first + batch.rows
            whole = Piece(batch, partition, first)
            for left in whole.without(ranges.get(partition, ())):
                if not self.can_cut and left is not whole:
                    raise ValueError(
                        f"resume_from: covers a part of rows {first} to {whole.end_row - 1} of "
                        f"partition {partition!r}, and this loss does not allow to cut a batch"
                    )
                row_bytes = max(1, batch.nbytes // max(1, batch.rows))
                step = self.piece_bytes // row_bytes if self.can_cut else batch.rows
                yield from left.cut(step)
