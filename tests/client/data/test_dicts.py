"""Dicts of arrays become batches as they are."""

import datetime as dt
from collections.abc import AsyncIterator, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch

from losswire.client._data.read import read_batches
from losswire.client._data.wanted import ColumnsWanted
from tests.client.data.samples import (
    COUNTRY,
    DOCUMENT,
    EXPECTED,
    INPUT,
    LOGITS,
    MOBILE,
    NAMES,
    NULL,
    TARGET,
    WANTED,
    WEIGHT,
    rows_of,
    values_of,
)

_ROWS: dict[str, Any] = {
    "logits": LOGITS,
    "target": TARGET,
    "w": WEIGHT,
    "country": COUNTRY,
    "mobile": MOBILE,
    "name": NAMES,
    "doc": DOCUMENT,
}
_SLICE = ColumnsWanted(inputs={"input": "x"}, slices=("s",))


def _slices(start: int, stop: int) -> dict[str, Any]:
    return {name: values[start:stop] for name, values in _ROWS.items()}


def _generated() -> Iterator[dict[str, Any]]:
    yield _slices(0, 3)
    yield _slices(3, 3)
    yield _slices(3, 7)


_FORMS: dict[str, tuple[Any, list[int]]] = {
    "one dict": (_ROWS, [7]),
    "a list": ([_slices(0, 2), _slices(2, 7)], [2, 5]),
    "a generator": (_generated(), [3, 4]),
    "torch": (
        {**_ROWS, "logits": torch.from_numpy(LOGITS), "mobile": torch.tensor(MOBILE)},
        [7],
    ),
    "lists": ({**_ROWS, "logits": LOGITS.tolist(), "w": WEIGHT.tolist()}, [7]),
    "numpy texts": ({**_ROWS, "country": np.array(COUNTRY), "name": np.array(NAMES, object)}, [7]),
    "pandas": (
        {
            **_ROWS,
            "target": pd.Series(TARGET),
            "country": pd.Categorical(COUNTRY),
            "mobile": pd.Series(MOBILE),
            "logits": pd.Series(list(LOGITS)),
        },
        [7],
    ),
    "polars": (
        {
            **_ROWS,
            "logits": pl.Series(LOGITS, dtype=pl.Array(pl.Float32, 3)),
            "country": pl.Series(COUNTRY, dtype=pl.Categorical),
        },
        [7],
    ),
    "pyarrow": (
        {
            **_ROWS,
            "logits": pa.FixedSizeListArray.from_arrays(LOGITS.reshape(-1), 3),
            "target": pa.chunked_array([TARGET[:2], TARGET[2:]]),
            "country": pa.array(COUNTRY),
        },
        [7],
    ),
}


@pytest.mark.parametrize("form", _FORMS)
def test_every_form_gives_the_same_rows(form: str) -> None:
    """Arrays of any library, and batches of any size, which are kept as they are."""
    data, sizes = _FORMS[form]
    batches = list(read_batches(data, WANTED))
    assert [batch.rows for batch in batches] == sizes
    assert rows_of(batches) == EXPECTED
    starts = np.cumsum([0, *sizes])
    assert [batch.first_row for batch in batches] == starts[:-1].tolist()


def test_arrays_are_not_copied() -> None:
    """The caller's memory is what is sent."""
    [batch] = read_batches(_ROWS, WANTED)
    assert batch.inputs["input"] is LOGITS
    assert np.shares_memory(batch.rows_between(2, 4).inputs["input"], LOGITS)
    assert batch.total_rows == 7


def test_batches_are_cut_where_asked() -> None:
    """With `batch_rows`, each dict is cut by itself."""
    batches = list(read_batches([_slices(0, 5), _slices(5, 7)], WANTED, batch_rows=3))
    assert [batch.rows for batch in batches] == [3, 2, 2]
    assert rows_of(batches) == EXPECTED


def test_a_cut_has_the_labels_of_its_rows() -> None:
    """Columns of a cut have at most one label for each row; others keep their labels."""
    [batch] = read_batches(_ROWS, WANTED)
    cut = batch.rows_between(3, 5)
    assert cut.columns["country"].labels == ["FR", "PL"]
    assert values_of(cut.columns["country"]) == ["PL", "FR"]
    assert values_of(cut.ids) == ["d", "e"]
    assert values_of(cut.clusters) == [6, 6]
    assert (cut.rows, cut.first_row) == (2, 3)
    assert batch.nbytes == 7 * (3 * 4 + 8 + 8 + 4 * 8)
    with pytest.raises(IndexError, match="rows 5 to 8 are not within the batch's 7"):
        batch.rows_between(5, 8)


