"""Everything that callers hand over as data, as batches."""

from collections.abc import AsyncIterable, Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, Final

from losswire.client._data.assemble import ArrowSource, Assembler, DictSource
from losswire.client._data.batch import Batch
from losswire.client._data.datasets import files_in, is_dataset, is_scanner
from losswire.client._data.formats import MAX_BATCH_ROWS
from losswire.client._data.partitions import Partition, read_files, read_partition
from losswire.client._data.streams import STREAM, check_unique, guarded, numbered, regroup
from losswire.client._data.wanted import ColumnsWanted
from losswire.summaries.columns.arrow import pyarrow
from losswire.summaries.columns.place import Place

_ACCEPTED: Final = (
    "a dict of arrays, a data frame, an Arrow table or reader, a pyarrow dataset, the path of a "
    "file or folder, or an iterable of these"
)


def read_batches(
    batches: Any, wanted: ColumnsWanted, batch_rows: int | None = None
) -> Iterator[Batch]:
    """Return the batches of any data, read as they are taken; memory holds a few of them.

    - A dict of arrays is one batch; the arrays are what `evaluate` takes, columns of ids, slices
      and clusters also lists of texts.
    - An object with `__arrow_c_stream__` (a data frame of pandas or Polars, a relation of DuckDB,
      a table or reader of pyarrow), a pyarrow dataset or scanner, and files (Parquet, Arrow,
      CSV, JSON lines; paths, folders, patterns, URIs such as `s3://bucket/prefix`, or a list of
      them) are streams of rows, cut into batches of some MiB. Only the columns wanted are read.
    - An iterable of these is all of them, one after the other. Rows count on over all that are
      not files.
    - A `Partition` of files.

    With `batch_rows`, batches have at most that number of rows.

    Raises, at once or while batches are taken: TypeError for other data and for columns of types
    that are not numbers; ValueError for missing columns, nulls, lists of uneven length, arrays
    that differ in their number of rows, and files that are not of their format;
    FileNotFoundError and other OSError for files that cannot be read; ModuleNotFoundError where
    pyarrow is needed and not there. Messages name the file or batch, the column and the row.
    """
    if batch_rows is not None and batch_rows < 1:
        raise ValueError(f"batch_rows must be at least 1, not {batch_rows}")
    if isinstance(batches, Partition):
        return read_partition(batches, wanted, batch_rows)
    reader = _Reader(wanted, batch_rows)
    found = reader.read(batches, STREAM)
    return reader.each(_checked_iterable(batches)) if found is None else found


def _checked_iterable(batches: Any) -> Iterable[Any]:
    if isinstance(batches, AsyncIterable):
        raise TypeError("batches: an asynchronous iterable is not accepted; give an iterable")
    if isinstance(batches, Iterable) and not isinstance(batches, (bytes, bytearray)):
        return batches
    raise TypeError(f"batches: {_ACCEPTED} was expected, not {type(batches).__name__}")


