"""States as bytes: where their rows begin, merging, and files that keep them."""

import hashlib
import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from google.protobuf.message import DecodeError

from losswire import summaries
from losswire.client._data.partitions import Partition
from losswire.client._distributed.plan import Plan
from losswire.client._distributed.tree import FAN_IN, MergeTree
from losswire.v1 import summary_pb2

Position = tuple[str, int]
"""A partition's key, and the number of the first row in it: the order of parts."""


def parse(state: bytes) -> summary_pb2.LossSummary:
    """Read a state; ValueError for bytes that are something else."""
    try:
        message = summary_pb2.LossSummary.FromString(state)
    except DecodeError:
        raise ValueError("these bytes are no summary") from None
    summaries.check_message(message)
    return message


def position_of(message: summary_pb2.LossSummary) -> Position:
    """Return where the rows of a state begin; those of none come first."""
    begins = ((each.partition, each.ranges[0].begin) for each in message.included if each.ranges)
    return min(begins, default=("", -1))


def rows_in(message: summary_pb2.LossSummary) -> int:
    """Return how many rows a state covers."""
    return sum(rows.end - rows.begin for each in message.included for rows in each.ranges)


def merge_in_order(states: Sequence[bytes]) -> bytes:
    """Merge a few states one after the other; ValueError where they do not fit together."""
    merged = summaries.merge([parse(each) for each in states])
    return merged.SerializeToString(deterministic=True)


def merge(states: Iterable[bytes], *, fan_in: int = FAN_IN) -> bytes:
    """Return the state of all rows of some states, which must be of different rows.

    States are bytes as `to_bytes` and `summarize_partition` return them, of one loss with the same
    arguments. Whatever their order, the result has the same bits: they are merged in the order of
    their partitions' keys, in groups of `fan_in` neighbours, at least 2, and the results again. It
    has the bits of `losswire.client.ray` and `spark` with the same partitions and `fan_in`.

    Raises ValueError for other bytes, for states that do not fit together, for rows that would be
    counted twice, which it names, and where there are none.

    Example:
        >>> batch = {"input": [1.0, 3.0], "target": [0.0, 0.0]}
        >>> parts = [client.summarize("mse_loss", batch, partition=key) for key in ("a", "b")]
        >>> merged = Summary.from_bytes(merge(each.to_bytes() for each in parts))
        >>> merged.count, sorted(merged.included)
        (4, ['a', 'b'])
    """
    ordered = sorted(states, key=lambda each: position_of(parse(each)))
    tree = MergeTree(len(ordered), fan_in, merge_in_order)
    for part, state in enumerate(ordered):
        tree.settle(part, state)
    if tree.root is None:
        raise ValueError("there is no state to merge")
    return tree.root


class StateFolder:
    """A folder that keeps the state of each partition, by plan: what was done is not done again."""

    def __init__(self, folder: str | os.PathLike[str], plan: Plan) -> None:
        """Use a folder, which is created."""
        self._folder = Path(folder).absolute() / plan.digest()
        self._folder.mkdir(parents=True, exist_ok=True)

    def _path(self, partition: Partition) -> Path:
        facts = f"{partition.key}\0{partition.first_row}\0{partition.rows}"
        return self._folder / f"{hashlib.sha256(facts.encode()).hexdigest()[:32]}.state"

    def load(self, partition: Partition) -> bytes | None:
        """Return the state of a partition; None when it is not there or not complete."""
        with suppress(FileNotFoundError, ValueError):
            state = self._path(partition).read_bytes()
            parse(state)
            return state
        return None

    def save(self, partition: Partition, state: bytes) -> None:
        """Keep the state of a partition: the whole of it or nothing."""
        handle, name = tempfile.mkstemp(dir=self._folder, suffix=".part")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(state)
                file.flush()
                os.fsync(file.fileno())
            Path(name).replace(self._path(partition))
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise


def included_ranges(message: summary_pb2.LossSummary) -> Iterator[tuple[str, int, int]]:
    """Yield the ranges of rows that a state covers: key, first row, row after the last."""
    for each in message.included:
        for rows in each.ranges:
            yield each.partition, rows.begin, rows.end