_COLUMNS: dict[str, tuple[Any, list[Any]]] = {
    "numbers of any size": (np.array([3, 200], np.uint8), [3, 200]),
    "bools": (np.array([True, False]), ["true", "false"]),
    "texts of objects": (np.array(["x", "y", "x"], object), ["x", "y", "x"]),
    "bytes": (np.array([b"x", b"y"]), ["x", "y"]),
    "numpy scalars": ([np.int64(4), np.int32(5)], [4, 5]),
    "dates": ([dt.date(2026, 3, 1), dt.date(2026, 3, 2)], ["2026-03-01", "2026-03-02"]),
    "numpy dates": (np.array(["2026-03-01"], "datetime64[D]"), ["2026-03-01"]),
    "numpy times": (
        np.array(["2026-03-01T10:20"], "datetime64[ns]"),
        ["2026-03-01T10:20:00"],
    ),
    "pandas times": (pd.Series(pd.to_datetime(["2026-03-01T10:20"])), ["2026-03-01T10:20:00"]),
    "floats": ([1.0, 2.0], [1, 2]),
    "categories of numbers": (pd.Series([7, 9, 7], dtype="category"), [7, 9, 7]),
    "torch": (torch.tensor([2, 1]), [2, 1]),
    "pandas texts": (pd.Series(["p", "q"]), ["p", "q"]),
}


@pytest.mark.parametrize("name", _COLUMNS)
def test_slices_have_the_values_of_the_column(name: str) -> None:
    """The same values as in tables, from arrays and lists of any library."""
    given, expected = _COLUMNS[name]
    [batch] = read_batches({"x": np.zeros(len(given)), "s": given}, _SLICE)
    assert values_of(batch.columns["s"]) == expected


_WRONG: dict[str, tuple[Any, type[Exception], str]] = {
    "missing": (
        {"X": [1.0], "S": [1]},
        ValueError,
        'batches: no column "x" (input "input"); no column "s" (slices). It has: X, S',
    ),
    "missing in the second": (
        [{"x": [1.0], "s": [1]}, {"x": [1.0], "ss": [1]}],
        ValueError,
        'batches[1]: no column "s" (slices; nearest: ss). It has: x, ss',
    ),
    "text": (
        {"x": ["a"], "s": [1]},
        TypeError,
        'batches["x"]: a list of numbers was expected; it holds str',
    ),
    "masked": (
        {"x": np.ma.masked_array([1.0], [True]), "s": [1]},
        TypeError,
        (
            'batches["x"]: a masked array cannot be sent, its mask would be lost; fill it and give '
            "the masked values a sample_weight of 0"
        ),
    ),
    "lengths": (
        [{"x": [1.0, 2.0], "s": [1]}],
        ValueError,
        'batches[0]["s"]: 1 rows, and batches[0]["x"] has 2',
    ),
    "a number": (
        {"x": 1.0, "s": [1]},
        ValueError,
        'batches["x"]: its shape () has no axis for rows; give what all rows share in shared',
    ),
    "a null": (
        {"x": [1.0, 2.0], "s": ["a", None]},
        ValueError,
        f'batches["s"]: row 1 {NULL}',
    ),
    "a null of pandas": (
        {"x": [1.0, 2.0], "s": pd.Series([1, None], dtype="Int64")},
        ValueError,
        f'batches["s"]: row 1 {NULL}',
    ),
    "a category that is null": (
        {"x": [1.0, 2.0], "s": pd.Categorical(["a", None])},
        ValueError,
        f'batches["s"]: row 1 {NULL}',
    ),
    "several types": (
        {"x": [1.0, 2.0], "s": ["a", 1]},
        TypeError,
        (
            'batches["s"]: it holds values of int, str; ids, slices and clusters are integers, '
            "bools, texts or dates, all of one type"
        ),
    ),
    "an unknown type": (
        {"x": [1.0], "s": [{"a": 1}]},
        TypeError,
        (
            'batches["s"]: it holds values of dict; ids, slices and clusters are integers, bools, '
            "texts or dates, all of one type"
        ),
    ),
    "complex numbers": (
        {"x": [1.0], "s": np.array([1j])},
        TypeError,
        (
            'batches["s"]: complex128 is not accepted; ids, slices and clusters are integers, '
            "bools, texts or dates"
        ),
    ),
    "no array": (
        {"x": [1.0], "s": SimpleNamespace()},
        TypeError,
        (
            'batches["s"]: SimpleNamespace is not an array of numbers; ids, slices and clusters '
            "are integers, bools, texts or dates"
        ),
    ),
    "two axes": (
        {"x": [1.0], "s": np.zeros((1, 2), np.int64)},
        ValueError,
        'batches["s"]: one value for each row was expected, not 2 axes',
    ),
    "floats": (
        {"x": [1.0, 2.0], "s": [0.0, 0.5]},
        ValueError,
        'batches["s"]: row 1 is 0.5, which is not an integer; cut floats into ranges first',
    ),
    "large integers": (
        {"x": [1.0], "s": [2**70]},
        ValueError,
        'batches["s"]: it holds an integer that does not fit into int64',
    ),
    "half of a surrogate pair": (
        {"x": [1.0, 2.0], "s": ["a", "b\ud800"]},
        ValueError,
        "batches[\"s\"]: a text has '\\ud800', which UTF-8 does not have",
    ),
    "bytes that are no text": (
        {"x": [1.0], "s": np.array([b"\xff"])},
        ValueError,
        (
            "batches[\"s\"]: bytes that are not UTF-8: 'utf-8' codec can't decode byte 0xff in "
            "position 0: invalid start byte"
        ),
    ),
    "no rows": (
        {"x": [1.0], "s": [1], "class_weight": [1.0]},
        ValueError,
        'batches["class_weight"]: this input has no rows; give it in shared',
    ),
    "no dict": (
        [(LOGITS, TARGET)],
        TypeError,
        (
            "batches[0]: a dict of arrays, a data frame, an Arrow table or reader, a pyarrow "
            "dataset, the path of a file or folder, or an iterable of these was expected, not tuple"
        ),
    ),
    "no data": (
        7,
        TypeError,
        (
            "batches: a dict of arrays, a data frame, an Arrow table or reader, a pyarrow dataset, "
            "the path of a file or folder, or an iterable of these was expected, not int"
        ),
    ),
    "weights": (
        {"x": [1.0], "s": [1], "w": [2**60 + 1]},
        ValueError,
        'batches["w"]: holds an integer that float64 does not hold exactly; convert it to floats',
    ),
}