class _Reader:
    """Reads the data of one call; its rows are numbered on over all that are not files."""

    def __init__(self, wanted: ColumnsWanted, batch_rows: int | None) -> None:
        self._wanted = wanted
        self._batch_rows = batch_rows
        self._assembler = Assembler(wanted)
        self._row = 0

    def each(self, items: Iterable[Any]) -> Iterator[Batch]:
        """Yield the batches of an iterable of data."""
        for index, item in enumerate(items):
            name = f"{STREAM}[{index}]"
            found = self.read(item, name)
            if found is None:
                raise TypeError(f"{name}: {_ACCEPTED} was expected, not {type(item).__name__}")
            yield from found

    def read(self, data: Any, name: str) -> Iterator[Batch] | None:
        """Return the batches of data that is no iterable of others; None if it is one."""
        if isinstance(data, Mapping):
            return self._dict(data, name)
        files = files_in(data)
        if files is not None:
            return read_files(files, self._wanted, self._batch_rows)
        if is_dataset(data) or is_scanner(data):
            return self._stream(self._scanned(data, name), name, None)
        if hasattr(data, "__arrow_c_stream__"):
            total = _rows_of(data) if name == STREAM else None
            return self._stream(self._opened(data, name), name, total)
        if hasattr(data, "collect_batches"):
            return self._lazy(data, name)
        return None

    def _dict(self, data: Mapping[str, Any], name: str) -> Iterator[Batch]:
        source = DictSource(data, Place(name, is_dict=True))
        rows, batch = self._assembler.batch(source, first_row=self._row)
        self._row += rows
        if batch is None:
            return
        if name == STREAM:
            batch = replace(batch, total_rows=rows, is_lasting=True)
        step = self._batch_rows or rows
        if step >= rows:
            yield batch
            return
        for start in range(0, rows, step):
            yield batch.rows_between(start, min(start + step, rows))

    def _scanned(self, data: Any, name: str) -> Any:
        """Return a reader of a dataset that is filtered or in memory: its parts have no keys."""
        if is_scanner(data):
            return data.to_reader()
        scanner = data.scanner(
            columns=self._wanted.columns_in(data.schema.names, name),
            batch_size=self._batch_rows or MAX_BATCH_ROWS,
            batch_readahead=1,
            fragment_readahead=1,
        )
        return scanner.to_reader()

    def _opened(self, data: Any, name: str) -> Any:
        """Return a reader of the columns wanted, where the library can leave out the others."""
        select = _SELECT.get(type(data).__module__.partition(".")[0])
        if select is not None and hasattr(data, "columns"):
            data = select(data, self._wanted, name)
        try:
            return pyarrow().RecordBatchReader.from_stream(data)
        except pyarrow().ArrowException as error:
            raise TypeError(
                f"{name}: a table was expected, and this {type(data).__name__} is none: {error}"
            ) from error

    def _lazy(self, frame: Any, name: str) -> Iterator[Batch]:
        """Yield the batches of a lazy frame of Polars, computed piece by piece."""
        for piece in _of_polars(frame, self._wanted, name).collect_batches():
            yield from self._stream(self._opened(piece, name), name, None)

    def _stream(self, reader: Any, name: str, total: int | None) -> Iterator[Batch]:
        names = reader.schema.names
        columns = self._wanted.columns_in(names, name)
        check_unique(columns, names, name)
        selected = (batch.select(columns) for batch in guarded(reader, name))
        for row, record_batch in numbered(regroup(selected, self._batch_rows), self._row):
            self._row = row + record_batch.num_rows
            source = ArrowSource(record_batch, Place(name, row), {})
            _, batch = self._assembler.batch(source, first_row=row, total_rows=total)
            if batch is not None:
                yield batch


def _rows_of(data: Any) -> int | None:
    """Return how many rows a table in memory has; None where counting them would be work."""
    library = type(data).__module__.partition(".")[0]
    if library == "pyarrow":
        return getattr(data, "num_rows", None)
    return len(data) if library in {"pandas", "polars"} else None


def _of_pandas(frame: Any, wanted: ColumnsWanted, name: str) -> Any:
    return frame[wanted.columns_in(list(frame.columns), name)]


def _of_polars(frame: Any, wanted: ColumnsWanted, name: str) -> Any:
    return frame.select(wanted.columns_in(frame.collect_schema().names(), name))


def _of_duckdb(relation: Any, wanted: ColumnsWanted, name: str) -> Any:
    names = wanted.columns_in(list(relation.columns), name)
    quoted = (name.replace('"', '""') for name in names)
    return relation.project(", ".join(f'"{name}"' for name in quoted))


_SELECT: Final[Mapping[str, Callable[[Any, ColumnsWanted, str], Any]]] = {
    "pandas": _of_pandas,
    "polars": _of_polars,
    "duckdb": _of_duckdb,
    "_duckdb": _of_duckdb,
}
"""How the libraries leave out columns, by the name of each."""
