"""Texts and marks stand out from the paper, in light, in dark and in print."""

import re
from pathlib import Path

import pytest

from tests.support.evaluated import summary
from tests.support.page import read_page

TEXT, MARK = 4.5, 3.0
"""The least contrast of WCAG 2.2, of text and of what is drawn."""

LEAST = {
    "ink": TEXT,
    "quiet": TEXT,
    "better": TEXT,
    "worse": TEXT,
    "accent": MARK,
    "bar": MARK,
    "tie": MARK,
}


def _luminance(colour: str) -> float:
    digits = colour.removeprefix("#")
    if len(digits) == 3:
        digits = "".join(2 * each for each in digits)
    channels = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _contrast(one: str, other: str) -> float:
    low, high = sorted((_luminance(one), _luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("place", [0, 1, 2], ids=["light", "dark", "print"])
def test_contrast(place: int, tmp_path: Path) -> None:
    """Against the paper of the same scheme."""
    page = summary().report(tmp_path / "report.html").read_text("utf-8")
    style = read_page(page).one("style").text
    scheme = re.findall(r":root \{(.*?)\}", style, re.DOTALL)[place]
    colours = dict(re.findall(r"--(\w+): (#\w+);", scheme))
    found = {name: _contrast(colours[name], colours["paper"]) for name in LEAST}
    assert {name: ratio for name, ratio in found.items() if ratio < LEAST[name]} == {}
