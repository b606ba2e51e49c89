"""Data frames and Arrow tables of every library become the same batches."""

import datetime as dt
import decimal
from collections.abc import Callable
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.dataset
import pytest

from losswire.client._data.read import read_batches
from losswire.client._data.wanted import ColumnsWanted
from tests.client.data.samples import (
    EXPECTED,
    INPUT,
    LOGITS,
    NULL,
    WANTED,
    rows_of,
    table,
    values_of,
)

_SLICE = ColumnsWanted(inputs={"input": "x"}, slices=("s",))


def _in_duckdb() -> object:
    connection = duckdb.connect()
    connection.register("rows", table())
    return connection.sql("select * from rows")


_FORMS: dict[str, tuple[Callable[[], Any], int | None]] = {
    "pyarrow.Table": (table, 7),
    "pyarrow.RecordBatch": (lambda: table().to_batches()[0], 7),
    "pyarrow.RecordBatchReader": (lambda: table().to_reader(2), None),
    "pandas": (lambda: table().to_pandas(), 7),
    "pandas with an index": (lambda: table().to_pandas().set_index("comment"), 7),
    "pandas with what Arrow does not know": (
        lambda: table().to_pandas().assign(comment=[object()] * 7),
        7,
    ),
    "polars": (lambda: pl.from_arrow(table()), 7),
    "polars, lazy": (lambda: pl.DataFrame(pl.from_arrow(table())).lazy(), None),
    "duckdb": (_in_duckdb, None),
    "dataset in memory": (lambda: pa.dataset.dataset(table()), None),
    "scanner": (lambda: pa.dataset.dataset(table()).scanner(), None),
    "list of tables": (lambda: [table().slice(0, 3), table().slice(3)], None),
    "record batches": (lambda: iter(table().to_batches(2)), None),
    "frames of several libraries": (
        lambda: (each for each in (table().slice(0, 3), table().slice(3).to_pandas())),
        None,
    ),
}


@pytest.mark.parametrize("form", _FORMS)
def test_every_form_gives_the_same_rows(form: str) -> None:
    """Inputs, weights, slices, ids and clusters are those of the table, whoever holds it."""
    make, total = _FORMS[form]
    batches = list(read_batches(make(), WANTED))
    assert rows_of(batches) == EXPECTED
    assert {batch.partition for batch in batches} == {None}
    assert {batch.total_rows for batch in batches} == {total}
    starts = np.cumsum([0, *(batch.rows for batch in batches)])
    assert [batch.first_row for batch in batches] == starts[:-1].tolist()


@pytest.mark.parametrize("form", _FORMS)
def test_batches_have_at_most_as_many_rows_as_asked(form: str) -> None:
    """With `batch_rows` a form is cut, and nothing is lost."""
    batches = list(read_batches(_FORMS[form][0](), WANTED, batch_rows=3))
    assert max(batch.rows for batch in batches) <= 3
    assert rows_of(batches) == EXPECTED


def test_small_record_batches_are_joined() -> None:
    """A stream of tiny record batches becomes one batch, with one dictionary of labels."""
    coded = table().set_column(3, "country", table()["country"].dictionary_encode())
    pieces = [piece for row in range(7) for piece in coded.slice(row, 1).to_batches()]
    reader = pa.RecordBatchReader.from_batches(coded.schema, pieces)
    [batch] = read_batches(reader, WANTED)
    assert rows_of([batch]) == EXPECTED
    assert batch.columns["country"].labels == ["DE", "FR", "PL"]


@pytest.mark.parametrize(
    "column",
    [
        pa.FixedSizeListArray.from_arrays(LOGITS.reshape(-1), 3),
        pa.FixedShapeTensorArray.from_numpy_ndarray(LOGITS),
        pa.array(LOGITS.tolist(), pa.list_(pa.float32())),
        pa.array(LOGITS.tolist(), pa.large_list(pa.float32())),
    ],
    ids=lambda column: str(column.type).partition("<")[0],
)
def test_lists_become_axes_without_a_copy(column: pa.Array) -> None:
    """The memory of the numbers is the table's own, also behind an offset."""
    values = column
    while not pa.types.is_primitive(values.type):
        is_extension = isinstance(values.type, pa.BaseExtensionType)
        values = getattr(values, "storage" if is_extension else "values")
    for data, expected in ((column, LOGITS), (column.slice(2, 4), LOGITS[2:6])):
        [batch] = read_batches(pa.table({"x": data}), INPUT)
        np.testing.assert_array_equal(batch.inputs["input"], expected)
        assert np.shares_memory(batch.inputs["input"], values.to_numpy())


