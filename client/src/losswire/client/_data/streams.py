"""Arrow record batches of any size as batches of a good size."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, TypeVar

from losswire.client._data.assemble import ArrowSource, Assembler
from losswire.client._data.batch import Batch
from losswire.client._data.formats import File, fitting_rows, opened, reading
from losswire.client._data.wanted import ColumnsWanted
from losswire.summaries.columns.arrow import pyarrow
from losswire.summaries.columns.place import Place

_T = TypeVar("_T")

STREAM: Final = "batches"
"""The name in errors of data that is no file."""


def read_file(
    file: File, assembler: Assembler, wanted: ColumnsWanted, rows: int | None, total: int | None
) -> Iterator[Batch]:
    """Yield the batches of a file; raises as `formats.opened` and `Assembler.batch` do."""
    with opened(file) as table:
        names = wanted.columns_in([*table.names, *file.constants], file.key)
        check_unique(names, table.names, file.key)
        stored = [name for name in names if name in table.names]
        for first_row, record_batches in guarded(table.runs(stored, rows), file.key):
            regrouped = regroup(guarded(record_batches, file.key), rows)
            for row, record_batch in numbered(regrouped, first_row):
                source = ArrowSource(record_batch, Place(file.key, row), file.constants)
                _, batch = assembler.batch(
                    source, partition=file.key, first_row=row, total_rows=total
                )
                if batch is not None:
                    yield batch


def check_unique(names: Sequence[str], there: Sequence[str], where: str) -> None:
    """Raise ValueError for a column that is there more than once."""
    for name in names:
        if there.count(name) > 1:
            raise ValueError(f'{where}: there are several columns "{name}"')


def numbered(record_batches: Iterable[Any], first_row: int) -> Iterator[tuple[int, Any]]:
    """Yield record batches with the number of the first row of each."""
    for record_batch in record_batches:
        yield first_row, record_batch
        first_row += record_batch.num_rows


def guarded(items: Iterable[_T], name: str) -> Iterator[_T]:
    """Yield what pyarrow reads; its errors become a ValueError that names the source."""
    iterator = iter(items)
    while True:
        with reading(name):
            item = next(iterator, None)
        if item is None:
            return
        yield item


def regroup(record_batches: Iterable[Any], rows: int | None) -> Iterator[Any]:
    """Yield the same rows in record batches of at most `rows`; None: of a suitable size.

    Small neighbours are joined, which copies them; larger ones are cut, which does not.
    """
    waiting: list[Any] = []
    count = 0
    for record_batch in record_batches:
        limit = rows or fitting_rows(_size_of(record_batch), record_batch.num_rows)
        if waiting and count + record_batch.num_rows > limit:
            yield from _cut(waiting, limit)
            waiting, count = [], 0
        if record_batch.num_rows:
            waiting.append(record_batch)
            count += record_batch.num_rows
        if 2 * count > limit:
            yield from _cut(waiting, limit)
            waiting, count = [], 0
    if waiting:
        yield from _cut(waiting, rows or count)


def _size_of(record_batch: Any) -> int:
    """Return the bytes of the rows; of what they are cut from where pyarrow cannot tell."""
    try:
        return int(record_batch.nbytes)
    except pyarrow().ArrowTypeError:  # it has views
        return int(record_batch.get_total_buffer_size())


def _cut(record_batches: list[Any], limit: int) -> Iterator[Any]:
    joined = record_batches[0]
    if len(record_batches) > 1:
        joined = pyarrow().concat_batches(record_batches)
    for start in range(0, joined.num_rows, limit):
        yield joined.slice(start, limit)
