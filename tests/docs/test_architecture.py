"""docs/architecture.md shows the layers that `make check` enforces."""

import tomllib
from pathlib import Path

import pytest
from tools import draw_layers

from tests.docs.pages import ROOT, links

_LAYERS = draw_layers.layers_of(tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8")))


def test_the_picture_is_drawn_from_the_layers(tmp_path: Path) -> None:
    """The committed picture is what `python -m tools.draw_layers` would draw now."""
    drawn = tmp_path / "architecture.svg"
    assert draw_layers.main([str(drawn)]) == 0
    assert drawn.read_text() == (ROOT / "docs" / "architecture.svg").read_text()


def test_the_picture_shows_every_layer() -> None:
    """Each module of the contracts has its box, and no module that is gone keeps its words."""
    named = {name for rows in _LAYERS.values() for row in rows for name in row}
    shared = {each for row in draw_layers.CONTRACT for each in row}
    assert set(draw_layers.PHRASES) == named | shared


@pytest.mark.parametrize("container", _LAYERS)
def test_the_page_leads_into_every_folder(container: str) -> None:
    """Each layer that is a folder is linked, itself or by one of its files."""
    found = {(ROOT / "docs" / link).resolve() for link in links("docs/architecture.md")}
    [source] = ROOT.glob(f"*/src/{container.replace('.', '/')}")
    folders = {source / each.rpartition(".")[2] for row in _LAYERS[container] for each in row}
    missing = [
        folder.name
        for folder in folders
        if folder.is_dir() and not any(each.is_relative_to(folder) for each in found)
    ]
    assert missing == []
