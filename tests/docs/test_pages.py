"""Links lead somewhere, and the generated page is up to date."""

from pathlib import Path

import pytest

from losswire.server import docs
from losswire.server.catalogue.describe import describe
from losswire.server.losses import builtin_registry
from tests.docs.pages import ROOT, anchors, links, pages, read

LOSSES_PAGE = ROOT / "docs" / "losses.md"


@pytest.mark.parametrize("page", pages(), ids=str)
def test_links_resolve(page: Path) -> None:
    """Each relative link names a file of the repository, and a heading that it has."""
    missing = []
    for link in links(page):
        path, _, anchor = link.partition("#")
        if "://" in path:
            continue
        target = (ROOT / page.parent / path).resolve() if path else ROOT / page
        found = target.is_relative_to(ROOT) and target.exists()
        if not found or (anchor and anchor not in anchors(target)):
            missing.append(link)
    assert missing == []


def test_losses_page_is_up_to_date() -> None:
    """docs/losses.md is what the records say; otherwise `make docs` was forgotten."""
    assert docs.main(["--check", str(LOSSES_PAGE)]) == 0


def test_losses_page_describes_everything_that_list_losses_does() -> None:
    """Each loss has a section, and its inputs, options and layouts are named in it."""
    sections = dict(
        section.split("\n", 1) for section in LOSSES_PAGE.read_text().split("\n## ")[1:]
    )
    for record in builtin_registry():
        info = describe(record)
        named = [each.name for each in info.inputs]
        named += [each.name for each in info.options]
        named += [each.name for each in info.layouts]
        assert [name for name in named if f"`{name}`" not in sections[info.name]] == []


def test_a_stale_losses_page_is_noticed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--check fails on a page that differs or is missing, and writing it mends that."""
    page = tmp_path / "losses.md"
    check = ["--check", str(page)]
    assert docs.main(check) == 1
    page.write_text(LOSSES_PAGE.read_text() + "more\n")
    assert docs.main(check) == 1
    assert "make docs" in capsys.readouterr().err
    assert docs.main([str(page)]) == 0
    assert docs.main(check) == 0


@pytest.mark.parametrize("page", pages(), ids=str)
def test_pages_are_plain(page: Path) -> None:
    """Pages have one title, no trailing blanks, and no notes to self."""
    text = read(page)
    assert text.startswith("# ")
    assert [line for line in text.splitlines() if line != line.rstrip()] == []
    assert "TODO" not in text