@pytest.mark.parametrize("name", _WRONG)
def test_a_wrong_dict_is_named(name: str) -> None:
    """The error names the batch, the item and what to do."""
    data, kind, message = _WRONG[name]
    weights = isinstance(data, dict) and "w" in data
    wanted = ColumnsWanted(
        inputs={"input": "x"},
        slices=("s",),
        sample_weight="w" if weights else None,
        shared_only=frozenset({"class_weight"}),
    )
    with pytest.raises(kind) as caught:
        list(read_batches(data, wanted))
    assert str(caught.value) == message


def test_rows_with_nulls_get_no_weight() -> None:
    """With nulls="skip" a row without a slice takes no part."""
    wanted = ColumnsWanted(inputs={"input": "x"}, slices=("s",), nulls="skip")
    rows = {"x": [1.0, 2.0, 3.0], "s": ["a", None, "b"]}
    [batch] = read_batches(rows, wanted)
    assert np.asarray(batch.sample_weight).tolist() == [1, 0, 1]
    assert values_of(batch.columns["s"]) == ["a", "a", "b"]


def test_weights_in_a_list_stay_what_they_are() -> None:
    """In float32 a small one would become 0, and its row would be ignored."""
    data = {"input": [1.0, 2.0, 3.0], "target": [0.0, 0.0, 0.0], "w": [1e-300, 0.1, 1e300]}
    [batch] = read_batches(data, ColumnsWanted(inputs={"input": "input"}, sample_weight="w"))
    assert np.asarray(batch.sample_weight).tolist() == [1e-300, 0.1, 1e300]


def test_inputs_without_rows_stay_whole() -> None:
    """An input that the loss knows to have no rows is neither counted nor cut."""
    wanted = ColumnsWanted(inputs={"input": "x", "lengths": "n"}, row_axes={"lengths": None})
    [batch] = read_batches({"x": [1.0, 2.0], "n": [5, 6, 7]}, wanted)
    assert batch.rows_between(1, 2).inputs["lengths"].tolist() == [5, 6, 7]


@pytest.mark.parametrize("rows", [0, -1])
def test_batches_have_rows(rows: int) -> None:
    """The argument is checked at once."""
    with pytest.raises(ValueError, match=f"batch_rows must be at least 1, not {rows}"):
        read_batches(_ROWS, INPUT, rows)


def test_asynchronous_iterables_are_refused() -> None:
    """They would never be read."""

    async def batches() -> AsyncIterator[dict[str, Any]]:
        yield _ROWS

    with pytest.raises(TypeError, match="batches: an asynchronous iterable is not accepted"):
        read_batches(batches(), INPUT)
