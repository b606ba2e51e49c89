"""Data sets of files are read in parts, by other processes."""

import pickle
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.dataset
import pyarrow.parquet
import pytest

from losswire.client._data.partitions import Partition, partitions_of, read_partition
from tests.client.data.samples import EXPECTED, WANTED, rows_of, table


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A file of 7 rows in row groups of 2, and one of a single row group of 3."""
    pa.parquet.write_table(table(), tmp_path / "a.parquet", row_group_size=2)
    pa.parquet.write_table(table().slice(0, 3), tmp_path / "b.parquet")
    return tmp_path


@pytest.mark.parametrize(
    ("rows_per_partition", "expected"),
    [
        (None, [("a.parquet", 0, 7), ("b.parquet", 0, 3)]),
        (100, [("a.parquet", 0, 7), ("b.parquet", 0, 3)]),
        (3, [("a.parquet", 0, 4), ("a.parquet", 4, 3), ("b.parquet", 0, 3)]),
        (
            1,
            [
                ("a.parquet", 0, 2),
                ("a.parquet", 2, 2),
                ("a.parquet", 4, 2),
                ("a.parquet", 6, 1),
                ("b.parquet", 0, 3),
            ],
        ),
    ],
)
def test_row_groups_are_joined_to_partitions(
    folder: Path, rows_per_partition: int | None, expected: list[tuple[str, int, int]]
) -> None:
    """Each partition has at least as many rows as asked, but for the last of a file."""
    parts = partitions_of(folder, rows_per_partition)
    assert [(part.key, part.first_row, part.rows) for part in parts] == expected
    batches = [batch for part in parts for batch in read_partition(part, WANTED)]
    assert [(batch.partition, batch.first_row, batch.rows) for batch in batches] == expected
    assert {name: values[:7] for name, values in rows_of(batches).items()} == EXPECTED


def _names(part: Partition) -> list[Any]:
    names: list[Any] = rows_of(read_partition(part, WANTED, 2))["name"]
    return names


@pytest.mark.parametrize("as_dataset", [False, True])
def test_another_process_reads_them(
    folder: Path,
    as_dataset: bool,  # noqa: FBT001 - a case
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A partition is sent as it is; paths do not depend on the current folder."""
    monkeypatch.chdir(folder.parent)
    parts = partitions_of(pa.dataset.dataset(folder) if as_dataset else folder.name, 3)
    monkeypatch.chdir("/")
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        assert list(pool.map(_names, parts)) == [list("abcd"), list("efg"), list("abc")]


def test_some_row_groups_of_a_fragment_are_split(folder: Path) -> None:
    """Rows keep their numbers in the file, also behind those that are left out."""
    [fragment] = pa.dataset.dataset(folder / "a.parquet").get_fragments()
    parts = partitions_of(fragment.subset(row_group_ids=[0, 2, 3]), 2)
    assert [(part.first_row, part.rows) for part in parts] == [(0, 2), (4, 2), (6, 1)]
    assert [_names(part) for part in pickle.loads(pickle.dumps(parts))] == [  # noqa: S301 - own
        ["a", "b"],
        ["e", "f"],
        ["g"],
    ]


def test_other_files_are_one_partition(tmp_path: Path) -> None:
    """Only reading them would tell how many rows they have."""
    pa.csv.write_csv(pa.table({"x": [1, 2]}), tmp_path / "rows.csv")
    [part] = partitions_of(tmp_path, 1)
    assert (part.key, part.first_row, part.rows) == ("rows.csv", 0, None)


def test_a_file_without_rows_is_a_partition(tmp_path: Path) -> None:
    """It has no batches."""
    pa.parquet.write_table(table().slice(0, 0), tmp_path / "rows.parquet")
    [part] = partitions_of(tmp_path, 10)
    assert (part.rows, list(read_partition(part, WANTED))) == (0, [])


@pytest.mark.parametrize(
    ("data", "rows", "kind", "message"),
    [
        (
            table(),
            None,
            TypeError,
            (
                "only files have partitions: paths, folders, patterns, URIs, or a pyarrow dataset "
                "of files, not Table"
            ),
        ),
        ("anywhere", 0, ValueError, "rows_per_partition must be at least 1, not 0"),
        ("nowhere", 1, FileNotFoundError, 'there is no file or folder "nowhere"'),
    ],
)
def test_wrong_arguments_are_named(
    data: object, rows: int | None, kind: type[Exception], message: str
) -> None:
    """The error says what has partitions."""
    with pytest.raises(kind) as caught:
        partitions_of(data, rows)
    assert str(caught.value) == message
