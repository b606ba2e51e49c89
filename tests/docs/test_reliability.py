"""docs/reliability.md names tests that exist."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.docs.pages import ROOT, read, rows

_PAGE = "docs/reliability.md"
_NAME = re.compile(r"`((?:\w+/)*test_\w+\.py)(?:::(\w+))?`")
_GUARANTEE = re.compile(r"^\d+\. .*?(?=^\d+\. |^#|\Z)", re.DOTALL | re.MULTILINE)


@cache
def _tests_of(path: Path) -> frozenset[str]:
    """Return the names of the tests of a file."""
    tree = ast.parse(path.read_text("utf-8"))
    functions = (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))
    return frozenset(each.name for each in functions if each.name.startswith("test_"))


def _missing(text: str) -> Iterator[str]:
    """Return the tests that a text names and that do not exist."""
    for file, name in _NAME.findall(text):
        folder = ROOT / "tests" if "/" in file else ROOT / "tests" / "robustness"
        path = folder / file
        if not path.exists() or (name and name not in _tests_of(path)):
            yield f"{file}::{name}"


def _section(title: str) -> str:
    """Return a section of the page."""
    return read(_PAGE).partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def test_every_test_that_is_named_exists() -> None:
    """Wherever the page names a file or a test."""
    assert list(_missing(read(_PAGE))) == []


@pytest.mark.parametrize("guarantee", _GUARANTEE.findall(_section("Guarantees")))
def test_every_guarantee_has_a_test(guarantee: str) -> None:
    """A guarantee without one is a wish."""
    assert _NAME.search(guarantee) is not None


def test_every_fault_has_a_test() -> None:
    """The last table ends with the test that reproduces it."""
    faults = rows(_PAGE, "Fault")
    assert len(faults) > 10
    for fault in faults:
        assert _NAME.search(fault[-1]) is not None, fault


def test_the_figures_are_of_this_table() -> None:
    """Each row of the figures is one that `make soak` printed, and none was missed."""
    figures = rows(_PAGE, "Figure")
    assert len(figures) > 10
    for figure in figures:
        assert len(figure) == 4
        assert "missed" not in figure[1], figure


def test_names_that_are_wrong_are_found() -> None:
    """The tests above can fail."""
    assert list(_missing("`test_soak.py` `test_none.py` `test_soak.py::test_no`")) == [
        "test_none.py::",
        "test_soak.py::test_no",
    ]
    assert list(_missing("`test_soak.py::test_growth_is_found`")) == []
