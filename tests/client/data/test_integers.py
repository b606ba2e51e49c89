"""Integers of tables become types that the loss takes, where no number changes."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest

from losswire.client._data.read import read_batches
from losswire.client._data.wanted import ColumnsWanted

_FLOATS = frozenset({"float32", "float64"})
_REGRESSION = ColumnsWanted(
    inputs={"input": "x", "target": "y"}, types={"input": _FLOATS, "target": _FLOATS}
)
_CLASSES = ColumnsWanted(
    inputs={"input": "x", "target": "y"},
    types={"input": _FLOATS, "target": frozenset({"int64", "uint8", "float32"})},
)

_CASES: Mapping[str, tuple[ColumnsWanted, str, str, str]] = {
    "numbers become the type of the other input": (_REGRESSION, "float64", "int64", "float64"),
    "and are no more precise than that": (_REGRESSION, "float32", "int64", "float32"),
    "there is no other type": (_REGRESSION, "int64", "int64", "float32"),
    "masks are numbers": (_REGRESSION, "float32", "bool", "float32"),
    "floats stay": (_REGRESSION, "float32", "float64", "float64"),
    "classes become the widest": (_CLASSES, "float32", "int32", "int64"),
    "what the loss takes stays": (_CLASSES, "float32", "uint8", "uint8"),
    "masks are no classes": (_CLASSES, "float32", "bool", "bool"),
}


def _target(wanted: ColumnsWanted, x: npt.ArrayLike, y: npt.ArrayLike) -> npt.NDArray[np.generic]:
    [batch] = read_batches(pd.DataFrame({"x": x, "y": y}), wanted)
    return batch.inputs["target"]


@pytest.mark.parametrize("case", _CASES)
def test_columns_have_a_type_of_the_loss(case: str) -> None:
    """With the same numbers."""
    wanted, type_of_input, given, expected = _CASES[case]
    found = _target(wanted, np.ones(3, type_of_input), np.array([0, 1, 1], given))
    assert found.dtype == expected
    assert found.tolist() == [0, 1, 1]


def test_no_number_changes_unnoticed() -> None:
    """One that float32 does not hold becomes float64; one that no type holds is an error."""
    ones = np.ones(2, np.float32)
    found = _target(_REGRESSION, ones, [2**24 + 1, 0])
    assert found.dtype == np.float64
    assert found.tolist() == [2**24 + 1, 0]
    with pytest.raises(ValueError, match=r'column "y": .*float64 does not hold exactly'):
        _target(_REGRESSION, ones, [2**53 + 1, 0])


def test_arrays_keep_their_types() -> None:
    """In a dict, as in an evaluation."""
    batches = [{"x": np.ones(2, np.float32), "y": np.array([0, 1])}]
    [batch] = read_batches(batches, _REGRESSION)
    assert batch.inputs["target"].dtype == np.int64
