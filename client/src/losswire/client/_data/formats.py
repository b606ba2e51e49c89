"""Files as streams of Arrow record batches, in memory that does not grow with the file."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from losswire.summaries.columns.arrow import pyarrow

BATCH_BYTES: Final = 4 << 20
"""How large a batch is made. Smaller ones cost more calls; one MiB is already as fast."""
MAX_BATCH_ROWS: Final = 65_536
"""How many rows a batch has at most, however small they are."""

_BLOCK_BYTES: Final = 4 << 20
"""How much of a file is read at a time."""
_INFERENCE_BYTES: Final = 16 << 20
"""From how much of a text file its types are inferred."""
_COALESCED_BYTES: Final = 64 << 20
"""Row groups of remote files whose columns have up to this size are fetched whole."""


@dataclass(frozen=True, kw_only=True)
class File:
    """One file of a data set, or some row groups of one. It can be pickled."""

    path: str
    """Its path in the file system."""
    key: str
    """Its name as a partition: the path as the caller gave it, or relative to the folder given."""
    kind: str
    """One of FORMATS."""
    filesystem: Any = None
    """The pyarrow file system; None: the local one."""
    constants: Mapping[str, str | int | None] = field(default_factory=dict)
    """Columns that all rows have one value in, from the names of folders (`country=DE`)."""
    row_groups: tuple[int, ...] | None = None
    """Which row groups of a Parquet file; None: all."""
    fragment: Any = None
    """The fragment of a pyarrow dataset, where the file is read by its dataset's own options."""


@dataclass(frozen=True)
class RowGroup:
    """A row group of a Parquet file."""

    number: int
    """Its number in the file."""
    first_row: int
    """The number of its first row in the file."""
    rows: int
    """How many rows it has."""


Run = tuple[int, Iterator[Any]]
"""Record batches whose rows are neighbours, and the number of the first row in the file."""


@dataclass(frozen=True)
class Table:
    """An open file."""

    names: list[str]
    """The names of its columns."""
    runs: Callable[[list[str], int | None], Iterator[Run]]
    """Read some columns, with at most `rows` rows in a record batch where that is known."""


@contextmanager
def reading(name: str) -> Iterator[None]:
    """Name the file or stream in the errors of pyarrow, which become a ValueError or OSError."""
    try:
        yield
    except pyarrow().ArrowException as error:
        raise ValueError(f"{name}: {error}") from error
    except OSError as error:
        # What is stored wrongly, too. Others, such as a missing permission, name the path.
        if type(error) is not OSError or str(name) in str(error):
            raise
        raise OSError(f"{name}: {error}") from error


@contextmanager
def opened(file: File) -> Iterator[Table]:
    """Open a file.

    Raises FileNotFoundError and other OSError of the file system, and ValueError for a file that
    is not of its format.
    """
    filesystem = file.filesystem or pyarrow("fs").LocalFileSystem()
    with reading(file.key):
        context = _OPENERS[file.kind](file, filesystem)
        table = context.__enter__()
    try:
        yield table
    finally:
        context.__exit__(None, None, None)


def row_groups_of(file: File) -> list[RowGroup] | None:
    """Return the row groups to read of a Parquet file; None for other files."""
    if file.kind != "parquet":
        return None
    filesystem = file.filesystem or pyarrow("fs").LocalFileSystem()
    with reading(file.key), filesystem.open_input_file(file.path) as source:
        return _chosen_groups(file, pyarrow("parquet").read_metadata(source))


def _chosen_groups(file: File, metadata: Any) -> list[RowGroup]:
    """Return the row groups to read; a fragment of a dataset may have some of them only."""
    groups: list[RowGroup] = []
    first_row = 0
    for number in range(metadata.num_row_groups):
        groups.append(RowGroup(number, first_row, metadata.row_group(number).num_rows))
        first_row += groups[-1].rows
    chosen = file.row_groups
    if chosen is None and file.fragment is not None:
        chosen = tuple(group.id for group in file.fragment.row_groups)
    return groups if chosen is None else [groups[number] for number in chosen]


@contextmanager
def _open_parquet(file: File, filesystem: Any) -> Iterator[Table]:
    parquet = pyarrow("parquet")
    with filesystem.open_input_file(file.path) as source:
        # With a buffer the pages of a column are read one after the other, not the whole column
        # of a row group, which may be the whole file.
        paged = parquet.ParquetFile(source, buffer_size=_BLOCK_BYTES, pre_buffer=False)
        metadata, schema = paged.metadata, paged.schema_arrow
        groups = _chosen_groups(file, metadata)

        def runs(columns: list[str], rows: int | None) -> Iterator[Run]:
            rows = rows or fitting_rows(*_decoded_bytes(metadata, columns, groups))
            options = {"batch_size": rows, "columns": columns}
            for run in _neighbours(groups):
                if file.filesystem is None:
                    numbers = [group.number for group in run]
                    yield run[0].first_row, paged.iter_batches(row_groups=numbers, **options)
                else:
                    yield run[0].first_row, remote(run, options)

        def remote(run: list[RowGroup], options: dict[str, Any]) -> Iterator[Any]:
            """Fetch the next row group with few large requests at once, unless it is large."""
            for group in run:
                chunks = _chunks_of(metadata, group, options["columns"])
                reader = paged
                if sum(chunk.total_compressed_size for chunk in chunks) <= _COALESCED_BYTES:
                    # A reader keeps what it has fetched: each row group has its own.
                    reader = parquet.ParquetFile(source, metadata=metadata, pre_buffer=True)
                yield from reader.iter_batches(row_groups=[group.number], **options)

        yield Table(schema.names, runs)


