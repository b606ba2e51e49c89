"""What a summary says is what numpy says in float64 of the same row losses."""

import numpy as np
import pytest

from losswire.summaries import Column, MergeError, Settings, SummaryState, TooManyError, statistics
from losswire.v1 import summary_pb2
from tests.support.summarized import Data, summary_of

_DRAW = np.random.default_rng(7)
_COUNT = 3000
_GAMMA = _DRAW.gamma(2.0, 1.5, _COUNT)
_COUNTRY = _DRAW.integers(0, 4, _COUNT)
_NAMES = ["DE", "FR", "JP", "US"]
_WEIGHTS = _DRAW.uniform(0.2, 3.0, _COUNT)
_CLASS_WEIGHTS = np.array([0.5, 1.0, 4.0])[_DRAW.integers(0, 3, _COUNT)]
_TOLERANCE = 1e-12


def _data(kind: str) -> Data:
    match kind:
        case "plain":
            return Data(values=_GAMMA[None])
        case "far from 0":
            return Data(values=1e6 + 1e-3 * _DRAW.standard_normal((1, _COUNT)))
        case "negative":
            return Data(values=_GAMMA[None] - 3.0)
        case "weighted":
            return Data(values=_GAMMA[None], weights=_WEIGHTS)
        case "weighted, far from 0":
            values = 1e6 + 1e-3 * _DRAW.standard_normal((1, _COUNT))
            return Data(values=values, weights=_WEIGHTS)
        case "class weights":
            values = _CLASS_WEIGHTS * _GAMMA
            return Data(
                values=values[None], numerators=values[None], denominators=_CLASS_WEIGHTS[None]
            )
    raise AssertionError(kind)


_KINDS = (
    "plain",
    "far from 0",
    "weighted, far from 0",
    "negative",
    "weighted",
    "class weights",
)


@pytest.mark.parametrize("kind", _KINDS)
def test_moments_and_intervals_equal_the_formulas(kind: str) -> None:
    """Mean, sums, deviation and standard error, computed in numpy in two passes."""
    data = _data(kind)
    group = summary_of(Settings(loss="mse_loss"), data).total
    [found] = group.distributions
    values = data.values[0].astype(np.longdouble)
    weights = np.ones(_COUNT) if data.weights is None else data.weights
    above = values * weights if data.numerators is None else data.numerators[0].astype(values.dtype)
    below = weights if data.denominators is None else data.denominators[0]
    ratio = above.sum() / below.sum()
    rows = above - ratio * below
    error = np.sqrt(_COUNT / (_COUNT - 1) * (rows**2).sum()) / below.sum()
    middle = (weights * values).sum() / weights.sum()
    spread = (weights * (values - middle) ** 2).sum() / weights.sum()
    estimate = statistics.estimate(group)
    expected = {
        "sum": (found.sum, (weights * values).sum()),
        "weight": (found.weight_sum, weights.sum()),
        "squares": (found.weight_square_sum, (weights**2).sum()),
        "numerator": (found.mean_numerator, above.sum()),
        "denominator": (found.mean_denominator, below.sum()),
        "mean": (estimate.mean, ratio),
        "standard error": (estimate.standard_error, error),
        "std": (statistics.std(found), np.sqrt(_COUNT / (_COUNT - 1) * spread)),
    }
    for name, (ours, theirs) in expected.items():
        assert ours == pytest.approx(float(theirs), rel=_TOLERANCE), name
    half = 1.959963984540054 * float(error)
    assert estimate.interval() == pytest.approx((float(ratio) - half, float(ratio) + half))
    assert (found.minimum, found.maximum) == (data.values.min(), data.values.max())


