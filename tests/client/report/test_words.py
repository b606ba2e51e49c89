"""A report says in words what the numbers say, with the digits that they support."""

from pathlib import Path

import numpy as np
import pytest

from losswire.client import Comparison, Summary
from losswire.summaries import Column, Rows, Settings, SummaryState
from tests.support.evaluated import comparison, summary
from tests.support.page import Element, read_page


def _read(evaluated: Summary | Comparison, folder: Path) -> Element:
    return read_page(evaluated.report(folder / "report.html").read_text("utf-8"))


def _plain(text: str) -> str:
    return " ".join(text.replace("\u00a0", " ").replace("\u2212", "-").split())


def _summary(
    values: list[float], *, weights: list[float] | None = None, clusters: list[int] | None = None
) -> Summary:
    state = SummaryState(Settings(loss="mse_loss", worst=3))
    state.add(
        Rows(
            values=np.array([values]),
            weights=None if weights is None else np.array(weights),
            clusters=None if clusters is None else Column(np.array(clusters)),
        )
    )
    return Summary(state.message())


def _pair(first: list[float], second: list[float]) -> Comparison:
    state = SummaryState(Settings(loss="mse_loss", candidates=("a", "b")))
    state.add(Rows(values=np.array([first, second])))
    return Comparison(state.message())


NAN, INF = float("nan"), float("inf")
ALTERNATING = [0.3, 0.5] * 50
"""Mean 0.4, standard error 0.1 / sqrt(99), 1.96 of them are 0.0197."""

HEADLINES: tuple[tuple[list[float], str], ...] = (
    (ALTERNATING, "Mean mse_loss 0.400 (95 % interval 0.380 to 0.420) over 100 rows."),
    (
        [1e6 * each for each in ALTERNATING],
        "Mean mse_loss 400,000 (95 % interval 380,302 to 419,698) over 100 rows.",
    ),
    (
        [1e-9 * each for each in ALTERNATING],
        "Mean mse_loss 4.00e-10 (95 % interval 3.80e-10 to 4.20e-10) over 100 rows.",
    ),
    ([2.5, 2.5], "Mean mse_loss 2.5 (95 % interval 2.5 to 2.5) over 2 rows."),
    (
        [NAN, 1.0, 3.0],
        "Mean mse_loss is NaN: of 3 rows, 1 is NaN. The mean of the others is 2.000.",
    ),
    (
        [INF, INF, 3.0],
        "Mean mse_loss is infinite: of 3 rows, 2 are infinite. The mean of the others is 3.000.",
    ),
    ([NAN, INF], "Mean mse_loss is NaN: of 2 rows, 1 is NaN and 1 is infinite."),
    (
        [-1e-3, 1e-3] * 50,
        "Mean mse_loss 0.00000 (95 % interval -0.00020 to 0.00020) over 100 rows.",
    ),
    ([], "No row took part in mse_loss."),
)


@pytest.mark.parametrize(("values", "expected"), HEADLINES)
def test_a_summary_begins_with_its_mean(values: list[float], expected: str, tmp_path: Path) -> None:
    """With two digits of what the interval leaves open."""
    assert _plain(_read(_summary(values), tmp_path).one("h1").text) == expected


VERDICTS = (
    (
        [-0.1, 0.3] * 50,
        "b is better than a: the loss is lower by 0.100 (0.061 to 0.139), p < 1e-6.",
    ),
    (
        [0.1, -0.3] * 50,
        "a is better than b: the loss is lower by 0.100 (0.061 to 0.139), p < 1e-6.",
    ),
    (
        [-0.1, 0.12] * 50,
        "No difference seen between a and b: 0.010 (-0.012 to 0.032), p = 0.37.",
    ),
    (
        [0.1, 0.3],
        (
            "b is better than a: the loss is lower by 0.20 (0.00 to 0.40), p = 0.046. "
            "There are too few rows for the normal law."
        ),
    ),
    ([0.0] * 40, "No difference seen between a and b: 0 (0 to 0), p = 1."),
    ([NAN, 0.1], "a and b cannot be compared: how far they differ is not known."),
    ([NAN, NAN], "a and b share no row with a finite loss."),
)


@pytest.mark.parametrize(("differences", "expected"), VERDICTS)
def test_a_comparison_begins_with_its_verdict(
    differences: list[float], expected: str, tmp_path: Path
) -> None:
    """Which is better and by how much, or that no difference is seen."""
    found = _pair([1 + each for each in differences], [1.0] * len(differences))
    assert _plain(_read(found, tmp_path).one("h1").text) == expected


