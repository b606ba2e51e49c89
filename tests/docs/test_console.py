"""The pictures of the console are there, small, and shown."""

import re
from pathlib import Path

import pytest
from tools.screenshots import IMAGES, MOST_BYTES

from tests.docs.pages import ROOT, read

PICTURES = sorted(IMAGES.glob("*.png"))


def test_there_are_pictures() -> None:
    """The README opens with them, and the page of the console has one of each screen."""
    start = "\n".join(read("README.md").splitlines()[:20])
    assert len(re.findall(r"docs/images/console-\w+-\w+\.png", start)) >= 3
    page = read("docs/console.md")
    for screen in ("explore", "curves", "evaluate", "compare", "runs", "live"):
        assert f"images/console-{screen}-light.png" in page


@pytest.mark.parametrize("path", PICTURES, ids=lambda path: path.name)
def test_pictures_are_small(path: Path) -> None:
    """And are what their name says."""
    data = path.read_bytes()
    assert data.startswith(b"\x89PNG\r\n")
    assert len(data) <= MOST_BYTES


def test_every_picture_is_shown() -> None:
    """On some page."""
    pages = [
        read("README.md"),
        *(read(f"docs/{each.name}") for each in (ROOT / "docs").glob("*.md")),
    ]
    assert [each.name for each in PICTURES if not any(each.name in page for page in pages)] == []