@pytest.mark.parametrize("kind", ["plain", "negative", "weighted"])
@pytest.mark.parametrize("scale", [4, 6, 8])
def test_quantiles_are_within_the_stated_error(kind: str, scale: int) -> None:
    """Weighted quantiles, against the sorted values, 199 of them."""
    data = _data(kind)
    [found] = summary_of(Settings(loss="mse_loss", scale=scale), data).total.distributions
    values = data.values[0]
    weights = np.ones(_COUNT) if data.weights is None else data.weights
    order = np.argsort(values)
    cumulated = np.cumsum(weights[order])
    for share in np.linspace(0.005, 0.995, 199):
        at = np.searchsorted(cumulated, share * cumulated[-1] * (1 - 1e-14))
        exactly = values[order][at]
        error = abs(statistics.quantile(found, float(share)) - exactly)
        assert error <= statistics.accuracy_of(scale) * abs(exactly) * (1 + 1e-12)


def test_each_slice_is_the_summary_of_its_rows() -> None:
    """Two tables of one column and their cross, against summaries of the selected rows."""
    device = _DRAW.integers(5, 8, _COUNT)
    columns = {"country": Column(_COUNTRY, _NAMES), "device": Column(device)}
    tables = (("country",), ("device",), ("country", "device"))
    data = Data(values=_GAMMA[None], weights=_WEIGHTS, columns=columns)
    summary = summary_of(Settings(loss="mse_loss", tables=tables), data)
    assert [len(each.slices) for each in summary.tables] == [4, 3, 12]
    assert [list(each.labels) for each in summary.tables[1].slices] == [["5"], ["6"], ["7"]]
    for table in summary.tables:
        for group in table.slices:
            chosen = np.ones(_COUNT, bool)
            for name, label in zip(table.columns, group.labels, strict=True):
                texts = np.array([columns[name].text(row) for row in range(_COUNT)])
                chosen &= texts == label
            [found] = group.distributions
            values, weights = _GAMMA[chosen], _WEIGHTS[chosen]
            assert found.count == chosen.sum()
            assert found.mean_numerator == pytest.approx((values * weights).sum(), rel=_TOLERANCE)
            assert (found.minimum, found.maximum) == (values.min(), values.max())
            alone = summary_of(
                Settings(loss="mse_loss"), Data(values=values[None], weights=weights)
            )
            sketch = alone.total.distributions[0].sketch
            assert found.sketch.positive_indices == sketch.positive_indices
            assert found.sketch.positive_weights == pytest.approx(list(sketch.positive_weights))


def test_rows_that_are_not_finite_are_counted_apart() -> None:
    """The mean says so, and the finite rows keep their own."""
    values = np.array([[1.0, np.nan, 3.0, np.inf, -np.inf, np.nan, 5.0, 9.0]])
    counted = np.array([[True] * 7 + [False]])
    data = Data(values=values, counted=counted)
    [found] = summary_of(Settings(loss="mse_loss"), data).total.distributions
    counts = (found.count, found.ignored_count, found.nan_count)
    assert counts == (7, 1, 2)
    assert (found.positive_infinity_count, found.negative_infinity_count) == (1, 1)
    assert np.isnan(statistics.mean(found))
    assert statistics.finite_mean(found) == 3.0
    assert (found.minimum, found.maximum, found.sum) == (1.0, 5.0, 9.0)


@pytest.mark.parametrize(
    ("values", "mean"),
    [([1.0, np.inf], np.inf), ([1.0, -np.inf], -np.inf), ([np.inf, -np.inf], np.nan), ([], np.nan)],
)
def test_the_mean_is_that_of_torch(values: list[float], mean: float) -> None:
    """Infinite losses make the mean infinite, and both signs or no row NaN."""
    [found] = summary_of(
        Settings(loss="mse_loss"), Data(values=np.array([values]))
    ).total.distributions
    assert statistics.mean(found) == pytest.approx(mean, nan_ok=True)


