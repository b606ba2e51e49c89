"""Builds HTML and SVG in which every text is escaped."""

import unicodedata
from html import escape
from typing import Final

_VOID: Final = frozenset({"br", "col", "meta"})
_SHAPES: Final = frozenset({"circle", "line", "path", "polygon", "polyline", "rect"})
_HIDDEN: Final = frozenset({"Cc", "Cf", "Cs", "Co"})
"""Categories of characters that change the text around them, or show nothing."""
_PLAIN: Final = frozenset("\t\n\u00ad")


class Html(str):
    """Markup whose texts are escaped already; any other string is text."""

    __slots__ = ()


def visible(text: str) -> str:
    """Return a text with control characters and marks of direction written as escapes.

    Names come from anyone. One that turns the direction of writing could make the page read
    differently from what it says, and a NUL or a lone surrogate is no text at all.
    """
    return "".join(
        f"\\u{ord(each):04x}"
        if each not in _PLAIN and unicodedata.category(each) in _HIDDEN
        else each
        for each in text
    )


def safe(child: "str | Html") -> Html:
    """Return markup as it is, and a text escaped."""
    return child if isinstance(child, Html) else Html(escape(visible(child), quote=True))


def join(*children: "str | Html | None") -> Html:
    """Return several pieces as one."""
    return Html("".join(safe(each) for each in children if each is not None))


def element(
    name: str, *children: "str | Html | None", **attributes: "str | float | bool | None"
) -> Html:
    """Return an element.

    An underscore in an attribute's name is a hyphen, one at its end is dropped (`class_`). None
    and False leave an attribute out; True writes its name alone.
    """
    written = "".join(_attribute(key, value) for key, value in attributes.items())
    if name in _VOID or (name in _SHAPES and not children):
        return Html(f"<{name}{written}/>" if name in _SHAPES else f"<{name}{written}>")
    return Html(f"<{name}{written}>{join(*children)}</{name}>")


def _attribute(name: str, value: "str | float | bool | None") -> str:
    """Return one attribute with a space before it."""
    if value is None or value is False:
        return ""
    key = name.rstrip("_").replace("_", "-")
    if value is True:
        return f" {key}"
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return f' {key}="{safe(text)}"'


def percent(fraction: float) -> str:
    """Return a fraction of the width as SVG and CSS write it."""
    return f"{round(fraction * 100, 2):g}%"
