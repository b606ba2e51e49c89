"""The memory of a summary is known before it is taken."""

from typing import Any

import numpy as np
import pytest

from losswire.summaries import Column, MemoryNeededError, Rows, Settings, SummaryState

_ROWS = 80


def _rows(batch: int, width: int, **fields: Any) -> Rows:  # noqa: ANN401 (fields of Rows)
    """Draw losses that spread the more the later the batch is, in slices of two columns."""
    rng = np.random.default_rng(batch)
    values = np.exp(rng.normal(0, 1 + 20 * batch, (width, _ROWS)))
    signs = rng.choice([-1, 1], values.shape) if batch > 1 else 1
    columns = {
        "number": Column(rng.integers(0, 500, _ROWS)),
        "text": Column(rng.integers(0, 2, _ROWS), ["é" * 400, "b" * 1000]),
    }
    return Rows(values=values * signs, columns=columns, first_row=batch * _ROWS, **fields)


@pytest.mark.parametrize("width", [1, 3])
@pytest.mark.parametrize("clustered", [False, True])
def test_rows_are_added_only_within_a_limit(width: int, clustered: bool) -> None:  # noqa: FBT001
    """What is said to be needed is enough, and nothing changes before it is there."""
    settings = Settings(
        loss="mse_loss",
        candidates=tuple("abc"[:width]) if width > 1 else (),
        tables=(("number",), ("text",), ("number", "text")),
        scale=8,
        worst=50,
    )
    state, free = SummaryState(settings), SummaryState(settings)
    limit = 0
    for batch in range(4):
        clusters = Column(np.arange(_ROWS), ["c" * 900 + str(each) for each in range(_ROWS)])
        rows = _rows(batch, width, clusters=clusters if clustered else None)
        before = state.message()
        if batch in (0, 2):
            with pytest.raises(MemoryNeededError) as refused:
                state.add(rows, limit)
            assert batch == 0 or state.message() == before
            assert refused.value.needed_bytes > limit
            limit = refused.value.needed_bytes
        state.add(rows, limit if batch in (0, 2) else None)
        limit = max(limit, state.nbytes)
        free.add(rows)
        assert state.nbytes <= limit
        assert state.message() == free.message()
    assert state.nbytes > limit / 4
    message = state.message()
    with pytest.raises(MemoryNeededError) as refused:
        SummaryState.resume(message, settings, limit_bytes=1000)
    needed = refused.value.needed_bytes
    resumed = SummaryState.resume(message, settings, limit_bytes=needed)
    assert needed / 4 < resumed.nbytes <= needed


def test_worst_rows_with_long_labels_are_counted() -> None:
    """1000 rows with 20 labels of 1000 bytes each are 20 MB."""
    names = [f"column {each}" for each in range(20)]
    label = Column(np.zeros(1000, np.int64), ["x" * 1000])
    settings = Settings(loss="mse_loss", tables=tuple((each,) for each in names), worst=1000)
    state = SummaryState(settings)
    rows = Rows(values=np.ones((1, 1000)), columns=dict.fromkeys(names, label))
    with pytest.raises(MemoryNeededError):
        state.add(rows, 20_000_000)
    assert not state.rows
    state.add(rows)
    assert state.nbytes > 20_000_000
