"""What a comparison says, against numpy on the same row losses."""

import itertools
import json
import math

import numpy as np
import pytest

from losswire import summaries
from losswire.client import Comparison, Summary

_RNG = np.random.default_rng(11)
_HARD = _RNG.gamma(2.0, 1.0, 900)
_VALUES = np.stack(
    [_HARD, _HARD + _RNG.normal(0.05, 0.1, 900).round(1), _HARD + _RNG.normal(0, 0.1, 900)]
)
_COUNTRY = _RNG.integers(0, 3, 900)
_NAMES = ("a", "b", "c")


def _comparison(values: np.ndarray, names: tuple[str, ...] = _NAMES) -> Comparison:
    settings = summaries.Settings(
        loss="mse_loss", candidates=names, tables=(("country",),), worst=4
    )
    state = summaries.SummaryState(settings)
    rows = values.shape[1]
    columns = {"country": summaries.Column(_COUNTRY[:rows], ("DE", "FR", "PL"))}
    state.add(summaries.Rows(values=values, columns=columns, partition="p"))
    return Comparison(state.message())


@pytest.fixture(scope="module")
def compared() -> Comparison:
    """Three candidates over 900 rows."""
    return _comparison(_VALUES)


@pytest.mark.parametrize(("one", "other"), list(itertools.permutations(range(3), 2)))
def test_differences_are_paired(compared: Comparison, one: int, other: int) -> None:
    """In either direction: mean, standard error, wins, quantiles and rows."""
    rows = _VALUES[one] - _VALUES[other]
    found = compared.difference(_NAMES[one], _NAMES[other])
    assert found.names == (_NAMES[one], _NAMES[other])
    assert found.count == 900
    assert found.mean == pytest.approx(rows.mean(), abs=1e-12)
    error = rows.std(ddof=1) / math.sqrt(900)
    assert found.standard_error == pytest.approx(error, rel=1e-9)
    assert found.interval() == pytest.approx(
        (rows.mean() - 1.959964 * error, rows.mean() + 1.959964 * error)
    )
    expected = math.erfc(abs(rows.mean() / error) / math.sqrt(2))
    assert found.p_value == pytest.approx(expected, rel=1e-6)
    assert (found.wins, found.ties, found.losses) == (
        (rows < 0).sum(),
        (rows == 0).sum(),
        (rows > 0).sum(),
    )
    for share in (0.05, 0.5, 0.95):
        exact = np.quantile(rows, share, method="inverted_cdf")
        assert found.quantile(share) == pytest.approx(exact, rel=0.01, abs=1e-12)
    assert found.quantile([0.05]) == [found.quantile(0.05)]
    at = np.abs(rows).argmax()
    assert (found.worst[0].row, found.worst[0].value) == (at, rows[at])
    histogram = found.histogram([-100, 0.0, 100])
    assert histogram.weights.sum() == 900


def test_candidates_have_statistics(compared: Comparison) -> None:
    """By name, with slices and worst rows of their own."""
    assert compared.candidates == _NAMES
    assert list(compared) == list(_NAMES)
    assert len(compared) == 3
    assert compared["b"].mean == pytest.approx(_VALUES[1].mean(), rel=1e-12)
    chosen = _VALUES[2][_COUNTRY == 0]
    assert compared["c"].slices["country"]["DE"].mean == pytest.approx(chosen.mean(), rel=1e-12)
    assert compared.worst("c")[0].value == _VALUES[2].max()
    assert compared["a"].rmse == pytest.approx(math.sqrt(_VALUES[0].mean()))
    with pytest.raises(KeyError, match="no candidate 'd'; nearest: "):
        compared["d"]
    with pytest.raises(ValueError, match="'a' is compared with itself"):
        compared.difference("a", "a")


