"""What notebooks show stands by itself, is small, and draws the numbers it is of."""

import re
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest

from losswire.client import Client, EvaluationResult, Receipt
from tests.support.evaluated import comparison, summary
from tests.support.page import Element, read_page

HOSTILE = "</style><script>alert(1)</script>"

_DRAW = np.random.default_rng(11)


def _result(gradient: npt.NDArray[Any], loss: npt.NDArray[Any] | None = None) -> EvaluationResult:
    receipt = Receipt(
        device=HOSTILE,
        engine="closed_form",
        compute_dtype="float32",
        server_version="0.2.0",
        torch_version="2.13.0",
    )
    return EvaluationResult(
        loss=np.array(1.25, np.float32) if loss is None else loss,
        gradients={"input": gradient},
        factored_gradients={},
        sum=2.5,
        mean_numerator=2.5,
        mean_denominator=2.0,
        count=2,
        queue_nanoseconds=1,
        compute_nanoseconds=12_300,
        receipt=receipt,
    )


SHOWN: dict[str, Callable[[], Any]] = {
    "summary": lambda: summary(cross=True, countries=(HOSTILE, "FR", "JP", "NZ")),
    "summary without rows": lambda: summary(rows=5),
    "summary with NaN": lambda: summary(nan=3),
    "many slices": lambda: summary(countries=tuple(f"slice {i}" for i in range(4))),
    "comparison": lambda: comparison(cross=True, names=(HOSTILE, "b")),
    "comparison of four": lambda: comparison(candidates=4),
    "comparison without rows": lambda: comparison(rows=5),
    "slices": lambda: summary().slices["country"],
    "result": lambda: _result(_DRAW.standard_normal((40, 100), dtype=np.float32)),
    "values": lambda: _result(np.zeros((2, 3)), np.array([[1.0, np.inf], [np.nan, 0.0]])),
}


@pytest.fixture(params=SHOWN, scope="module")
def shown(request: pytest.FixtureRequest) -> str:
    """Each kind of object in turn, as a notebook shows it."""
    html: str = SHOWN[request.param]()._repr_html_()
    return html


def test_it_stands_by_itself(shown: str) -> None:
    """One element with a style whose every rule is within it; no script, nothing to be loaded."""
    [root] = read_page(shown).children
    assert isinstance(root, Element)
    assert (root.name, root.attributes["class"]) == ("div", "losswire")
    assert root.all("script") == []
    assert "://" not in shown
    for each in root.all():
        assert not {"src", "href", "action", "id", "style"} & set(each.attributes)
        assert not [name for name in each.attributes if name.startswith("on")]
    style = root.one("style").text
    assert not re.search(r"url\(|@import", style)
    rules = re.findall(r"([^{}]+)\{[^{}]*\}", re.sub(r"@media [^{]*\{(.*?\}) *\}", r"\1", style))
    assert len(rules) > 50
    selectors = [each for rule in rules for each in rule.split(",")]
    assert [each for each in selectors if ".losswire" not in each] == []


def test_it_is_small(shown: str) -> None:
    """A notebook keeps it in its file."""
    assert len(shown.encode()) < 64_000


def test_every_place_is_a_number(shown: str) -> None:
    """Whatever the numbers are, no coordinate is NaN."""
    assert not re.search(r'(x|y|x1|x2|cx|width|height|d)="[^"]*(nan|inf)', shown)


def test_drawings_have_names(shown: str) -> None:
    """For those who do not see them."""
    for each in read_page(shown).all("svg"):
        named = each.attributes.get("role") == "img" and each.attributes.get("aria-label")
        assert named or "viewbox" in each.attributes or each.attributes.get("aria-hidden")


def test_a_summary_says_its_mean_first() -> None:
    """Then where the rows are, and the slices with their intervals."""
    root = read_page(summary()._repr_html_())
    assert root.one("p", class_="answer").text.startswith("Mean cross_entropy 0.351 (95")
    assert root.one("svg", class_="chart").all("rect", class_="bar")
    assert [each.text for each in root.one("table", class_="forest").all("bdi")][:1] == ["JP"]


def test_a_comparison_says_its_verdict_first() -> None:
    """Then how often each is better, the differences, and the other pairs."""
    found = comparison(candidates=3)
    root = read_page(found._repr_html_())
    assert root.one("p", class_="answer").text.startswith("tiny is better than small: ")
    assert len(root.one("ul").all("li")) == 2
    assert root.all("svg", class_="split")
    assert root.all("svg", class_="chart")