_TENSORS: dict[str, tuple[pa.Array, Any]] = {
    "int8": (pa.array([1, -2], pa.int8()), np.array([1, -2], np.int8)),
    "uint64": (pa.array([2**64 - 1], pa.uint64()), np.array([2**64 - 1], np.uint64)),
    "half": (pa.array(np.array([0.5, 2], np.float16)), np.array([0.5, 2], np.float16)),
    "bool": (pa.array([True, False, True]).slice(1), np.array([False, True])),
    "bools in lists": (
        pa.array([[True, False], [False, False]], pa.list_(pa.bool_(), 2)),
        np.array([[True, False], [False, False]]),
    ),
    "NaN is a number": (pa.array([np.nan, 1.0]), np.array([np.nan, 1.0])),
    "dictionary": (pa.array([2.5, 1.0, 2.5]).dictionary_encode(), np.array([2.5, 1.0, 2.5])),
    "lists in lists": (
        pa.array([[[1, 2], [3, 4], [5, 6]]] * 2, pa.list_(pa.list_(pa.int64()))),
        np.array([[[1, 2], [3, 4], [5, 6]]] * 2),
    ),
    "fixed lists in lists": (
        pa.array([[[1, 2], [3, 4]]] * 3, pa.list_(pa.list_(pa.int64(), 2))).slice(1),
        np.array([[[1, 2], [3, 4]]] * 2),
    ),
    "list view": (pa.array([[1, 2], [3, 4]], pa.list_view(pa.int64())), np.array([[1, 2], [3, 4]])),
    "empty lists": (pa.array([[], []], pa.list_(pa.float32())), np.empty((2, 0), np.float32)),
    "tensor with permuted axes": (
        pa.ExtensionArray.from_storage(
            pa.fixed_shape_tensor(pa.int64(), (2, 3), permutation=[1, 0]),
            pa.array([[0, 1, 2, 3, 4, 5]], pa.list_(pa.int64(), 6)),
        ),
        np.array([[[0, 3], [1, 4], [2, 5]]]),
    ),
}


@pytest.mark.parametrize("name", _TENSORS)
def test_numbers_keep_their_type_and_shape(name: str) -> None:
    """What Arrow stores is what numpy gets: dtype, shape and values."""
    column, expected = _TENSORS[name]
    [batch] = read_batches(pa.table({"x": column}), INPUT)
    assert batch.inputs["input"].dtype == expected.dtype
    np.testing.assert_array_equal(batch.inputs["input"], expected)


_COLUMNS: dict[str, tuple[Any, list[Any]]] = {
    "integers": (pa.array([3, -1], pa.int8()), [3, -1]),
    "bools": (pa.array([True, False]), ["true", "false"]),
    "texts": (pa.array(["b", "a", "b"]), ["b", "a", "b"]),
    "large texts": (pa.array(["b", "a"], pa.large_string()), ["b", "a"]),
    "text views": (pa.array(["b", "a"], pa.string_view()), ["b", "a"]),
    "codes": (pa.DictionaryArray.from_arrays([1, 0, 1], ["x", "y"]), ["y", "x", "y"]),
    "codes of numbers": (pa.DictionaryArray.from_arrays([1, 0], pa.array([30, 40])), [40, 30]),
    "codes with a text twice": (pa.DictionaryArray.from_arrays([0, 1], ["x", "x"]), ["x", "x"]),
    "few of many codes": (
        pa.DictionaryArray.from_arrays([70, 3], [str(each) for each in range(99)]),
        ["70", "3"],
    ),
    "dates": (pa.array([dt.date(2026, 1, 31)]), ["2026-01-31"]),
    "times": (
        pa.array(np.array(["2026-01-31T08:00", "2026-01-31T08:00:01.5"], "datetime64[us]")),
        ["2026-01-31T08:00:00", "2026-01-31T08:00:01.5"],
    ),
    "floats that are integers": (pa.array([2.0, -7.0]), [2, -7]),
    "whole decimals": (pa.array([decimal.Decimal(12)], pa.decimal128(38, 0)), [12]),
    "pandas categories": (pd.DataFrame({"s": pd.Categorical(["u", "v", "u"])}), ["u", "v", "u"]),
    "polars enum": (
        pl.DataFrame({"s": pl.Series(["v", "u"], dtype=pl.Enum(["u", "v"]))}),
        ["v", "u"],
    ),
    "polars categories": (
        pl.DataFrame({"s": pl.Series(["v", "u"], dtype=pl.Categorical)}),
        ["v", "u"],
    ),
}


@pytest.mark.parametrize("name", _COLUMNS)
def test_slices_have_the_values_of_the_column(name: str) -> None:
    """Numbers stay numbers; all else is the text that a person would write."""
    given, expected = _COLUMNS[name]
    if isinstance(given, pa.Array):
        data: Any = pa.table({"s": given, "x": np.zeros(len(given))})
    elif isinstance(given, pd.DataFrame):
        data = given.assign(x=0.0)
    else:
        data = given.with_columns(x=0.0)
    [batch] = read_batches(data, _SLICE)
    column = batch.columns["s"]
    assert values_of(column) == expected
    assert column.codes.dtype == np.int64
    assert column.labels is None or len(column.labels) <= max(batch.rows, 2)


