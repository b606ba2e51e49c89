"""Runs the parts of a job on an engine, a bounded number at once, and merges them in order."""

from collections import deque
from collections.abc import Sequence
from typing import Any, Protocol

from losswire.client._data.partitions import Partition
from losswire.client._distributed.job import Job
from losswire.client._distributed.progress import ProgressReport
from losswire.client._distributed.tree import MergeTree
from losswire.client._summaries.comparison import Comparison
from losswire.client._summaries.summary import Summary


class PartLostError(Exception):
    """The processes that had a partition were lost, more often than is allowed."""


class Engine(Protocol):
    """Where parts are evaluated. Handles are its own; those of states may be merged at once."""

    def start(self, partition: Partition) -> tuple[Any, Any]:
        """Begin to evaluate a partition; returns the handles of its state and of its end."""

    def put(self, state: bytes) -> Any:
        """Return the handle of a state that is there."""

    def wait(self, ends: Sequence[Any]) -> Sequence[Any]:
        """Wait until something has ended; returns the handles of what has."""

    def rows(self, end: Any) -> int:
        """Return how many rows a part that has ended has.

        Raises PartLostError when its processes were lost, and the errors of the evaluation.
        """

    def merge(self, states: Sequence[Any]) -> Any:
        """Begin to merge states in order; returns the handle of the result."""

    def result(self, state: Any) -> bytes:
        """Wait for a state."""

    def cancel(self, ends: Sequence[Any]) -> None:
        """Stop what is under way."""


def drive(
    engine: Engine, job: Job, *, fan_in: int, max_in_flight: int, report: ProgressReport
) -> Summary | Comparison:
    """Evaluate all parts of a job; raises the first error of an evaluation, or IncompleteError."""
    if max_in_flight < 1:
        raise ValueError(f"max_in_flight: expected an integer of at least 1, got {max_in_flight}")
    tree: MergeTree[Any] = MergeTree(len(job.parts), fan_in, engine.merge)
    left = deque[int]()
    for index, part in enumerate(job.parts):
        if part.state is None:
            left.append(index)
        else:
            tree.settle(index, engine.put(part.state))
    running: dict[Any, tuple[int, Any]] = {}
    without_rows: list[Partition] = []
    try:
        while left or running:
            while left and len(running) < max_in_flight:
                index = left.popleft()
                state, end = engine.start(_partition(job, index))
                running[end] = index, state
            for end in engine.wait(list(running)):
                index, state = running.pop(end)
                try:
                    rows = engine.rows(end)
                except PartLostError:
                    tree.settle(index, None)
                    continue
                if not rows:
                    without_rows.append(_partition(job, index))
                tree.settle(index, state)
                report.add(rows)
        merged = None if tree.root is None else engine.result(tree.root)
    except BaseException:
        engine.cancel(list(running))
        raise
    finally:
        report.end()
    return job.result(merged, without_rows)


def _partition(job: Job, index: int) -> Partition:
    partition = job.parts[index].partition
    if partition is None:
        raise ValueError(f"part {index} is a state, which needs no evaluation")
    return partition