@pytest.mark.parametrize("names", [False, True], ids=["numbers", "texts"])
def test_the_worst_rows_and_ties_by_id(names: bool) -> None:  # noqa: FBT001 (a parameter)
    """NaN first, then by value, equal values by id."""
    values = np.array([2.0, 7.0, np.nan, 7.0, 7.0, np.inf, 1.0, np.nan])
    numbers = np.array([10, 4, 30, 5, 3, 60, 70, 20])
    ids = Column(np.arange(8), [f"r{each:02}" for each in numbers]) if names else Column(numbers)
    data = Data(values=values[None], ids=ids, columns={"c": Column(np.arange(8) % 2, ["a", "b"])})
    settings = Settings(loss="mse_loss", worst=5, tables=(("c",),))
    for step in (1, 3, 8):
        worst = summary_of(settings, data, step=step).total.distributions[0].worst
        found = [each.name if names else each.number for each in worst]
        assert found == (["r20", "r30", "r60", "r03", "r04"] if names else [20, 30, 60, 3, 4])
        assert [each.row for each in worst] == [7, 2, 5, 4, 1]
        assert [dict(each.labels) for each in worst[:2]] == [{"c": "b"}, {"c": "a"}]


def test_many_equal_rows_keep_the_smallest_ids() -> None:
    """Where all rows are equal, the ids alone decide."""
    ids = _DRAW.permutation(5000)
    data = Data(values=np.zeros((1, 5000)), ids=Column(ids))
    summary = summary_of(Settings(loss="mse_loss", worst=20), data)
    assert [each.number for each in summary.total.distributions[0].worst] == list(range(20))


def test_clusters_in_any_order_and_grouped_are_the_same() -> None:
    """The clustered standard error of the formula, however the clusters come."""
    cluster = np.sort(_DRAW.integers(0, 120, _COUNT))
    below = _DRAW.uniform(0.5, 2.0, _COUNT)
    values = _GAMMA + np.repeat(_DRAW.standard_normal(120), np.bincount(cluster, minlength=120))
    above = values * below
    sums = [np.bincount(cluster, each, minlength=120) for each in (above, below)]
    ratio = above.sum() / below.sum()
    error = np.sqrt(120 / 119 * ((sums[0] - ratio * sums[1]) ** 2).sum()) / below.sum()
    for grouped in (False, True):
        data = Data(
            values=values[None],
            numerators=above[None],
            denominators=below[None],
            clusters=Column(cluster),
        )
        settings = Settings(loss="mse_loss", grouped_clusters=grouped)
        summary = summary_of(settings, data, step=17)
        estimate = statistics.estimate(summary.total)
        assert estimate.clustered
        assert estimate.count == 120
        assert estimate.standard_error == pytest.approx(error, rel=_TOLERANCE)
        assert len(summary.total.clusters.open) == (2 if grouped else 120)


def test_a_paired_difference_is_that_of_the_formula() -> None:
    """Difference, standard error, wins, ties and the rows that differ most."""
    first = _GAMMA
    second = _GAMMA + _DRAW.normal(0.02, 0.1, _COUNT)
    second[:50] = first[:50]
    data = Data(values=np.stack([first, second]), weights=_WEIGHTS)
    settings = Settings(loss="mse_loss", candidates=("a", "b"), worst=3)
    summary = summary_of(settings, data)
    found = statistics.difference(summary.total, 0, 1)
    ratios = [(each * _WEIGHTS).sum() / _WEIGHTS.sum() for each in (first, second)]
    parts = [_WEIGHTS * (each - ratio) for each, ratio in zip((first, second), ratios, strict=True)]
    error = np.sqrt(_COUNT / (_COUNT - 1) * ((parts[0] - parts[1]) ** 2).sum()) / _WEIGHTS.sum()
    assert found.mean == pytest.approx(ratios[0] - ratios[1], rel=1e-10)
    assert found.standard_error == pytest.approx(error, rel=1e-10)
    [pair] = summary.total.pairs
    assert pair.wins == np.count_nonzero(first < second)
    assert pair.ties == 50
    assert pair.wins + pair.ties + pair.losses == _COUNT
    most = np.argsort(-np.abs(first - second))[:3]
    assert [each.row for each in pair.most_different] == most.tolist()
    unpaired = statistics.estimate_of(summary.total.distributions[0]).standard_error
    assert found.standard_error < unpaired / 5