def test_slices_have_differences(compared: Comparison) -> None:
    """Of the first two candidates, or of any pair."""
    chosen = _COUNTRY == 2
    expected = (_VALUES[0] - _VALUES[1])[chosen].mean()
    assert compared.slices["country"]["PL"].mean == pytest.approx(expected, abs=1e-12)
    other = compared.difference("c", "b").slices["country"]["PL"]
    assert other.mean == pytest.approx((_VALUES[2] - _VALUES[1])[chosen].mean(), abs=1e-12)
    by_slice = compared.by_slice("country")
    means = [each.difference.mean for each in by_slice]
    assert means == sorted(means, reverse=True)
    smallest = min(by_slice, key=lambda each: each.p_value)
    assert smallest.p_adjusted == pytest.approx(min(1.0, 3 * smallest.p_value))
    assert {each.label for each in by_slice} == {"DE", "FR", "PL"}
    with pytest.raises(KeyError, match="contry"):
        compared.by_slice("contry")


def test_verdicts_are_sentences() -> None:
    """Lower, higher, not seen to differ, too few rows, and not comparable."""
    values = np.stack([_HARD, _HARD + 0.5 + _VALUES[2] - _HARD])
    clear = _comparison(values, ("old", "new"))
    assert clear.difference("old", "new").verdict.startswith("old is lower than new by 0.4993 (95")
    assert clear.difference("new", "old").verdict.startswith("new is higher than old by 0.4993 (95")
    same = _comparison(np.stack([_HARD, _VALUES[2]]), ("old", "new")).difference("old", "new")
    assert same.p_value > 0.05
    assert same.verdict.startswith("No difference seen between old and new: ")
    few = _comparison(values[:, :9], ("old", "new")).difference("old", "new")
    assert few.small
    assert few.verdict.endswith("There are too few rows for the normal law.")
    nan = values.copy()
    nan[0, 3] = math.nan
    unknown = _comparison(nan, ("old", "new")).difference("old", "new")
    assert unknown.verdict == "old and new cannot be compared: a mean is not finite."
    assert unknown.count == 899
    empty = _comparison(values[:, :0], ("old", "new")).difference("old", "new")
    assert empty.verdict == "No row has a finite loss with old and new."


def test_it_is_json_and_bytes(compared: Comparison) -> None:
    """Both have everything."""
    found = json.loads(json.dumps(compared.to_dict(), allow_nan=False))
    assert found["candidates"] == ["a", "b", "c"]
    assert [(each["first"], each["second"]) for each in found["differences"]] == [
        ("a", "b"),
        ("a", "c"),
        ("b", "c"),
    ]
    assert found["statistics"]["b"]["mean"] == compared["b"].mean
    assert found["differences"][0]["slices"]["country"][0]["label"] == "DE"
    assert Comparison.from_bytes(compared.to_bytes()) == compared
    with pytest.raises(ValueError, match="of a Comparison, not of a Summary"):
        Summary.from_bytes(compared.to_bytes())


def test_parts_merge() -> None:
    """To the comparison of all rows."""
    settings = summaries.Settings(loss="mse_loss", candidates=("a", "b"))
    parts = []
    for start in (0, 450):
        state = summaries.SummaryState(settings)
        values = _VALUES[:2, start : start + 450]
        state.add(summaries.Rows(values=values, partition="p", first_row=start))
        parts.append(Comparison(state.message()))
    whole = Comparison.merge(parts).difference("a", "b")
    rows = _VALUES[0] - _VALUES[1]
    assert whole.mean == pytest.approx(rows.mean(), abs=1e-12)
    assert whole.standard_error == pytest.approx(rows.std(ddof=1) / 30, rel=1e-9)


def test_it_is_shown(compared: Comparison) -> None:
    """In a console, a notebook and as a table."""
    assert repr(compared).startswith("<Comparison of mse_loss, 900 rows: ")
    assert " is better than b: the loss is lower by" in compared._repr_html_()
    frame = compared.to_frame()
    assert frame["candidate"].tolist() == ["a"] * 4 + ["b"] * 4 + ["c"] * 4
