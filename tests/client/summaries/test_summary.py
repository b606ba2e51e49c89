"""What a summary says, against numpy on the same row losses."""

import json
import math
import pickle
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from losswire import summaries
from losswire.client import RowLoss, Statistics, Summary
from losswire.v1 import evaluation_pb2, summary_pb2

Array = npt.NDArray[np.float64]

_RNG = np.random.default_rng(3)
_VALUES = _RNG.gamma(2.0, 1.0, 1000)
_WEIGHTS = _RNG.random(1000)
_COUNTRY = _RNG.integers(0, 3, 1000)
_YEAR = 2020 + _RNG.integers(0, 2, 1000)
_NAMES = ("Germany", "France", "Poland")


def _message(
    values: npt.ArrayLike,
    *,
    loss: str = "mse_loss",
    partition: str = "p",
    weights: Array | None = None,
    counted: Sequence[bool] | None = None,
    ids: summaries.Column | None = None,
    **settings: Any,  # noqa: ANN401 - of any field of the settings
) -> summary_pb2.LossSummary:
    losses = np.atleast_2d(np.asarray(values, np.float64))
    state = summaries.SummaryState(summaries.Settings(loss=loss, **settings))
    rows = losses.shape[1]
    columns = {
        "country": summaries.Column(_COUNTRY[:rows], _NAMES),
        "year": summaries.Column(_YEAR[:rows]),
    }
    state.add(
        summaries.Rows(
            values=losses,
            weights=weights,
            counted=None if counted is None else np.atleast_2d(counted),
            columns=columns,
            ids=ids,
            partition=partition,
        )
    )
    return state.message()


def _summary(values: npt.ArrayLike, **fields: Any) -> Summary:  # noqa: ANN401 - as above
    return Summary(_message(values, **fields))


_TABLES = (("country",), ("country", "year"))


@pytest.fixture(scope="module")
def weighted() -> Summary:
    """A summary with weights, slices, a cross and worst rows."""
    return _summary(_VALUES, weights=_WEIGHTS, tables=_TABLES, worst=3)


def test_the_figures_are_those_of_numpy(weighted: Summary) -> None:
    """Mean, deviation, sums, extremes; the interval is that of a ratio of sums."""
    mean = np.average(_VALUES, weights=_WEIGHTS)
    n = len(_VALUES)
    error = math.sqrt(
        n / (n - 1) * np.sum((_WEIGHTS * (_VALUES - mean)) ** 2) / _WEIGHTS.sum() ** 2
    )
    assert weighted.count == n
    assert weighted.mean == weighted.finite_mean == pytest.approx(mean, rel=1e-12)
    assert weighted.standard_error == pytest.approx(error, rel=1e-12)
    low, high = weighted.interval(0.9)
    assert (low, high) == pytest.approx((mean - 1.6448536 * error, mean + 1.6448536 * error))
    assert weighted.weight_sum == pytest.approx(_WEIGHTS.sum(), rel=1e-12)
    assert weighted.sum == pytest.approx(np.sum(_WEIGHTS * _VALUES), rel=1e-12)
    assert (weighted.minimum, weighted.maximum) == (_VALUES.min(), _VALUES.max())
    assert not weighted.small
    assert not weighted.clustered


def test_quantiles_are_within_the_accuracy() -> None:
    """One share gives a number, a list of them a list."""
    summary = _summary(_VALUES)
    shares = [0.0, 0.1, 0.5, 0.9, 0.99, 1.0]
    exact = np.quantile(_VALUES, shares, method="inverted_cdf")
    assert summary.quantile(shares) == pytest.approx(exact.tolist(), rel=summary.accuracy)
    assert summary.quantile(0.5) == summary.quantile(shares)[2]
    assert summary.accuracy < 0.01
    with pytest.raises(ValueError, match="quantile"):
        summary.quantile(1.5)