_WRONG: dict[str, tuple[Any, type[Exception], str]] = {
    "missing": (
        pa.table({"y": [1], "xs": [1.0], "s": [1]}),
        ValueError,
        'batches: no column "x" (input "input"; nearest: xs). It has: y, xs, s',
    ),
    "all missing at once": (
        pd.DataFrame({"z": [1]}),
        ValueError,
        'batches: no column "x" (input "input"); no column "s" (slices). It has: z',
    ),
    "twice": (
        pa.Table.from_arrays([pa.array([1.0]), pa.array([2.0]), pa.array([1])], ["x", "x", "s"]),
        ValueError,
        'batches: there are several columns "x"',
    ),
    "text": (
        pa.table({"x": ["a"], "s": [1]}),
        TypeError,
        (
            'batches, column "x": its type is string, and a loss takes integers, floats, bools and '
            "lists of these; cast it to one of them, such as float64"
        ),
    ),
    "decimal": (
        pa.table({"x": [decimal.Decimal("1.5")], "s": [1]}),
        TypeError,
        (
            'batches, column "x": its type is decimal128(2, 1), and a loss takes integers, floats, '
            "bools and lists of these; cast it to one of them, such as float64"
        ),
    ),
    "null": (
        pa.table({"x": [1.0, 2.0, None], "s": [1, 2, 3]}),
        ValueError,
        f'batches, column "x": row 2 {NULL}',
    ),
    "null in a list": (
        pa.table({"x": [[1.0, 2.0], [3.0, None]], "s": [1, 2]}),
        ValueError,
        f'batches, column "x": row 1 {NULL}',
    ),
    "null slice": (
        pa.table({"x": [1.0, 2.0], "s": ["a", None]}),
        ValueError,
        f'batches, column "s": row 1 {NULL}',
    ),
    "pandas' NaN is null": (
        pd.DataFrame({"x": [1.0, np.nan], "s": [1, 2]}),
        ValueError,
        f'batches, column "x": row 1 {NULL}',
    ),
    "uneven lists": (
        pa.table({"x": [[1.0, 2.0], [3.0, 4.0], [5.0]], "s": [1, 2, 3]}),
        ValueError,
        (
            'batches, column "x": row 2 has a list of 1 values, and row 0 one of 2; all must be '
            "equally long"
        ),
    ),
    "uneven lists in lists": (
        pa.table({"x": [[[1.0], [2.0]], [[3.0], [4.0, 5.0]]], "s": [1, 2]}),
        ValueError,
        (
            'batches, column "x": row 1 has a list of 2 values, and row 0 one of 1; all must be '
            "equally long"
        ),
    ),
    "slices of floats": (
        pa.table({"x": [1.0, 2.0], "s": [1.0, 2.5]}),
        ValueError,
        'batches, column "s": row 1 is 2.5, which is not an integer; cut floats into ranges first',
    ),
    "slices of bytes": (
        pa.table({"x": [1.0], "s": [b"a"]}),
        TypeError,
        (
            'batches, column "s": its type is binary; ids, slices and clusters are integers, '
            "bools, texts or dates"
        ),
    ),
    "large integers": (
        pa.table({"x": [1.0], "s": pa.array([2**63], pa.uint64())}),
        ValueError,
        f'batches, column "s": {2**63} does not fit into int64; give it as text',
    ),
    "not a table": (
        pl.Series([1.0]),
        TypeError,
        "batches: a table was expected, and this Series is none: ",
    ),
}


@pytest.mark.parametrize("name", _WRONG)
def test_a_wrong_table_is_named(name: str) -> None:
    """The error names the column, the row and what to do."""
    data, kind, message = _WRONG[name]
    with pytest.raises(kind) as caught:
        list(read_batches(data, _SLICE))
    assert str(caught.value).startswith(message)
    assert message.endswith(": ") or str(caught.value) == message


def test_rows_are_numbered_over_all_batches() -> None:
    """The row of an error counts from the beginning of the data, and lists from it, too."""
    first = pa.table({"x": [[1.0, 2.0]] * 4})
    with pytest.raises(ValueError, match=r'batches\[1\], column "x": row 6 is null'):
        list(read_batches([first, pa.table({"x": [[1.0, 2.0]] * 2 + [None]})], INPUT))
    with pytest.raises(ValueError, match=r"row 4 has the shape \(3,\), and row 0 of batches\[0\]"):
        list(read_batches([first, pa.table({"x": [[1.0, 2.0, 3.0]]})], INPUT))