def test_runs_are_shown(server: str) -> None:
    """One of a list with its means, one that was asked for with its whole summary."""
    kept = summary()
    with Client(server) as client:
        client.runs.save(kept, "shown", {"commit": "3f2c1"}, run_id="notebook-1")
        whole = client.runs.get("notebook-1")._repr_html_()
        [listed] = client.runs.list(name="shown", limit=1)
    assert read_page(whole).all("h2")[0].text == "shown"
    assert read_page(whole).all("svg", class_="chart")
    row = read_page(listed._repr_html_()).one("tbody").one("tr").text
    assert row.startswith("all rows0.351")
    assert "3f2c1" in whole


def test_a_result_of_a_server_is_shown(server: str) -> None:
    """Loss, how its mean was formed, and the gradient with the numbers of a small one."""
    logits, classes = np.array([[2, 1, 0], [0, 1, 2]], np.float32), np.array([0, 0])
    with Client(server) as client:
        result = client.evaluate(
            "cross_entropy",
            {"input": logits, "target": classes},
            {"label_smoothing": 0.1},
            gradients=["input"],
        )
    root = read_page(result._repr_html_())
    assert root.one("p", class_="answer").text == "Loss 1.407606, of 2 values."
    assert "2.815212 / 2" in [each.text for each in root.all("dd")]
    [caption] = [each.text for each in root.all("figcaption")]
    assert caption == "gradient of input, float32 2 × 3"
    cells = [each.text for each in root.one("tbody").all("td")]
    assert [float(each.replace("\u2212", "-")) for each in cells] == pytest.approx(
        result.gradients["input"].ravel().tolist(), rel=1e-3
    )


GRADIENTS: dict[str, tuple[npt.NDArray[Any], str]] = {
    "zero": (np.zeros((2, 3)), "6 of 6 are zero"),
    "NaN": (np.array([[1.0, np.nan], [0.0, -2.0]]), "1 of 4 are NaN"),
    "infinite": (np.array([[1.0, -np.inf]]), "1 of 2 are infinite"),
    "only NaN": (np.full((3, 3), np.nan, np.float32), "9 of 9 are NaN"),
    "one number": (np.array(-0.5), "From \u22120.500 to \u22120.500"),
    "no elements": (np.zeros((0, 4)), "no elements"),
    "bfloat16": (np.ones((2, 2)).astype(ml_dtypes.bfloat16), "Norm 2.00"),
    "large": (np.ones((300, 2, 500), np.float32), "up to 13 × 16 elements"),
    "huge numbers": (np.array([1e300, -1e308]), "From \u22121.00e308 to 1.00e300"),
}


@pytest.mark.parametrize("case", GRADIENTS)
def test_every_gradient_is_drawn(case: str) -> None:
    """Of every shape and type, with what is special in words."""
    gradient, words = GRADIENTS[case]
    assert words in read_page(_result(gradient)._repr_html_()).text


def _cells(root: Element) -> dict[str, set[tuple[int, int]]]:
    """Return the places of the cells of a heat map by their class."""
    found = {}
    for each in root.one("svg", class_="heat").all("path"):
        kind = each.attributes["class"] or ""
        squares = re.findall(r"M(\d+) (\d+)h1v1h-1z", each.attributes["d"] or "")
        if squares:
            found[kind] = {(int(row), int(column)) for column, row in squares}
    return found


def test_signs_have_colours_and_zero_has_none() -> None:
    """The scale is the same on both sides; the largest magnitude has the darkest shade."""
    gradient = np.array([[1.0, -1.0, 0.0, 1e-9], [np.nan, np.inf, -0.5, -np.inf]])
    assert _cells(read_page(_result(gradient)._repr_html_())) == {
        "above s8": {(0, 0)},
        "below s8": {(0, 1)},
        "above s1": {(0, 3)},
        "nan": {(1, 0)},
        "above infinite": {(1, 1)},
        "below s4": {(1, 2)},
        "below infinite": {(1, 3)},
    }


def test_a_peak_of_a_large_gradient_is_seen() -> None:
    """Cells are joined by the largest magnitude, so that one element among millions shows."""
    gradient = np.zeros((2400, 6400), np.float32)
    gradient[1234, 4321] = -1.0
    gradient[2399, 6399] = np.nan
    assert _cells(read_page(_result(gradient)._repr_html_())) == {
        "below s8": {(12, 43)},
        "nan": {(23, 63)},
    }