def test_the_verdict_names_where_it_is_the_other_way_round(tmp_path: Path) -> None:
    """The second is worse everywhere but in one country."""
    root = _read(comparison(rows=20000), tmp_path)
    assert _plain(root.one("h1").text).startswith("large is better than small: the loss is lower")
    lead = _plain(root.one("header").one("p", class_="lead").text)
    assert lead == "But small is clearly better in country = JP."


def test_so_does_that_of_each_pair_of_more_than_two(tmp_path: Path) -> None:
    """The best with each other one."""
    head = _read(comparison(rows=20000, candidates=3), tmp_path).one("header")
    first, *_ = (_plain(each.text) for each in head.all("li"))
    assert first.startswith("tiny is better than small: the loss is lower")
    assert first.endswith(" But small is clearly better in country = JP.")


def test_more_than_two_are_in_a_matrix(tmp_path: Path) -> None:
    """Row minus column, each with its interval and p."""
    evaluated = comparison(candidates=3)
    root = _read(evaluated, tmp_path)
    matrix = root.one("table", class_="matrix")
    rows = matrix.one("tbody").all("tr")
    assert [each.one("th").text for each in rows] == ["small", "large", "tiny"]
    for row in rows:
        for other, cell in zip(evaluated.candidates, row.all("td"), strict=True):
            name = row.one("th").text
            if name == other:
                assert cell.text == "\u2013"
            else:
                found = evaluated.difference(name, other).mean
                assert float(cell.attributes["data-sort"] or "") == found
                signs = {"better": found < 0, "worse": found > 0, "tie": True}
                assert any(signs[word] for word in (cell.attributes["class"] or "").split()[1:])


def test_slices_are_sorted_and_judged(tmp_path: Path) -> None:
    """The highest first, with its interval, its lift and Holm's p; few rows are marked."""
    evaluated = summary()
    section = _read(evaluated, tmp_path).all("section")[1]
    assert section.one("h2").text == "Slices by country"
    rows = section.one("tbody").all("tr")
    lifts = evaluated.slices["country"].by_lift()
    assert [each.one("th").text for each in rows] == [each.label for each in lifts]
    for row, lift in zip(rows, lifts, strict=True):
        cells = [each.attributes.get("data-sort") for each in row.all("td")]
        assert float(cells[1] or "") == lift.statistics.mean
        assert float(cells[3] or "") == lift.statistics.count
        assert float(cells[4] or "") == lift.lift
        assert float(cells[5] or "") == lift.p_adjusted
    verdicts = {each.one("th").text: each.all("td")[-1].text for each in rows}
    assert verdicts == {
        "JP": "clearly higher",
        "NZ": "few rows",
        "FR": "clearly lower",
        "DE": "clearly lower",
    }
    assert len(rows[[each.label for each in lifts].index("NZ")].all("circle", class_="small")) == 1
    lead = _plain(_read(evaluated, tmp_path).one("header").one("p", class_="lead").text)
    assert "Clearly above the mean of all rows: country = JP, by 94 %." in lead


def test_worst_rows_and_origin(tmp_path: Path) -> None:
    """Ids, losses and labels; device, engine and versions; what is included."""
    evaluated = summary()
    root = _read(evaluated, tmp_path)
    [rows] = [each for each in root.all("table") if each.one("caption").text == "Worst rows"]
    ids = [each.one("th").text for each in rows.one("tbody").all("tr")]
    assert ids == [each.id for each in evaluated.worst]
    [made] = [each for each in root.all("table") if each.one("caption").text == "Computed by"]
    cells = [each.text for each in made.one("tbody").all() if each.name in ("th", "td")]
    assert cells == ["cpu", "closed_form", "float32", "0.1.0", "2.13.0"]
    [covered] = [each for each in root.all("table") if each.one("caption").text == "Included"]
    cells = [each.text for each in covered.one("tbody").all() if each.name in ("th", "td")]
    assert cells == ["part-0.parquet", "2,000", "0\u20131,999"]


def test_clusters_and_weights_are_named(tmp_path: Path) -> None:
    """What the interval rests on, and how many rows of equal weight say as much."""
    found = _summary([1.0, 2.0, 3.0, 4.0], weights=[1.0, 1.0, 1.0, 3.0], clusters=[1, 1, 2, 2])
    text = _plain(_read(found, tmp_path).one("header").text)
    assert "Rows may depend on each other within 2 clusters; intervals allow for that." in text
    assert "There are too few rows for the normal law" in text
    assert "effective rows3" in text


def test_the_linear_histogram_says_what_it_leaves_out(tmp_path: Path) -> None:
    """Up to the quantile 0.99."""
    root = _read(_summary([float(each) for each in range(1, 1001)]), tmp_path)
    figure = root.all("figure")[1]
    assert figure.one("figcaption").text == "Histogram, linear"
    assert "% of the rows are beyond the right edge" in _plain(figure.text)
