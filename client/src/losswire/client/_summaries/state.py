"""What summaries and comparisons have in common: the message, its bytes, merging."""

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from google.protobuf.message import DecodeError

from losswire import summaries
from losswire.client._messages.response import Receipt, read_receipt
from losswire.summaries.figures.documents import included_rows, row_total
from losswire.v1 import summary_pb2
from losswire.wire import OptionScalar, decode_option


class State:
    """A mergeable state: what was computed of which rows."""

    _is_comparison = False

    def __init__(self, message: summary_pb2.LossSummary) -> None:
        """Wrap a message; ValueError when it is malformed or of another kind."""
        summaries.check_message(message)
        if bool(message.candidates) != self._is_comparison:
            kind, other = (
                ("Comparison", "Summary") if message.candidates else ("Summary", "Comparison")
            )
            raise ValueError(f"this is the state of a {kind}, not of a {other}")
        self._message = message
        self.header: summary_pb2.SummaryHeader | None = None
        """What was asked for, without the elements of tensors; None where that is not known: of a
        state that was read or merged. A run keeps it."""

    @property
    def message(self) -> summary_pb2.LossSummary:
        """The protobuf message with everything. Do not change it."""
        return self._message

    @property
    def loss(self) -> str:
        """The name of the loss."""
        return self._message.loss

    @cached_property
    def options(self) -> Mapping[str, OptionScalar | None]:
        """The options that were given, by name."""
        return {name: decode_option(each) for name, each in self._message.options.items()}

    @property
    def accuracy(self) -> float:
        """The largest relative error of quantiles and of the buckets of histograms."""
        return summaries.accuracy_of(self._message.scale)

    @cached_property
    def included(self) -> Mapping[str, Sequence[tuple[int, int]]]:
        """Which rows are counted: (begin, end) ranges of row numbers, by partition."""
        return included_rows(self._message)

    @property
    def rows(self) -> int:
        """How many rows it covers, whether they take part or not."""
        return row_total(self._message)

    @cached_property
    def receipts(self) -> Sequence[Receipt]:
        """How and by what it was computed, each way once."""
        return [read_receipt(each) for each in self._message.receipts]

    def to_bytes(self) -> bytes:
        """Return it as bytes, for a file or another machine; equal states give equal bytes.

        Example:
            >>> batch = {"input": [1.0, 3.0], "target": [0.0, 0.0]}
            >>> saved = client.summarize("mse_loss", [batch]).to_bytes()
            >>> Summary.from_bytes(saved).mean
            5.0
        """
        return self._message.SerializeToString(deterministic=True)

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Return the state of which `to_bytes` made some bytes.

        ValueError for bytes that are something else.

        Example:
            >>> batch = {"input": [1.0, 3.0], "target": [0.0, 0.0]}
            >>> summary = client.summarize("mse_loss", [batch])
            >>> Summary.from_bytes(summary.to_bytes()) == summary
            True
        """
        try:
            message = summary_pb2.LossSummary.FromString(bytes(data))
        except DecodeError:
            raise ValueError("these bytes are no summary") from None
        try:
            summaries.check_message(message)
        except summaries.MergeError as error:
            raise ValueError(f"these bytes are no summary: {error}") from None
        return cls(message)

    @classmethod
    def merge(cls, states: Iterable[Self]) -> Self:
        """Return the state of all rows of some states, which must be of different rows.

        In any order: counts, buckets, extremes and rows are the same, sums differ in their last
        bits. ValueError where they are of different losses, options, candidates, slices or
        accuracy, where rows would be counted twice, which it names, and where there are none.

        Example:
            >>> batches = [{"input": [1.0], "target": [0.0]}, {"input": [3.0], "target": [0.0]}]
            >>> parts = [client.summarize("mse_loss", [each]) for each in batches]
            >>> Summary.merge(parts).mean
            5.0
        """
        states = list(states)
        for each in states:
            if not isinstance(each, cls):
                raise TypeError(f"merge: expected a {cls.__name__}, got {type(each).__name__}")
        return cls(summaries.merge([each.message for each in states]))

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the message alone: what was made of it is made again."""
        return type(self).from_bytes, (self.to_bytes(),)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, State):
            return NotImplemented
        return self._message == other.message

    __hash__ = None  # type: ignore[assignment]


def write_page(page: str, path: str | Path) -> Path:
    """Write a page of HTML to a file; returns its path."""
    path = Path(path)
    path.write_text(page, encoding="utf-8")
    return path