def _neighbours(groups: list[RowGroup]) -> Iterator[list[RowGroup]]:
    """Yield the longest runs of row groups that follow one another."""
    run: list[RowGroup] = []
    for group in groups:
        if run and group.number != run[-1].number + 1:
            yield run
            run = []
        run.append(group)
    if run:
        yield run


def _chunks_of(metadata: Any, group: RowGroup, columns: list[str]) -> Iterator[Any]:
    """Yield what a row group says of the stored parts of some columns."""
    chunks = metadata.row_group(group.number)
    for chunk in map(chunks.column, range(chunks.num_columns)):
        # A path has further parts where there are lists; so may a name have points.
        if any(f"{chunk.path_in_schema}.".startswith(f"{name}.") for name in columns):
            yield chunk


def _decoded_bytes(metadata: Any, columns: list[str], groups: list[RowGroup]) -> tuple[int, int]:
    """Return how many bytes some columns have once they are decoded, and of how many rows."""
    if not groups:
        return 0, 0
    # Values in lists are counted one by one.
    size = sum(
        chunk.num_values * _WIDTHS.get(chunk.physical_type, _TEXT_BYTES)
        for chunk in _chunks_of(metadata, groups[0], columns)
    )
    return size, groups[0].rows


_TEXT_BYTES: Final = 16
_WIDTHS: Final = {"BOOLEAN": 1, "INT32": 4, "INT64": 8, "FLOAT": 4, "DOUBLE": 8}


def fitting_rows(size: int, rows: int) -> int:
    """Return how many rows make a batch, where some rows have a size in bytes."""
    if not rows or not size:
        return MAX_BATCH_ROWS
    return max(1, min(MAX_BATCH_ROWS, BATCH_BYTES * rows // size))


@contextmanager
def _open_ipc(file: File, filesystem: Any) -> Iterator[Table]:
    """Open a file of Arrow's, also one that holds a stream."""
    arrow = pyarrow()
    local = file.filesystem is None or filesystem.type_name == "local"
    open_source = arrow.memory_map if local else filesystem.open_input_file
    with open_source(file.path) as source:
        is_file = source.read(6) == b"ARROW1"
        source.seek(0)
        schema = (arrow.ipc.open_file if is_file else arrow.ipc.open_stream)(source).schema
        source.seek(0)

        def runs(columns: list[str], _: int | None) -> Iterator[Run]:
            chosen = [schema.get_field_index(name) for name in columns]
            # Of mapped memory nothing is read before it is used; leaving out columns would copy.
            options = arrow.ipc.IpcReadOptions(included_fields=[] if local else chosen)
            if not is_file:
                batches = iter(arrow.ipc.open_stream(source, options=options))
            else:
                reader = arrow.ipc.open_file(source, options=options)
                batches = map(reader.get_batch, range(reader.num_record_batches))
            yield 0, (batch.select(columns) for batch in batches)

        yield Table(schema.names, runs)


@contextmanager
def _open_csv(file: File, filesystem: Any) -> Iterator[Table]:
    csv = pyarrow("csv")
    block = csv.ReadOptions(block_size=_INFERENCE_BYTES)
    with filesystem.open_input_stream(file.path) as source, csv.open_csv(source, block) as reader:
        names = reader.schema.names

    def runs(columns: list[str], _: int | None) -> Iterator[Run]:
        options = csv.ConvertOptions(include_columns=columns)
        with (
            filesystem.open_input_stream(file.path) as source,
            csv.open_csv(source, block, convert_options=options) as reader,
        ):
            yield 0, iter(reader)

    yield Table(names, runs)


@contextmanager
def _open_json(file: File, filesystem: Any) -> Iterator[Table]:
    json = pyarrow("json")
    block = json.ReadOptions(block_size=_INFERENCE_BYTES)
    with filesystem.open_input_stream(file.path) as source, json.open_json(source, block) as reader:
        schema = reader.schema

    def runs(columns: list[str], _: int | None) -> Iterator[Run]:
        options = json.ParseOptions(
            explicit_schema=pyarrow().schema([schema.field(name) for name in columns]),
            unexpected_field_behavior="ignore",
        )
        with (
            filesystem.open_input_stream(file.path) as source,
            json.open_json(source, block, options) as reader,
        ):
            yield 0, iter(reader)

    yield Table(schema.names, runs)


@contextmanager
def _open_fragment(file: File, _: Any) -> Iterator[Table]:
    fragment = file.fragment

    def runs(columns: list[str], rows: int | None) -> Iterator[Run]:
        batches = fragment.to_batches(
            columns=columns,
            batch_size=rows or MAX_BATCH_ROWS,
            batch_readahead=1,
            fragment_readahead=1,
        )
        yield 0, batches

    yield Table(fragment.physical_schema.names, runs)


_OPENERS: Final = {
    "parquet": _open_parquet,
    "ipc": _open_ipc,
    "csv": _open_csv,
    "json": _open_json,
    "fragment": _open_fragment,
}
FORMATS: Final[Mapping[str, str]] = {
    "parquet": "parquet",
    "pq": "parquet",
    "arrow": "ipc",
    "arrows": "ipc",
    "feather": "ipc",
    "ipc": "ipc",
    "csv": "csv",
    "json": "json",
    "jsonl": "json",
    "ndjson": "json",
}
"""The format of each suffix; CSV and JSON lines may be compressed (`.csv.gz`)."""
