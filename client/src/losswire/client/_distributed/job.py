"""What is to be done of an evaluation of files, and whether all of it was done."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from losswire.client._data.partitions import Partition, partitions_of
from losswire.client._distributed.plan import Plan
from losswire.client._distributed.states import (
    Position,
    StateFolder,
    included_ranges,
    parse,
    position_of,
    rows_in,
)
from losswire.client._summaries.comparison import Comparison
from losswire.client._summaries.summary import Summary

_LISTED: Final = 20
"""How many missing partitions an error lists."""


class IncompleteError(RuntimeError):
    """Some partitions are missing in a summary, because the machines that had them were lost.

    Example:
        >>> error = IncompleteError(summary=None, missing=["b.parquet"], total=64)
        >>> str(error)
        '63 of 64 partitions are included; missing: b.parquet'
    """

    def __init__(
        self, *, summary: Summary | Comparison | None, missing: Sequence[str], total: int
    ) -> None:
        names = ", ".join(missing[:_LISTED])
        more = f" and {len(missing) - _LISTED} more" if len(missing) > _LISTED else ""
        super().__init__(
            f"{total - len(missing)} of {total} partitions are included; missing: {names}{more}"
        )
        self.summary = summary
        """The summary of the others, for `resume_from`; None where there is none."""
        self.missing = tuple(missing)
        """The partitions that are missing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One leaf of the tree: a partition to evaluate, or a state that is there already."""

    position: Position
    partition: Partition | None = None
    state: bytes | None = None
    rows: int = 0
    """How many rows the state has."""


class Job:
    """The parts of an evaluation, in the order in which they are merged."""

    def __init__(
        self,
        plan: Plan,
        data: Any,
        *,
        rows_per_partition: int | None = None,
        resume_from: Iterable[Summary | Comparison | bytes] = (),
        state_dir: str | os.PathLike[str] | None = None,
    ) -> None:
        """List the partitions of data, and take states that are there in place of some of them.

        Raises TypeError for data that is not made of files, ValueError where a state covers a part
        of a partition only, and as reading the list of files does.
        """
        self.plan = plan
        """What to do with each partition."""
        self.folder = None if state_dir is None else StateFolder(state_dir, plan)
        """Where the states of partitions are kept."""
        listed = partitions_of(data, rows_per_partition)
        self.partitions = [_anywhere(each) for each in listed if each.rows != 0]
        """All that have rows, as far as this is known."""
        saved = [_saved_part(each) for each in resume_from]
        # Batches of nulls alone are left out, so that a whole partition may have gaps.
        covered = _Covered(saved, with_gaps=plan.request.nulls == "skip")
        parts = [self._part(each) for each in self.partitions if not covered.has(each)]
        self.parts = sorted([*saved, *parts], key=lambda part: part.position)
        """All parts, in the order of merging."""

    def _part(self, partition: Partition) -> Part:
        position = partition.key, partition.first_row
        state = None if self.folder is None else self.folder.load(partition)
        if state is None:
            return Part(position=position, partition=partition)
        rows = rows_in(parse(state))
        return Part(position=position, partition=partition, state=state, rows=rows)

    @property
    def total_rows(self) -> int | None:
        """How many rows all partitions have; None where this is not known."""
        counts = [each.rows for each in self.partitions]
        return None if None in counts else sum(each or 0 for each in counts)

    def result(
        self, state: bytes | None, without_rows: Iterable[Partition] = ()
    ) -> Summary | Comparison:
        """Return the result, after a check that it covers every partition.

        `without_rows` are partitions that were found to have none. Raises IncompleteError, with
        what is there, and ValueError where there is nothing at all to evaluate.
        """
        if not self.parts:
            raise ValueError("data: no partition has a row")
        found = None if state is None else self.plan.kind.from_bytes(state)
        covered = _Covered([] if state is None else [_saved_part(state)], with_gaps=True)
        empty = {(each.key, each.first_row) for each in without_rows}
        missing = [
            each
            for each in self.partitions
            if (each.key, each.first_row) not in empty and not covered.has(each)
        ]
        if missing or found is None:
            names = [_name(each) for each in missing or self.partitions]
            raise IncompleteError(summary=found, missing=names, total=len(self.partitions))
        return found


class _Covered:
    """The rows that some states cover."""

    def __init__(self, parts: Sequence[Part], *, with_gaps: bool) -> None:
        self._with_gaps = with_gaps
        self._ranges: dict[str, list[tuple[int, int]]] = {}
        for part in parts:
            for key, begin, end in included_ranges(parse(part.state or b"")):
                self._ranges.setdefault(key, []).append((begin, end))

    def has(self, partition: Partition) -> bool:
        """Return whether a partition is covered; ValueError when only a part of it is.

        With gaps, any part of it will do.
        """
        ranges = self._ranges.get(partition.key, ())
        if partition.rows is None:
            return bool(ranges)
        first, last = partition.first_row, partition.first_row + partition.rows
        inside = [(max(begin, first), min(end, last)) for begin, end in ranges]
        count = sum(max(0, end - begin) for begin, end in inside)
        if 0 < count < partition.rows and not self._with_gaps:
            raise ValueError(
                f"resume_from: {count} of the {partition.rows} rows of {_name(partition)} are "
                "covered; states of whole partitions are needed"
            )
        return count > 0


def _saved_part(state: Summary | Comparison | bytes) -> Part:
    data = state if isinstance(state, bytes) else state.to_bytes()
    message = parse(data)
    return Part(position=position_of(message), state=data, rows=rows_in(message))


def _name(partition: Partition) -> str:
    """Return a name for people: the key, with its rows where it begins within a file."""
    if not partition.first_row or partition.rows is None:
        return partition.key
    first, last = partition.first_row, partition.first_row + partition.rows - 1
    return f"{partition.key} (rows {first} to {last})"


def _anywhere(partition: Partition) -> Partition:
    """Return a partition that a process in another folder finds, too."""
    file = partition.file
    if file.filesystem is not None:
        return partition
    return replace(partition, file=replace(file, path=str(Path(file.path).absolute())))
