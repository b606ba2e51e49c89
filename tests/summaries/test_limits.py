"""What is refused changes nothing, memory stays bounded, and what is empty fits to everything."""

from itertools import pairwise

import numpy as np
import pytest

from losswire.summaries import (
    Column,
    MergeError,
    Rows,
    Settings,
    SummaryState,
    TooManyError,
    merge,
    statistics,
)
from losswire.v1 import summary_pb2
from tests.support.summarized import Data, summary_of

_SLICED = Settings(loss="mse_loss", tables=(("c",),))


def _slices(first: int, count: int, row: int, settings: Settings) -> summary_pb2.LossSummary:
    """Summarize a row for each of some slices."""
    state = SummaryState(settings)
    codes = np.arange(first, first + count)
    state.add(Rows(values=np.ones((1, count)), columns={"c": Column(codes)}, first_row=row))
    return state.message()


def test_sketches_of_many_slices_stay_small() -> None:
    """Losses of all magnitudes in each of 4096 slices lower the scale before memory is taken."""
    count = 4096
    values = np.tile([5e-324, 1e308, -1.0, -1e-300], count // 4)[None]
    settings = Settings(loss="mse_loss", tables=(("c",),), scale=8)
    data = Data(values=values, columns={"c": Column(np.arange(count))})
    state = SummaryState(settings)
    state.add(data.between(0, count))
    assert state.nbytes < 100 << 20
    one_by_one = SummaryState(settings)
    for first in range(0, count, 1024):
        one_by_one.add(data.between(first, first + 1024))
    halves = [summary_of(settings, data, *each) for each in ((2048, count), (0, 2048))]
    for other in (one_by_one.message(), merge(halves)):
        assert other.tables == state.message().tables
    # One group alone has room for its finest scale.
    assert state.message().total.distributions[0].sketch.scale == 8


def test_a_cross_of_many_columns_has_the_labels_of_its_rows() -> None:
    """The products of the numbers of labels, 20 in each of 16 columns, are beyond int64."""
    names = tuple(f"c{each}" for each in range(16))
    codes = np.random.default_rng(0).integers(0, 20, (len(names), 300))
    columns = {name: Column(each) for name, each in zip(names, codes, strict=True)}
    state = SummaryState(Settings(loss="mse_loss", tables=(names,)))
    state.add(Rows(values=np.ones((1, 300)), columns=columns))
    [table] = state.message().tables
    found = [tuple(map(int, each.labels)) for each in table.slices]
    assert sorted(found) == sorted(map(tuple, codes.T.tolist()))


def test_a_sketch_beyond_float64_is_refused_before_memory_is_taken() -> None:
    """The largest bucket depends on the scale."""
    message = summary_of(_SLICED, Data(values=np.ones((1, 4)), columns={"c": Column(np.arange(4))}))
    sketch = message.tables[0].slices[0].distributions[0].sketch
    sketch.scale = -4
    sketch.positive_indices[0] = 1 << 19
    with pytest.raises(MergeError, match="a bucket beyond those of float64"):
        merge([message])


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_summary_without_rows_fits_to_clusters(place: int) -> None:
    """An empty partition says nothing of clusters."""
    settings = Settings(loss="mse_loss")
    data = Data(values=np.arange(6.0)[None], clusters=Column(np.arange(6) // 2))
    parts = [summary_of(settings, data, 0, 3), summary_of(settings, data, 3, 6)]
    whole = merge(parts)
    parts.insert(place, SummaryState(settings).message())
    assert merge(parts) == whole
    state = SummaryState(settings)
    state.message()
    state.add(data.between(0, 6))
    assert state.message().clustered


def test_a_merge_that_is_refused_changes_nothing() -> None:
    """Neither the total nor the tables before the one with too many slices."""
    limited = Settings(loss="mse_loss", tables=(("c",),), max_slices=3)
    state = SummaryState.resume(_slices(0, 2, 0, limited), limited)
    before = state.message()
    with pytest.raises(TooManyError, match="c has more than 3 slices"):
        state.merge(_slices(2, 2, 2, limited))
    assert state.message() == before
    state.merge(_slices(1, 2, 2, limited))
    assert state.message().total.distributions[0].count == 4


@pytest.mark.parametrize("reverse", [False, True])
def test_slices_beyond_the_limit_are_joined_in_either_order(reverse: bool) -> None:  # noqa: FBT001
    """Where one summary has other slices, the merged one may have them."""
    joining = Settings(loss="mse_loss", tables=(("c",),), overflow_to_other=True)
    parts = [_slices(0, 4096, 0, _SLICED), _slices(4000, 4100, 5000, joining)]
    assert parts[1].tables[0].HasField("other")
    [table] = merge(parts[::-1] if reverse else parts).tables
    counts = [each.distributions[0].count for each in (*table.slices, table.other)]
    assert len(counts) == 4097
    assert sum(counts) == 4096 + 4100


def test_open_clusters_are_counted_in_each_slice() -> None:
    """A cluster with rows in three slices is open in the total and in each of them."""
    data = Data(
        values=np.arange(6.0)[None],
        clusters=Column(np.array([1, 1, 1, 1, 2, 2])),
        columns={"c": Column(np.array([0, 1, 2, 0, 0, 1]))},
    )
    exactly = Settings(loss="mse_loss", tables=(("c",),), max_open_clusters=7)
    assert len(summary_of(exactly, data, step=6).total.clusters.open) == 2
    one_less = Settings(loss="mse_loss", tables=(("c",),), max_open_clusters=6)
    state = SummaryState(one_less)
    state.add(data.between(0, 4))
    before = state.message()
    with pytest.raises(TooManyError, match="more than 6 clusters would be open"):
        state.add(data.between(4, 6))
    assert state.message() == before


def test_denominators_of_0_in_the_first_rows_keep_the_variance() -> None:
    """Moments are measured from the mean of the first rows that have one."""
    draw = np.random.default_rng(5)
    values = 1e6 + 1e-3 * draw.standard_normal((1, 500))
    below = np.ones((1, 500))
    below[:, :100] = 0
    data = Data(values=values, numerators=values * below, denominators=below)
    settings = Settings(loss="mse_loss")
    parts = [summary_of(settings, data, 0, 50, step=50), summary_of(settings, data, 50, 500)]
    rest = values[0, 100:]
    error = np.sqrt(500 / 499 * ((rest - rest.mean()) ** 2).sum()) / 400
    for order in (parts, parts[::-1], [summary_of(settings, data, step=50)]):
        [found] = merge(order).total.distributions
        assert statistics.estimate_of(found).standard_error == pytest.approx(error, rel=1e-6)
        assert statistics.std(found) == pytest.approx(values.std(ddof=1), rel=1e-9)


def test_pairs_have_the_rows_that_are_finite_in_both() -> None:
    """A third candidate without a finite loss takes no row away from the other two."""
    values = np.array([[1.0, 2.0, 3.0, np.nan], [2.0, 2.0, 1.0, 5.0], [np.nan, 1.0, np.inf, 4.0]])
    settings = Settings(loss="mse_loss", candidates=("a", "b", "c"), worst=2)
    summary = summary_of(settings, Data(values=values), step=4)
    outcomes = [(each.wins, each.ties, each.losses) for each in summary.total.pairs]
    assert outcomes == [(1, 1, 1), (0, 0, 1), (0, 0, 2)]
    rows = [[each.row for each in pair.most_different] for pair in summary.total.pairs]
    assert rows == [[2, 0], [1], [1, 3]]
    assert summary.total.joint.weight == 1


def test_a_light_part_with_a_large_mean_does_not_spoil_the_mean() -> None:
    """Merging is exact whichever side is the heavier one."""
    settings = Settings(loss="mse_loss")
    data = Data(values=np.array([[1e15, 1.0, 3.0]]), weights=np.array([1e-15, 1.0, 1.0]))
    for parts in ([0, 1, 3], [0, 2, 3]):
        pieces = [summary_of(settings, data, a, b) for a, b in pairwise(parts)]
        for order in (pieces, pieces[::-1]):
            [found] = merge(order).total.distributions
            mean = found.origin + found.values.means[0]
            assert mean == pytest.approx(2.5, rel=1e-12)
