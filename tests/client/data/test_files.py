"""Files of every format, in folders, by patterns and through pyarrow datasets."""

import gzip
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.csv
import pyarrow.dataset
import pyarrow.feather
import pyarrow.parquet
import pytest

from losswire.client._data.read import read_batches
from losswire.client._data.wanted import ColumnsWanted
from tests.client.data.samples import (
    EXPECTED,
    INPUT,
    NULL,
    TARGET,
    WANTED,
    rows_of,
    table,
    values_of,
)


def _write_stream(path: Path) -> None:
    with pa.ipc.new_stream(path, table().schema) as writer:
        writer.write_table(table(), max_chunksize=2)


def _write_json(path: Path) -> None:
    lines = pl.DataFrame(pl.from_arrow(table().drop_columns("comment"))).write_ndjson()
    path.write_bytes(gzip.compress(lines.encode()) if path.suffix == ".gz" else lines.encode())


def _write_parquet(path: Path) -> None:
    pa.parquet.write_table(table(), path, row_group_size=2)


_WRITERS: dict[str, Callable[[Path], None]] = {
    "rows.parquet": _write_parquet,
    "rows.PQ": _write_parquet,
    "rows.snappy.parquet": _write_parquet,
    "rows": _write_parquet,
    "rows.arrow": lambda path: pa.feather.write_feather(table(), path, chunksize=3),
    "rows.feather": lambda path: pa.feather.write_feather(table(), path, compression="zstd"),
    "rows.arrows": _write_stream,
    "rows.jsonl": _write_json,
    "rows.json.gz": _write_json,
}


@pytest.mark.parametrize("name", _WRITERS)
@pytest.mark.parametrize("rows", [None, 3])
def test_every_format_gives_the_same_rows(name: str, rows: int | None, tmp_path: Path) -> None:
    """The key is the path as it was given; rows are numbered in the file."""
    path = tmp_path / name
    _WRITERS[name](path)
    batches = list(read_batches(path, WANTED, rows))
    assert rows_of(batches) == EXPECTED
    assert {batch.partition for batch in batches} == {str(path)}
    starts = np.cumsum([0, *(batch.rows for batch in batches)])
    assert [batch.first_row for batch in batches] == starts[:-1].tolist()
    known = 7 if "parq" in name.lower() + "parq" * (name in {"rows", "rows.PQ"}) else None
    assert {batch.total_rows for batch in batches} == {known}
    assert rows is None or max(batch.rows for batch in batches) <= rows