def test_slices_are_mappings(weighted: Summary) -> None:
    """By column and label, in ascending order; numbers are taken for their texts."""
    country = weighted.slices["country"]
    assert list(weighted.slices) == ["country", "country×year"]
    assert list(country) == sorted(_NAMES)
    chosen = _COUNTRY == 1
    expected = np.average(_VALUES[chosen], weights=_WEIGHTS[chosen])
    assert country["France"].mean == pytest.approx(expected, rel=1e-12)
    assert isinstance(country["France"], Statistics)
    cross = weighted.slices["country", "year"]
    assert cross is weighted.slices["country×year"]
    chosen &= _YEAR == 2021
    assert cross["France", 2021].count == chosen.sum()
    assert cross["France×2021"].count == chosen.sum()
    assert len(cross) == 6
    missing: object = ("France", 2022)
    assert missing not in cross
    assert country.other is None
    assert country.columns == ("country",)


@pytest.mark.parametrize(
    ("column", "label", "text"),
    [
        ("contry", "France", "no slices by 'contry'; nearest: country"),
        ("country", "Frace", "no slice 'Frace' of country; nearest: France"),
        ("country×year", "France×22", "no slice 'France×22' of country×year; nearest: France×20"),
    ],
)
def test_a_missing_slice_is_named(weighted: Summary, column: str, label: str, text: str) -> None:
    """With those that are like it."""
    with pytest.raises(KeyError, match=text):
        weighted.slices[column][label]


def test_labels_with_a_cross_in_them_stay_apart() -> None:
    """Two slices, and two tables, whose texts are the same have their own figures."""
    labels = {"a": ["x×y", "x"], "b": ["z", "y×z"], "a×b": ["p", "p"]}
    columns = {name: summaries.Column(np.arange(2), found) for name, found in labels.items()}
    tables = (("a", "b"), ("a×b",))
    state = summaries.SummaryState(summaries.Settings(loss="mse_loss", tables=tables))
    state.add(summaries.Rows(values=np.array([[1.0, 3.0]]), columns=columns))
    found = Summary(state.message())
    assert [len(each) for each in found.slices.values()] == [2, 1]
    table = found.slices["a", "b"]
    assert table["x×y", "z"].mean == 1.0
    assert table["x", "y×z"].mean == 3.0
    assert sorted(each.mean for each in table.values()) == [1.0, 3.0]
    assert [(each.lift, each.statistics.mean) for each in table.by_lift()] == [(1, 3), (-1, 1)]


def test_lifts_are_sorted_and_corrected() -> None:
    """The slice that is worse than the others comes first, and its p value is the smallest."""
    values = _VALUES + np.where(_COUNTRY == 2, 1.0, 0.0)
    lifts = _summary(values, tables=_TABLES).slices["country"].by_lift()
    assert [each.lift for each in lifts] == sorted((each.lift for each in lifts), reverse=True)
    first = lifts[0]
    assert first.label == "Poland"
    assert first.lift == pytest.approx(values[_COUNTRY == 2].mean() - values.mean(), rel=1e-12)
    assert first.interval[0] < first.lift < first.interval[1]
    p_values = sorted(each.p_value for each in lifts)
    assert first.p_value == p_values[0]
    assert first.p_adjusted == pytest.approx(min(1, 3 * p_values[0]))
    assert not first.small


def test_worst_rows_are_dataclasses(weighted: Summary) -> None:
    """With id, value, weight and labels."""
    at = int(_VALUES.argmax())
    assert weighted.worst[0] == RowLoss(
        id=None,
        partition="p",
        row=at,
        value=_VALUES[at],
        values=(_VALUES[at],),
        weight=_WEIGHTS[at],
        labels={"country": _NAMES[_COUNTRY[at]], "year": str(_YEAR[at])},
    )
    named = _summary([1.0, 2.0], ids=summaries.Column(np.array([1, 0]), ["x", "y"]), worst=1)
    numbered = _summary([1.0, 2.0], ids=summaries.Column(np.array([7, 8])), worst=1)
    assert (named.worst[0].id, numbered.worst[0].id) == ("x", 8)


