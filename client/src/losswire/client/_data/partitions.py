"""Data sets of files in parts, to be read by several processes or machines."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Final

from losswire.client._data.assemble import Assembler
from losswire.client._data.batch import Batch
from losswire.client._data.datasets import files_in
from losswire.client._data.formats import File, RowGroup, row_groups_of
from losswire.client._data.streams import read_file
from losswire.client._data.wanted import ColumnsWanted

_FOOTERS_AT_ONCE: Final = 16
_MAX_COUNTED_FILES: Final = 1024
"""With more files than this, the rows of the whole are not counted before reading begins."""


@dataclass(frozen=True, kw_only=True)
class Partition:
    """A file of a data set, or some row groups of a Parquet file. It can be pickled."""

    file: File
    """Where its rows are."""
    first_row: int = 0
    """The number of its first row in the file."""
    rows: int | None = None
    """How many rows it has; None where only reading it would tell."""

    @property
    def key(self) -> str:
        """The key of the file, which all of its partitions share."""
        return self.file.key


def partitions_of(data: Any, rows_per_partition: int | None = None) -> list[Partition]:
    """Return the partitions of a data set of files, in the order in which it would be read.

    Each file is one, or, with `rows_per_partition`, as many row groups of a Parquet file as make
    at least `rows_per_partition` rows. Only the footers of Parquet files are read.

    Raises TypeError for data that is not made of files, ValueError for `rows_per_partition` below
    1, and as `read_batches` does.
    """
    if rows_per_partition is not None and rows_per_partition < 1:
        raise ValueError(f"rows_per_partition must be at least 1, not {rows_per_partition}")
    files = files_in(data)
    if files is None:
        raise TypeError(
            "only files have partitions: paths, folders, patterns, URIs, or a pyarrow dataset of "
            f"files, not {type(data).__name__}"
        )
    counts = _row_groups(files)
    return [
        partition
        for file, groups in zip(files, counts, strict=True)
        for partition in _split(file, groups, rows_per_partition)
    ]


def read_partition(
    partition: Partition, wanted: ColumnsWanted, batch_rows: int | None = None
) -> Iterator[Batch]:
    """Yield the batches of one partition; raises as `read_batches` does."""
    yield from read_file(partition.file, Assembler(wanted), wanted, batch_rows, partition.rows)


def read_files(
    files: Sequence[File], wanted: ColumnsWanted, batch_rows: int | None
) -> Iterator[Batch]:
    """Yield the batches of some files, one file after the other."""
    assembler, total = Assembler(wanted), _total_rows(files)
    for file in files:
        yield from read_file(file, assembler, wanted, batch_rows, total)


def _row_groups(files: Sequence[File]) -> list[list[RowGroup] | None]:
    """Return the row groups of each file; None for other files than Parquet."""
    with ThreadPoolExecutor(min(_FOOTERS_AT_ONCE, len(files))) as pool:
        return list(pool.map(row_groups_of, files))


def _total_rows(files: Sequence[File]) -> int | None:
    """Return how many rows files have together; None where it is not cheap to know."""
    if len(files) > _MAX_COUNTED_FILES or any(file.kind != "parquet" for file in files):
        return None
    return sum(group.rows for groups in _row_groups(files) for group in groups or ())


def _split(
    file: File, groups: Sequence[RowGroup] | None, rows_per_partition: int | None
) -> Iterator[Partition]:
    """Yield the partitions of a file."""
    if groups is None:
        yield Partition(file=file)
        return
    part: list[RowGroup] = []
    for group in groups:
        part.append(group)
        if rows_per_partition is not None and _rows_in(part) >= rows_per_partition:
            yield _of_row_groups(file, part)
            part = []
    if part or not groups:
        yield _of_row_groups(file, part)


def _rows_in(groups: Sequence[RowGroup]) -> int:
    return sum(group.rows for group in groups)


def _of_row_groups(file: File, groups: Sequence[RowGroup]) -> Partition:
    return Partition(
        file=replace(file, row_groups=tuple(group.number for group in groups)),
        first_row=groups[0].first_row if groups else 0,
        rows=_rows_in(groups),
    )
