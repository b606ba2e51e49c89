"""What a notebook shows: a piece of HTML with a style of its own, and no script.

Every rule is within one element, so that a notebook's own style and this one leave each other
alone. Where a notebook removes styles, as one that is not trusted does, texts and tables remain.
"""

import re
from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from string import Template
from typing import Final

from losswire.client._report.markup import Html, element

_FOLDER: Final = files(__package__)
_SCOPE: Final = ".losswire.losswire"
"""Twice the class: before the rules of notebooks, which name two."""


def fragment(title: str, *children: str | Html | None) -> str:
    """Return a piece of a page that stands by itself."""
    return element(
        "div",
        element("style", Html(_style())),
        element("p", title, class_="kicker"),
        *children,
        class_="losswire",
    )


@cache
def _style() -> str:
    """Return the style: the colours of the page, and the rules of its drawings."""
    light, dark, *_ = re.findall(r":root \{(.*?)\}", _read("style.css"), re.DOTALL)
    dark, light = (" ".join(each.split()) for each in (dark, light))
    around = Template(_read("fragment.css")).substitute(
        light=light.replace("color-scheme: light dark", "color-scheme: light"),
        dark=f"color-scheme: dark; {dark}",
    )
    return "".join([around, *_scoped(_read("drawings.css")), *_scoped(_read("notebook.css"))])


def _scoped(style: str) -> Iterator[str]:
    """Return the rules of a style, each within the element."""
    for selectors, rules in re.findall(
        r"([^{}]+)\{([^{}]*)\}", re.sub(r"/\*.*?\*/", "", style, flags=re.DOTALL)
    ):
        within = ",".join(f"{_SCOPE} {each.strip()}" for each in selectors.split(","))
        yield f"{within}{{{' '.join(rules.split())}}}\n"


def _read(name: str) -> str:
    """Return a file beside this one."""
    return _FOLDER.joinpath(name).read_text("utf-8")
