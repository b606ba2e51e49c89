"""What rows bring beside their columns: nulls, weights, candidates, axes."""

from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest

from losswire.client._data.read import read_batches
from losswire.client._data.wanted import ColumnsWanted
from tests.client.data.samples import INPUT, values_of

_SKIP = ColumnsWanted(
    inputs={"input": "x"}, slices=("s",), ids="i", sample_weight=None, nulls="skip"
)


@pytest.mark.parametrize(
    ("x", "taken"),
    [
        (pa.array([1.0, None, 3.0, 4.0, 5.0]), [1.0, 3.0, 4.0]),
        (pa.array([[1, 2], None, [3, 4], [5, 6], [0, 0]]), [[1, 2], [3, 4], [5, 6]]),
        (pa.array([[1, 2], [None, 9], [3, 4], [5, 6], [0, 0]]), [[1, 2], [3, 4], [5, 6]]),
        (
            pa.array([[1, 2], None, [3, 4], [5, 6], [0, 0]], pa.list_(pa.int64(), 2)),
            [[1, 2], [3, 4], [5, 6]],
        ),
        (
            pa.array([[1, 2], [None, 7], [3, 4], [5, 6], [0, 0]], pa.list_(pa.int64(), 2)),
            [[1, 2], [3, 4], [5, 6]],
        ),
    ],
)
def test_rows_with_nulls_get_no_weight(x: pa.Array, taken: list[Any]) -> None:
    """With nulls="skip" they stay where they are, so that the others keep their numbers."""
    rows = pa.table({"x": x, "s": ["a", "b", "a", "b", None], "i": [10, 11, 12, 13, 14]})
    [batch] = read_batches(rows, _SKIP)
    assert batch.rows == 5
    assert batch.sample_weight is not None
    assert batch.sample_weight.tolist() == [1, 0, 1, 1, 0]
    assert batch.inputs["input"][batch.sample_weight > 0].tolist() == taken
    assert values_of(batch.columns["s"])[:4] == ["a", "b", "a", "b"]
    assert values_of(batch.ids) == [10, 11, 12, 13, 14]


def test_weights_of_rows_without_nulls_stay() -> None:
    """Given weights are kept, and batches that are null from end to end are left out."""
    wanted = ColumnsWanted(inputs={"input": "x"}, sample_weight="w", nulls="skip")
    rows = pa.table({"x": [1.0, None, 3.0, None, None, None], "w": [2, 2, None, 2, 2, 2]})
    [batch] = read_batches(rows, wanted, batch_rows=3)
    assert np.asarray(batch.sample_weight).tolist() == [2, 0, 0]
    extended = pa.concat_tables([rows, pa.table({"x": [4.0], "w": [2]})])
    assert [batch.first_row for batch in read_batches(extended, wanted, batch_rows=3)] == [0, 6]


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        (pa.array([1, 0], pa.int8()), np.array([1, 0], np.float32)),
        (pa.array([True, False]), np.array([1, 0], np.float32)),
        (pa.array([2**24 + 1, 0]), np.array([2**24 + 1, 0], np.float64)),
        (pa.array([0.1, 0.2]), np.array([0.1, 0.2])),
    ],
)
def test_weights_become_floats_that_hold_them(
    weights: pa.Array, expected: npt.NDArray[Any]
) -> None:
    """Integers and bools are weights, too."""
    wanted = ColumnsWanted(inputs={"input": "x"}, sample_weight="w")
    [batch] = read_batches(pa.table({"x": [1.0, 2.0], "w": weights}), wanted)
    assert batch.sample_weight is not None
    assert batch.sample_weight.dtype == expected.dtype
    assert batch.sample_weight.tolist() == expected.tolist()


def test_candidates_have_columns_of_their_own() -> None:
    """Each candidate's inputs come in the order of the candidates; others are shared."""
    wanted = ColumnsWanted(
        inputs={"target": "y"},
        candidates={"old": {"input": "p"}, "new": {"input": "q"}},
    )
    [batch] = read_batches(pa.table({"p": [1.0], "q": [2.0], "y": [3]}), wanted)
    assert batch.inputs["target"].tolist() == [3]
    assert [each["input"].tolist() for each in batch.candidates] == [[1.0], [2.0]]


def test_optional_inputs_are_taken_where_they_are() -> None:
    """An input that a loss can do without is read from the data that has it."""
    wanted = ColumnsWanted(inputs={"input": "x"}, optional={"weight": "weight"})
    [batch] = read_batches(pa.table({"x": [1.0]}), wanted)
    assert set(batch.inputs) == {"input"}
    [batch] = read_batches(pa.table({"x": [1.0], "weight": [2.0]}), wanted)
    assert set(batch.inputs) == {"input", "weight"}


def test_rows_may_have_another_axis() -> None:
    """Where a loss has its rows in the second axis, a table's rows are put there."""
    wanted = ColumnsWanted(inputs={"log_probs": "x"}, row_axes={"log_probs": 1})
    frames = np.arange(24.0).reshape(2, 4, 3)
    rows = pa.table({"x": pa.FixedShapeTensorArray.from_numpy_ndarray(frames)})
    [batch] = read_batches(rows, wanted)
    assert batch.inputs["log_probs"].shape == (4, 2, 3)
    second = batch.rows_between(1, 2)
    np.testing.assert_array_equal(second.inputs["log_probs"][:, 0], frames[1])


def test_bfloat16_is_not_lost() -> None:
    """Arrays of types that only other libraries know come through dicts of arrays."""
    [batch] = read_batches({"x": np.ones(2, ml_dtypes.bfloat16)}, INPUT)
    assert batch.inputs["input"].dtype == ml_dtypes.bfloat16
