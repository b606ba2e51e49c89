"""Reports are whole by themselves, safe, accessible and small."""

import hashlib
import re
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from losswire.client import Comparison, Summary
from losswire.summaries import Column, Rows, Settings, SummaryState
from tests.support.evaluated import comparison, summary
from tests.support.page import Element, read_page

Evaluated = Summary | Comparison


def _page(evaluated: Evaluated, folder: Path) -> str:
    path = folder / "report.html"
    assert evaluated.report(path) == path
    return path.read_text("utf-8")


PAGES: dict[str, Callable[[], Evaluated]] = {
    "summary": lambda: summary(cross=True),
    "weighted, clustered": lambda: summary(weighted=True, clustered=True),
    "negative": lambda: summary(below_zero=0.3),
    "NaN and infinite": lambda: summary(nan=3),
    "no rows": lambda: summary(rows=5),
    "one row": lambda: summary(rows=6),
    "comparison": lambda: comparison(cross=True),
    "comparison of four": lambda: comparison(candidates=4),
    "comparison without rows": lambda: comparison(rows=5),
    "comparison of one row": lambda: comparison(rows=6),
    "comparison with NaN": lambda: comparison(nan=2, clustered=True),
}
"""Every kind of page."""


@pytest.fixture(params=PAGES, scope="module")
def page(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Each kind of page in turn."""
    return _page(PAGES[request.param](), tmp_path_factory.mktemp("report"))


def test_nothing_is_loaded(page: str) -> None:
    """No element or style asks for anything, and a policy forbids it."""
    root = read_page(page)
    for each in root.all():
        assert not {"src", "href", "srcset", "action", "data", "style"} & set(each.attributes)
        assert not [name for name in each.attributes if name.startswith("on")]
    assert "://" not in page
    assert not re.search(r"url\(|@import|expression\(", root.one("style").text)
    policy = root.one("meta", http_equiv="Content-Security-Policy").attributes["content"]
    assert policy is not None
    hashes = {
        name: b64encode(hashlib.sha256(root.one(name).text.encode()).digest()).decode()
        for name in ("style", "script")
    }
    assert policy.split("; ") == [
        "default-src 'none'",
        f"style-src 'sha256-{hashes['style']}'",
        f"script-src 'sha256-{hashes['script']}'",
        "base-uri 'none'",
        "form-action 'none'",
    ]


def test_everything_that_is_drawn_can_be_read(page: str) -> None:
    """Drawings have a name or are beside their numbers; figures have a table; tables a caption."""
    root = read_page(page)
    for each in root.all("svg"):
        outer = each.attributes.get("role") == "img" and each.attributes.get("aria-label")
        inner = "viewbox" in each.attributes
        assert outer or inner or each.attributes.get("aria-hidden") == "true"
    for each in root.all("figure"):
        assert each.one("table").all("td")
        assert each.one("figcaption").text
    for each in root.all("table"):
        assert each.one("caption").text
        columns = len(each.one("thead").all("th"))
        for row in each.one("tbody").all("tr"):
            assert len([cell for cell in row.children if isinstance(cell, Element)]) == columns


def test_every_place_is_a_number(page: str) -> None:
    """Whatever the losses are, no coordinate is NaN or off the page."""
    for each in read_page(page).all():
        for name in ("x", "x1", "x2", "cx", "width"):
            place = each.attributes.get(name)
            if place is not None:
                number = float(place.removesuffix("%"))
                assert 0 <= number <= (100 if place.endswith("%") else 1000), (each.name, place)
        for name in ("y", "y1", "y2", "height"):
            if name in each.attributes:
                assert -10 <= float(each.attributes[name] or "") < 400


def test_a_usual_page_is_small(page: str) -> None:
    """Such a file is sent by mail."""
    assert len(page.encode()) < 150_000


@pytest.mark.parametrize("kind", [Summary, Comparison])
def test_a_large_one_is_bounded(kind: type[Evaluated], tmp_path: Path) -> None:
    """With 16 tables of 1,000 slices and 1,000 worst rows with long labels."""
    rows = 4000
    random = np.random.default_rng(3)
    names = tuple(f"column {i}" for i in range(16))
    state = SummaryState(
        Settings(
            loss="mse_loss",
            candidates=("a", "b", "c") if kind is Comparison else (),
            tables=tuple((each,) for each in names),
            worst=1000,
        )
    )
    labels = [f"{i} " + "long label " * 80 for i in range(1000)]
    state.add(
        Rows(
            values=random.exponential(size=(3 if kind is Comparison else 1, rows)),
            columns={each: Column(random.integers(0, 1000, rows), labels) for each in names},
            partition="p" * 1000,
        )
    )
    page = _page(kind(state.message()), tmp_path)
    assert len(page.encode()) < 1_500_000
    assert "8 of 1,000 slices" in page or "8 of 9" in page


HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "</style></script><b>",
    "&lt;b&gt; &amp; ${body} $body %s {0}",
    "javascript:alert(1)",
    "\u202eabc\u2066\x00\x1b[31m",
    "\u200b",
)


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("kind", [summary, comparison])
def test_texts_stay_texts(text: str, kind: Callable[..., Evaluated], tmp_path: Path) -> None:
    """Names that come from anyone change no element, and are shown as what they are."""
    countries = (f"{text}1", f"{text}2", "JP", "NZ")
    hostile = kind(
        loss=text,
        options=((text, 1.0),),
        countries=countries,
        names=(f"{text}a", f"{text}b"),
        partition=text,
        ids=text,
        device=text,
    )
    page = _page(hostile, tmp_path)
    root = read_page(page)
    tame = read_page(_page(kind(loss="x", options=(("x", 1.0),)), tmp_path))
    for name in ("script", "style", "img", "b", "meta", "table", "section", "figure"):
        assert len(root.all(name)) == len(tame.all(name)), name
    allowed = {name for each in tame.all() for name in each.attributes} | {"title"}
    assert {name for each in root.all() for name in each.attributes} <= allowed
    assert not re.search("[\x00\x1b\u202e\u2066\u200b]", page)
    shown = "".join(
        f"\\u{ord(each):04x}" if each in "\x00\x1b\u202e\u2066\u200b" else each for each in text
    )
    assert shown in root.one("head").one("title").text
    slices = [each.text for each in root.all("th", class_="text") if each.all("bdi")]
    assert f"{shown}1" in slices


def test_a_page_is_the_same_each_time(tmp_path: Path) -> None:
    """It follows from the state alone: no times, no random names."""
    evaluated = summary()
    again = Summary.from_bytes(evaluated.to_bytes())
    assert _page(evaluated, tmp_path) == _page(again, tmp_path)
