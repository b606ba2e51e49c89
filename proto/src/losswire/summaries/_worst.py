"""The rows with the largest scores, in one order whatever order they come in."""

import heapq
import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from losswire.summaries._rows import Column
from losswire.v1 import summary_pb2

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Score = Callable[[summary_pb2.RowLoss], float]
"""Returns what a row is ordered by."""


class WorstRows:
    """At most `limit` rows with the largest scores; NaN is larger than anything."""

    def __init__(self, limit: int, score: Score) -> None:
        """Start without rows."""
        self._limit = limit
        self._score = score
        self._rows: list[summary_pb2.RowLoss] = []
        self._threshold = -math.inf
        """The smallest score that may still enter."""
        self._nbytes: int | None = 0

    @property
    def nbytes(self) -> int:
        """The memory of the rows, in bytes, about."""
        if self._nbytes is None:
            self._nbytes = sum(row_bytes(each.ByteSize()) for each in self._rows)
        return self._nbytes

    def bytes_with(self, rows: int, size: int) -> int:
        """Return the memory with some rows more, whose messages have at most `size` bytes."""
        return self.nbytes + min(rows, self._limit) * row_bytes(size)

    def add(
        self,
        scores: Floats,
        ids: Column | None,
        make: Callable[[int], summary_pb2.RowLoss],
        counted: npt.NDArray[np.bool_] | None,
    ) -> None:
        """Add rows by their scores, of shape (N); `make` makes the message of one of them.

        `ids` are their ids (None: their order); `counted` are those that take part.
        """
        if not self._limit:
            return
        # NaN compares as false, so that these are never dropped here.
        chosen = ~(scores < self._threshold)
        if counted is not None:
            chosen &= counted
        at = np.flatnonzero(chosen)
        if len(at) > self._limit:
            at = self._largest(scores, ids, at)
        if len(at):
            self.merge([make(int(each)) for each in at])

    def _largest(self, scores: Floats, ids: Column | None, at: Integers) -> Integers:
        """Return those that can be among the largest."""
        ours = np.where(np.isnan(scores[at]), np.inf, scores[at])
        smallest = np.partition(ours, len(ours) - self._limit)[len(ours) - self._limit]
        above, equal = at[ours > smallest], at[ours == smallest]
        if smallest == np.inf:
            nan = np.isnan(scores[equal])
            above, equal = equal[nan], equal[~nan]
            if len(above) > self._limit:
                above, equal = above[:0], above
        missing = self._limit - len(above)
        if len(equal) > missing:
            equal = _first_by_id(equal, ids, missing)
        return np.concatenate([above, equal])

    def merge(self, rows: Iterable[summary_pb2.RowLoss]) -> None:
        """Add rows of another summary."""
        both = [*self._rows, *rows]
        self._nbytes = None
        self._rows = heapq.nsmallest(self._limit, both, key=self._order)
        if self._limit and len(self._rows) == self._limit:
            score = self._score(self._rows[-1])
            self._threshold = math.inf if math.isnan(score) else score

    def _order(self, row: summary_pb2.RowLoss) -> tuple[Any, ...]:
        score = self._score(row)
        is_nan = math.isnan(score)
        key = (1, 0, row.name) if row.WhichOneof("id") == "name" else (0, row.number, "")
        return (not is_nan, 0.0 if is_nan else -score, *key, row.partition, row.row)

    @property
    def rows(self) -> list[summary_pb2.RowLoss]:
        """The rows, the one with the largest score first."""
        return self._rows


def row_bytes(size: int) -> int:
    """Return the memory of a row whose message has some bytes; about, texts are small objects."""
    return 500 + 2 * size


def _first_by_id(at: Integers, ids: Column | None, count: int) -> Integers:
    """Return the rows with the smallest ids, of rows that are equal otherwise."""
    if ids is None:
        return at[:count]
    if ids.labels is None:
        return at[np.argsort(ids.codes[at], kind="stable")[:count]]
    labels, codes = ids.labels, ids.codes
    rows: list[int] = at.tolist()
    found = heapq.nsmallest(count, rows, key=lambda each: (labels[int(codes[each])], each))
    return np.array(found, np.int64)
