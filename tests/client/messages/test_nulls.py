"""Missing values: one rule for the columns and tables of all libraries."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from losswire.client import Client
from tests.support.scripted import Scripted

_MISSING: dict[str, Callable[[], Any]] = {
    "numpy": lambda: np.ma.masked_array([1.0, 2.0], [False, True]),
    "pandas Float64": lambda: pd.Series([1.0, None], dtype="Float64"),
    "pandas Int64": lambda: pd.Series([1, None], dtype="Int64"),
    "pandas boolean": lambda: pd.array([True, None], dtype="boolean"),
    "pandas of Arrow": lambda: pd.Series([1, None], dtype="int64[pyarrow]"),
    "pandas Categorical": lambda: pd.Categorical([1, None]),
    "pandas table": lambda: pd.DataFrame({"a": pd.array([1, None], dtype="Int64"), "b": [1, 2]}),
    "Polars Float64": lambda: pl.Series([1.0, None]),
    "Polars Int64": lambda: pl.Series([1, None]),
    "Polars Array": lambda: pl.Series([[1.0, None]], dtype=pl.Array(pl.Float64, 2)),
    "Polars table": lambda: pl.DataFrame({"a": [1.0, None]}),
    "pyarrow": lambda: pa.array([1.0, None]),
    "pyarrow chunks": lambda: pa.chunked_array([[1.0], [None]]),
    "pyarrow table": lambda: pa.table({"a": [1, None]}),
    "pyarrow batch": lambda: pa.record_batch({"a": [1, None]}),
    "a list of columns": lambda: [pl.Series([1.0, None]), pl.Series([1.0, 2.0])],
}


@pytest.mark.parametrize("name", _MISSING)
def test_missing_values_are_refused(echoing: Scripted, name: str) -> None:
    """None becomes NaN without a word, whatever library it comes from; no call is made."""
    with Client(echoing.address) as client, pytest.raises(TypeError) as caught:
        client.evaluate("any", {"target": _MISSING[name]()})
    assert str(caught.value).startswith('inputs["target"]: ')
    assert "sample_weight of 0" in str(caught.value)
    assert echoing.evaluations == []


_COMPLETE: dict[str, Callable[[], Any]] = {
    "numpy": lambda: np.ma.masked_array([1.0, 2.0]),
    "pandas": lambda: pd.Series([1.0, 2.0]),
    "pandas Float64": lambda: pd.Series([1.0, 2.0], dtype="Float64"),
    "pandas of Arrow": lambda: pd.Series([1.0, 2.0], dtype="float64[pyarrow]"),
    "Polars": lambda: pl.Series([1.0, 2.0]),
    "pyarrow": lambda: pa.array([1.0, 2.0]),
    "pyarrow chunks": lambda: pa.chunked_array([[1.0], [2.0]]),
}


@pytest.mark.parametrize("name", _COMPLETE)
def test_columns_without_missing_values_are_sent(echoing: Scripted, name: str) -> None:
    """The types that can have nulls are as good as any other when they have none."""
    with Client(echoing.address) as client:
        result = client.evaluate("any", {"x": _COMPLETE[name]()}, gradients=["x"])
    assert result.gradients["x"].tolist() == [1.0, 2.0]


@pytest.mark.parametrize("make", [pd.Series, pl.Series, pa.array])
def test_nan_is_a_number(echoing: Scripted, make: Callable[[list[float]], Any]) -> None:
    """It is sent like any other, from the libraries that tell it from a null."""
    with Client(echoing.address) as client:
        result = client.evaluate("any", {"x": make([1.0, float("nan")])}, gradients=["x"])
    assert np.isnan(result.gradients["x"]).tolist() == [False, True]
