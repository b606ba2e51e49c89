"""Sketches of values of very different magnitudes stay small, also while they grow."""

import tracemalloc

import numpy as np
import pytest

from losswire.summaries import Column, Rows, Settings, SummaryState, merge
from losswire.v1 import summary_pb2

_MIB = 1 << 20
_SETTINGS = Settings(loss="l1_loss", tables=(("c",),), scale=8)
_WIDE = np.array([[1e-300, 1e300]])


def _state(*batches: tuple[np.ndarray, np.ndarray], first: int = 0) -> SummaryState:
    state = SummaryState(_SETTINGS)
    for values, codes in batches:
        state.add(Rows(values=values, columns={"c": Column(codes)}, first_row=first + state.rows))
    return state


_ONE = (_WIDE, np.zeros(2, np.int64))
_MANY = (np.tile(_WIDE, 4000), np.arange(8000) // 2)


@pytest.mark.parametrize("batches", [[_MANY], [_ONE, _MANY], [_MANY, _ONE]], ids=len)
def test_many_slices_of_wide_values(batches: list[tuple[np.ndarray, np.ndarray]]) -> None:
    """No array is allocated for all buckets between the values, of all slices."""
    tracemalloc.start()
    try:
        state = _state(*batches)
        message = state.message()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 512 * _MIB
    [table] = message.tables
    assert len(table.slices) == 4000
    for each in table.slices[::500]:
        [found] = each.distributions
        assert sum(found.sketch.positive_weights) == found.count


def _scales(message: summary_pb2.LossSummary) -> set[int]:
    return {each.distributions[0].sketch.scale for each in message.tables[0].slices}


def test_wide_summaries_merge_in_any_order() -> None:
    """The scale that is left depends on the rows alone."""
    whole = _state(_ONE, _MANY).message()
    first, second = _state(_ONE).message(), _state(_MANY, first=2).message()
    merged, reverse = merge([first, second]), merge([second, first])
    assert _scales(whole) == _scales(merged) == _scales(reverse)
    assert len(_scales(whole)) == 1
    for one, other in zip(merged.tables[0].slices, reverse.tables[0].slices, strict=True):
        assert one.distributions[0].sketch == other.distributions[0].sketch