_FIGURES: Mapping[str, tuple[str, float, Mapping[str, float]]] = {
    "categorical": (
        "cross_entropy",
        math.log(50),
        {"perplexity": 50, "bits_per_dimension": math.log2(50)},
    ),
    "nll": ("nll_loss", 1.0, {"perplexity": math.e, "bits_per_dimension": 1 / math.log(2)}),
    "binary": ("binary_cross_entropy_with_logits", math.log(2), {"bits_per_dimension": 1.0}),
    "squares": ("mse_loss", 9.0, {"rmse": 3.0}),
    "another": ("l1_loss", 9.0, {}),
    "overflow": (
        "cross_entropy",
        1000.0,
        {"perplexity": math.inf, "bits_per_dimension": 1000 / math.log(2)},
    ),
}


@pytest.mark.parametrize("case", _FIGURES)
def test_derived_figures(case: str) -> None:
    """A loss has those that mean something, and the others say which losses have them."""
    loss, value, expected = _FIGURES[case]
    summary = _summary([value, value], loss=loss)
    for name in ("perplexity", "rmse", "bits_per_dimension"):
        if name in expected:
            assert getattr(summary, name) == pytest.approx(expected[name])
            low, high = summary.derived_figures[name][1]
            assert low == high == getattr(summary, name)
        else:
            with pytest.raises(ValueError, match=f"{loss} has no {name}; these have: "):
                getattr(summary, name)
    assert set(summary.derived_figures) == set(expected)


_NOT_FINITE: Mapping[str, tuple[list[float], float, float, int, int, str]] = {
    "nan": ([1, math.nan, 3], math.nan, 2.0, 1, 0, "1 with the loss NaN"),
    "infinite": ([1, math.inf, 3], math.inf, 2.0, 0, 1, "1 with an infinite loss"),
    "both infinities": ([-math.inf, math.inf], math.nan, math.nan, 0, 2, "2 with an infinite"),
}


@pytest.mark.parametrize("case", _NOT_FINITE)
def test_losses_that_are_not_finite(case: str) -> None:
    """The mean is torch's; the finite rows have their own, and words say so."""
    values, mean, finite, nans, infinite, words = _NOT_FINITE[case]
    summary = _summary(values)
    assert summary.mean == pytest.approx(mean, nan_ok=True)
    assert summary.finite_mean == pytest.approx(finite, nan_ok=True)
    assert (summary.nan_count, summary.infinite_count) == (nans, infinite)
    assert math.isnan(summary.standard_error)
    assert words in repr(summary)
    json.dumps(summary.to_dict(), allow_nan=False)


def test_ignored_rows_take_no_part() -> None:
    """They are counted apart."""
    summary = _summary([1.0, 5.0, 3.0], counted=[True, False, True])
    assert (summary.count, summary.ignored_count, summary.rows, summary.mean) == (2, 1, 3, 2.0)
    assert "1 ignored" in repr(summary)


def test_it_is_short_and_readable() -> None:
    """In a console, and in a notebook."""
    summary = _summary(np.arange(1000.0) % 2, tables=(("country",),))
    assert repr(summary) == (
        "<Summary of mse_loss: 1,000 rows, mean 0.5 (95 % 0.468995 to 0.531005)>"
    )
    assert "Slices by country" in summary._repr_html_()
    assert "too few for the normal law" in repr(_summary([1.0, 2.0]))


def test_to_dict_is_json(weighted: Summary) -> None:
    """With every figure, and numbers as they are."""
    found = json.loads(json.dumps(weighted.to_dict(), allow_nan=False))
    assert found["mean"] == weighted.mean
    assert found["interval"] == list(weighted.interval())
    assert found["rmse"] == weighted.rmse
    assert found["included"] == {"p": [[0, 1000]]}
    assert found["slices"]["country"][0] == {
        "label": "France",
        **weighted.slices["country"]["France"].to_dict(),
    }
    assert found["worst"][0]["row"] == int(_VALUES.argmax())
    assert _summary([math.nan, math.inf]).to_dict()["mean"] == "NaN"
    assert _summary([math.inf]).to_dict()["mean"] == "Infinity"