def test_csv_has_numbers_and_texts(tmp_path: Path) -> None:
    """Columns have the types that their values have."""
    path = tmp_path / "rows.csv"
    pa.csv.write_csv(table().drop_columns(["logits", "comment"]), path)
    wanted = ColumnsWanted(
        inputs={"input": "w", "target": "target"},
        slices=("country", "mobile"),
        ids="name",
        sample_weight="w",
        cluster="doc",
    )
    expected = {**EXPECTED, "input": EXPECTED["w"]}
    assert rows_of(read_batches(path, wanted)) == expected


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two files of rows in folders, and what is no data."""
    root = tmp_path / "data"
    for part, (start, stop) in {"b/2.parquet": (3, 7), "a/1.parquet": (0, 3)}.items():
        path = root / part
        path.parent.mkdir(parents=True)
        pa.parquet.write_table(table().slice(start, stop - start), path)
    for other in ("README.md", "_SUCCESS", ".hidden.parquet", "_tmp/0.parquet"):
        (root / other).parent.mkdir(exist_ok=True)
        (root / other).write_text("no data")
    return root


@pytest.mark.parametrize("ending", ["", "/"])
def test_a_folder_is_all_of_its_files_in_order(folder: Path, ending: str) -> None:
    """Keys are relative to the folder, so that they are the same on every machine."""
    batches = list(read_batches(f"{folder}{ending}", WANTED))
    assert [batch.partition for batch in batches] == ["a/1.parquet", "b/2.parquet"]
    assert [batch.first_row for batch in batches] == [0, 0]
    assert [batch.total_rows for batch in batches] == [7, 7]
    assert rows_of(batches) == EXPECTED


_GIVEN: dict[str, Callable[[str], Any]] = {
    "pattern": lambda root: f"{root}/*/*.parquet",
    "pattern of folders": lambda root: f"{root}/**/[0-9].parquet",
    "pattern of names": lambda root: f"{root}/?/[!x].par*",
    "pattern with folders below": lambda root: f"{root}/[ab]/**/*",
    "list of files": lambda root: [f"{root}/a/1.parquet", f"{root}/b/2.parquet"],
    "list of folders": lambda root: (f"{root}/a", f"{root}/b"),
    "generator of paths": lambda root: (Path(root, part) for part in ("a/1.parquet", "b")),
    "URI": lambda root: f"file://{root}/**/*.parquet",
    "dataset": lambda root: pa.dataset.dataset(
        [f"{root}/a/1.parquet", f"{root}/b/2.parquet"], schema=table().schema
    ),
    "fragments": lambda root: [
        fragment
        for part in ("a/1.parquet", "b/2.parquet")
        for fragment in pa.dataset.dataset(f"{root}/{part}").get_fragments()
    ],
}


@pytest.mark.parametrize("name", _GIVEN)
def test_files_may_be_given_in_many_ways(folder: Path, name: str) -> None:
    """Keys are the paths, unless one folder is given."""
    batches = list(read_batches(_GIVEN[name](str(folder)), WANTED))
    assert rows_of(batches) == EXPECTED
    expected = [f"{folder}/a/1.parquet", f"{folder}/b/2.parquet"]
    if name == "generator of paths":
        expected[1] = "2.parquet"
    assert [batch.partition for batch in batches] == expected


def test_relative_paths_are_kept(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pattern may begin in the current folder."""
    monkeypatch.chdir(folder)
    batches = list(read_batches("*/*.parquet", WANTED))
    assert [batch.partition for batch in batches] == ["a/1.parquet", "b/2.parquet"]


def test_only_some_row_groups_of_a_fragment(tmp_path: Path) -> None:
    """Rows keep their numbers in the file."""
    _write_parquet(tmp_path / "rows.parquet")
    [fragment] = pa.dataset.dataset(tmp_path / "rows.parquet").get_fragments()
    batches = list(read_batches(fragment.subset(row_group_ids=[0, 2, 3]), WANTED))
    assert [(batch.first_row, batch.rows) for batch in batches] == [(0, 2), (4, 3)]
    assert rows_of(batches)["name"] == ["a", "b", "e", "f", "g"]
    assert batches[0].total_rows == 5


def test_a_filtered_dataset_has_the_rows_of_the_filter(folder: Path) -> None:
    """Its rows have no numbers in files, so that they count on."""
    data = pa.dataset.dataset([f"{folder}/a/1.parquet", f"{folder}/b/2.parquet"])
    batches = list(read_batches(data.filter(pa.dataset.field("country") == "DE"), WANTED))
    assert rows_of(batches)["name"] == ["a", "c", "f", "g"]
    assert {batch.partition for batch in batches} == {None}


def test_a_dataset_keeps_its_options(tmp_path: Path) -> None:
    """Files of a dataset with a separator of its own are read as it says."""
    (tmp_path / "rows.csv").write_text("x;s\n1.5;a\n2.5;b\n")
    csv = pa.dataset.CsvFileFormat(pa.csv.ParseOptions(delimiter=";"))
    data = pa.dataset.dataset(tmp_path, format=csv)
    [batch] = read_batches(data, ColumnsWanted(inputs={"input": "x"}, slices=("s",)))
    assert batch.inputs["input"].tolist() == [1.5, 2.5]
    assert batch.partition == f"{tmp_path}/rows.csv"