def test_a_lift_is_that_of_the_formula() -> None:
    """A slice against all rows, of which it is a part: by the influence of each row."""
    data = Data(values=_GAMMA[None], columns={"country": Column(_COUNTRY, _NAMES)})
    summary = summary_of(Settings(loss="mse_loss", tables=(("country",),)), data)
    for position, group in enumerate(summary.tables[0].slices):
        inside = position == _COUNTRY
        mine, every = _GAMMA[inside].mean(), _GAMMA.mean()
        influence = -(_GAMMA - every) / _COUNT + inside * (_GAMMA - mine) / np.count_nonzero(inside)
        error = np.sqrt(_COUNT / (_COUNT - 1) * (influence**2).sum())
        found = statistics.lift(group, summary.total)
        assert found.mean == pytest.approx(mine - every, rel=1e-10)
        assert found.standard_error == pytest.approx(error, rel=1e-10)


def test_holm_is_the_published_procedure() -> None:
    """Worked out by hand: 0.01 x 4, 0.03 x 3, then never smaller than the one before."""
    assert statistics.holm([0.03, 0.01, 0.04, 0.5]) == pytest.approx([0.09, 0.04, 0.09, 0.5])
    found = statistics.holm([0.4, float("nan"), 0.6])
    assert found == pytest.approx([0.8, float("nan"), 0.8], nan_ok=True)


def test_too_many_slices_change_nothing() -> None:
    """The batch is refused as a whole; with `other` its further slices are joined."""
    columns = {"c": Column(np.arange(6) % 3)}
    data = Data(values=np.arange(6.0)[None], columns=columns)
    settings = Settings(loss="mse_loss", tables=(("c",),), max_slices=2)
    state = SummaryState(settings)
    state.add(data.between(0, 2))
    before = state.message()
    with pytest.raises(TooManyError, match="c has more than 2 slices"):
        state.add(data.between(2, 6))
    assert state.message() == before
    other = Settings(loss="mse_loss", tables=(("c",),), max_slices=2, overflow_to_other=True)
    [table] = summary_of(other, data, step=2).tables
    assert [each.distributions[0].sum for each in table.slices] == [3.0, 5.0]
    assert table.other.distributions[0].sum == 7.0


def test_too_many_open_clusters_change_nothing() -> None:
    """Their number is bounded over all tables."""
    data = Data(values=np.arange(6.0)[None], clusters=Column(np.arange(6)))
    state = SummaryState(Settings(loss="mse_loss", max_open_clusters=4))
    state.add(data.between(0, 4))
    before = state.message()
    with pytest.raises(TooManyError, match="more than 4 clusters would be open"):
        state.add(data.between(4, 6))
    assert state.message() == before


def test_rows_are_not_counted_twice() -> None:
    """Rows of a partition that are covered are refused and named."""
    data = Data(values=np.arange(6.0)[None])
    state = SummaryState(Settings(loss="mse_loss"))
    state.add(data.between(0, 4))
    with pytest.raises(MergeError, match="rows 3 to 3 of partition 'data' would be counted twice"):
        state.add(data.between(3, 6))
    state.add(data.between(4, 6))
    assert state.message().included == [
        summary_pb2.IncludedRows(partition="data", ranges=[summary_pb2.RowRange(begin=0, end=6)])
    ]


def test_the_size_does_not_grow_with_the_rows() -> None:
    """The same distribution ten times over takes the memory of once."""
    columns = {"country": Column(np.tile(_COUNTRY, 10), _NAMES)}
    data = Data(values=np.tile(_GAMMA, 10)[None], columns=columns)
    settings = Settings(loss="mse_loss", tables=(("country",),), worst=20)
    state = SummaryState(settings)
    state.add(data.between(0, _COUNT))
    once = state.nbytes
    for first in range(_COUNT, 10 * _COUNT, _COUNT):
        state.add(data.between(first, first + _COUNT))
    assert state.nbytes <= once + 1000