def test_to_frame_has_a_row_for_each_slice(weighted: Summary) -> None:
    """And one for all rows, first."""
    frame = weighted.to_frame()
    assert frame[["table", "label"]].values.tolist()[:2] == [["", ""], ["country", "France"]]
    assert len(frame) == 1 + 3 + 6
    assert frame["mean"][0] == weighted.mean
    assert frame["q0.5"][1] == weighted.slices["country"]["France"].quantile(0.5)


def test_bytes_are_the_state(weighted: Summary) -> None:
    """They come back as an equal state, and equal states have equal bytes."""
    saved = weighted.to_bytes()
    again = Summary.from_bytes(saved)
    assert again == weighted
    assert again.to_bytes() == saved
    assert again.slices["country"]["Poland"].std == weighted.slices["country"]["Poland"].std


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"\xff\xff", "no summary"),
        (b"", "these bytes are no summary: loss: is empty"),
        (_message([[1.0], [2.0]], candidates=("a", "b")).SerializeToString(), "of a Comparison"),
    ],
)
def test_other_bytes_are_refused(data: bytes, text: str) -> None:
    """With the reason."""
    with pytest.raises(ValueError, match=text):
        Summary.from_bytes(data)


def test_a_summary_is_pickled_after_it_was_looked_at(weighted: Summary) -> None:
    """As a pool of processes does with what it returns."""
    assert len(weighted.slices["country"]) == 3
    copy = pickle.loads(pickle.dumps(weighted))  # noqa: S301 (made just above)
    assert copy == weighted
    assert copy.slices["country"]["France"].mean == weighted.slices["country"]["France"].mean


def test_parts_merge_to_the_whole() -> None:
    """Whatever their order; the same rows twice and another loss are refused."""
    one = _summary(_VALUES[:500], partition="one")
    other = _summary(_VALUES[500:], partition="other")
    whole = Summary.merge(iter([other, one]))
    assert whole.mean == pytest.approx(_VALUES.mean(), rel=1e-12)
    assert whole.included == {"one": [(0, 500)], "other": [(0, 500)]}
    assert whole.quantile(0.5) == _summary(_VALUES).quantile(0.5)
    with pytest.raises(ValueError, match="partition 'one' would be counted twice"):
        Summary.merge([one, whole])
    with pytest.raises(ValueError, match="the loss differ"):
        Summary.merge([one, _summary([1.0], loss="l1_loss", partition="x")])
    with pytest.raises(ValueError, match="no summary to merge"):
        Summary.merge([])
    with pytest.raises(TypeError, match="expected a Summary, got bytes"):
        Summary.merge([one.to_bytes()])  # type: ignore[list-item]


def test_facts_of_the_computation() -> None:
    """Options and receipts are those of the message."""
    message = _message([1.0])
    message.options["label_smoothing"].double_value = 0.1
    message.receipts.append(evaluation_pb2.Receipt(device="cpu", engine="autograd"))
    summary = Summary(message)
    assert summary.options == {"label_smoothing": 0.1}
    assert summary.receipts[0].engine == "autograd"
    assert summary.loss == "mse_loss"


def test_an_empty_summary_has_figures() -> None:
    """None of them is a number, and none is an error."""
    state = summaries.SummaryState(summaries.Settings(loss="mse_loss"))
    summary = Summary(state.message())
    assert (summary.count, summary.minimum, summary.worst) == (0, None, [])
    assert math.isnan(summary.mean)
    assert math.isnan(summary.quantile(0.5))
    assert summary.histogram().weights.size == 0
    assert repr(summary) == "<Summary of mse_loss: 0 rows>"
    json.dumps(summary.to_dict(), allow_nan=False)