@pytest.mark.parametrize("as_dataset", [False, True])
def test_folders_name_columns(tmp_path: Path, as_dataset: bool) -> None:  # noqa: FBT001 - a case
    """Folders such as `country=DE` are columns, of texts or of integers."""
    for country, year in (("DE", 2025), ("a%2Fb", 2026)):
        path = tmp_path / f"country={country}" / f"year={year}" / "part.parquet"
        path.parent.mkdir(parents=True)
        pa.parquet.write_table(pa.table({"x": [0.5, 1.5]}), path)
    wanted = ColumnsWanted(inputs={"input": "x"}, slices=("country", "year"))
    data: Any = tmp_path
    if as_dataset:
        data = pa.dataset.dataset(tmp_path, partitioning="hive")
    batches = sorted(read_batches(data, wanted), key=lambda batch: str(batch.partition))
    assert [values_of(batch.columns["country"]) for batch in batches] == [["DE"] * 2, ["a/b"] * 2]
    assert [values_of(batch.columns["year"]) for batch in batches] == [[2025] * 2, [2026] * 2]


def test_a_folder_of_null_is_null(tmp_path: Path) -> None:
    """As other programs write it."""
    path = tmp_path / "country=__HIVE_DEFAULT_PARTITION__" / "part.parquet"
    path.parent.mkdir()
    pa.parquet.write_table(pa.table({"x": [0.5]}), path)
    wanted = ColumnsWanted(inputs={"input": "x"}, slices=("country",))
    with pytest.raises(ValueError, match='column "country": row 0 is null'):
        list(read_batches(tmp_path, wanted))


def test_other_columns_are_not_read(tmp_path: Path) -> None:
    """What is stored of them may be anything."""
    path = tmp_path / "rows.parquet"
    pa.parquet.write_table(pa.table({"y": [1] * 9, "x": [0.5] * 9}), path)
    chunk = pa.parquet.read_metadata(path).row_group(0).column(0)
    stored = bytearray(path.read_bytes())
    start = chunk.dictionary_page_offset
    stored[start : start + chunk.total_compressed_size] = b"!" * chunk.total_compressed_size
    path.write_bytes(stored)
    with pytest.raises(OSError, match=re.escape(f"{path}: ")):
        list(read_batches(path, ColumnsWanted(inputs={"input": "y"})))
    [batch] = read_batches(path, INPUT)
    assert batch.inputs["input"].tolist() == [0.5] * 9


def test_names_with_points_are_names(tmp_path: Path) -> None:
    """A point in the name of a column is no path into it."""
    rows = pa.table({"model.x": [[1.0, 2.0]] * 2, "model": [3.0, 4.0]})
    pa.parquet.write_table(rows, tmp_path / "rows.parquet")
    wanted = ColumnsWanted(inputs={"input": "model.x", "target": "model"})
    [batch] = read_batches(tmp_path, wanted)
    assert batch.inputs["input"].tolist() == [[1, 2], [1, 2]]
    assert batch.inputs["target"].tolist() == [3, 4]


def _garbage(root: Path) -> Path:
    (root / "x.parquet").write_bytes(b"PAR1 this is no file of that format")
    return root / "x.parquet"


def _written(name: str, text: str) -> Callable[[Path], Path]:
    def write(root: Path) -> Path:
        (root / name).write_text(text)
        return root / name

    return write


def _with_rows(values: list[Any]) -> Callable[[Path], Path]:
    def write(root: Path) -> Path:
        rows = pa.table({"x": pa.array(values)})
        pa.parquet.write_table(rows, root / "x.parquet", row_group_size=2)
        return root

    return write


def _empty(root: Path) -> Path:
    (root / "notes.txt").write_text("")
    return root


