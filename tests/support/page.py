"""Reads a page of HTML as a browser does: its elements, attributes and texts."""

from dataclasses import dataclass, field
from html.parser import HTMLParser

VOID = frozenset({"br", "col", "img", "input", "link", "meta"})


@dataclass
class Element:
    """An element with what is in it."""

    name: str
    attributes: dict[str, str | None]
    children: list["Element | str"] = field(default_factory=list)

    @property
    def text(self) -> str:
        """All text within, as it is shown."""
        return "".join(each if isinstance(each, str) else each.text for each in self.children)

    def all(self, name: str | None = None, **attributes: str) -> list["Element"]:
        """Return all elements within, of a name and with some attributes (one word of `class_`)."""
        found = []
        for each in self.children:
            if isinstance(each, str):
                continue
            if (name is None or each.name == name) and each.has(attributes):
                found.append(each)
            found += each.all(name, **attributes)
        return found

    def has(self, attributes: dict[str, str]) -> bool:
        """Return whether the attributes are these."""
        for key, value in attributes.items():
            own = self.attributes.get(key.rstrip("_").replace("_", "-")) or ""
            if value not in (own.split() if key == "class_" else [own]):
                return False
        return True

    def one(self, name: str | None = None, **attributes: str) -> "Element":
        """Return the only such element."""
        [found] = self.all(name, **attributes)
        return found


class _Reader(HTMLParser):
    """Builds elements; raises AssertionError where one is not closed as it was opened."""

    def __init__(self) -> None:
        super().__init__()
        self.root = Element("", {})
        self._open = [self.root]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), f"{tag} has an attribute twice: {names}"
        element = Element(tag, dict(attrs))
        self._open[-1].children.append(element)
        if tag not in VOID:
            self._open.append(element)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._open[-1].children.append(Element(tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open[-1].name == tag, f"{tag} closes {self._open[-1].name}"
        self._open.pop()

    def handle_data(self, data: str) -> None:
        self._open[-1].children.append(data)


def read_page(page: str) -> Element:
    """Return the root of a page."""
    reader = _Reader()
    reader.feed(page)
    reader.close()
    return reader.root