_FORMATS = "parquet, pq, arrow, arrows, feather, ipc, csv, json, jsonl, ndjson"
_WRONG: dict[str, tuple[Callable[[Path], Any], type[Exception], str]] = {
    "no file": (
        lambda root: root / "none.parquet",
        FileNotFoundError,
        'there is no file or folder "{root}/none.parquet"',
    ),
    "no folder": (
        lambda root: f"{root}/none/*.parquet",
        FileNotFoundError,
        'there is no folder "{root}/none"',
    ),
    "no match": (
        lambda root: f"{root}/*.parquet",
        ValueError,
        f'no file of a known format is in "{{root}}/*.parquet" ({_FORMATS}); there is nothing',
    ),
    "no data": (
        _empty,
        ValueError,
        f'no file of a known format is in "{{root}}" ({_FORMATS}); there is notes.txt',
    ),
    "unknown": (
        _written("rows.xlsx", "PK"),
        ValueError,
        f'"{{root}}/rows.xlsx" is of no known format: its name has none of the suffixes {_FORMATS}',
    ),
    "compressed": (
        _written("rows.parquet.gz", "PK"),
        ValueError,
        '"{root}/rows.parquet.gz" is of no known format: its name has none of the suffixes '
        + _FORMATS,
    ),
    "twice": (
        lambda root: [_written("x.csv", "x\n1\n")(root)] * 2,
        ValueError,
        'the file "{root}/x.csv" is given twice',
    ),
    "bytes": (
        lambda _: type("Bytes", (), {"__fspath__": lambda _: b"x"})(),
        TypeError,
        "a path must be a str or a Path, not Bytes",
    ),
    "long": (
        lambda root: [_written("x.csv", "x\n1\n")(root), f"{root}/" + "./" * 600 + "x.csv"],
        ValueError,
        'the path "{root}/' + "./" * 600 + 'x.csv" has more than 1024 bytes',
    ),
    "scheme": (
        lambda _: "nothing://bucket/rows.parquet",
        ValueError,
        '"nothing://bucket/rows.parquet" cannot be opened: ',
    ),
    "garbage": (_garbage, ValueError, "{root}/x.parquet: "),
    "no JSON": (_written("x.jsonl", '{"x": 1}\nno\n'), ValueError, "{root}/x.jsonl: JSON parse"),
    "another type below": (
        _written("x.csv", "x\n" + "1\n" * 9_000_000 + "a\n"),
        ValueError,
        "{root}/x.csv: In CSV column #0: ",
    ),
    "missing": (
        _written("x.csv", "y,xx\n1,2\n"),
        ValueError,
        '{root}/x.csv: no column "x" (input "input"; nearest: xx). It has: y, xx',
    ),
    "null": (
        _with_rows([1.0, 2.0, 3.0, None]),
        ValueError,
        f'x.parquet, column "x": row 3 {NULL}',
    ),
    "uneven": (
        _with_rows([[1.0], [1.0], [1.0], [1.0, 2.0]]),
        ValueError,
        (
            'x.parquet, column "x": row 3 has a list of 2 values, and row 0 one of 1; all must be '
            "equally long"
        ),
    ),
}


@pytest.mark.parametrize("name", _WRONG)
def test_a_wrong_file_is_named(name: str, tmp_path: Path) -> None:
    """The error names the file, the column, the row and what to do."""
    make, kind, message = _WRONG[name]
    given = make(tmp_path)
    with pytest.raises(kind) as caught:
        list(read_batches(given, INPUT))
    expected = message.replace("{root}", str(tmp_path))
    assert str(caught.value).startswith(expected)
    assert expected.endswith((": ", "JSON parse")) or str(caught.value) == expected


def test_json_needs_no_column_but_those_wanted(tmp_path: Path) -> None:
    """Fields that nobody wants may be anything, also in lines after the first."""
    lines = [{"x": 0.5, "y": {"z": [1]}}, {"x": 1.5, "y": {"z": [2]}, "new": "a"}]
    (tmp_path / "x.jsonl").write_text("\n".join(map(json.dumps, lines)))
    [batch] = read_batches(tmp_path, INPUT)
    assert batch.inputs["input"].tolist() == [0.5, 1.5]


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without pyarrow dicts are read, and all else says how to install it."""
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    [batch] = read_batches({"logits": TARGET}, ColumnsWanted(inputs={"input": "logits"}))
    assert batch.rows == 7
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'losswire\[arrow\]'"):
        read_batches("rows.parquet", INPUT)
