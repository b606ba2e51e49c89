"""The pages of the documentation, cut into what can be executed."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
WRITTEN_ADDRESS = "127.0.0.1:50051"
"""The address of the server in all examples."""

_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_ROW = re.compile(r"^\|(.*)\|$", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A block of code."""

    language: str
    text: str


def pages() -> list[Path]:
    """Return every page there is."""
    found = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    return sorted(path.relative_to(ROOT) for path in found)


def read(page: str | Path) -> str:
    """Return the text of a page."""
    return (ROOT / page).read_text(encoding="utf-8")


def blocks(page: str | Path, *languages: str) -> list[Block]:
    """Return the blocks of a page in these languages, in their order; all without languages."""
    found = (Block(match[1], match[2]) for match in _BLOCK.finditer(read(page)))
    return [block for block in found if not languages or block.language in languages]


def without_blocks(page: str | Path) -> str:
    """Return the prose of a page."""
    return _BLOCK.sub("", read(page))


def links(page: str | Path) -> Iterator[str]:
    """Return the targets of the links of a page."""
    return (match[1] for match in _LINK.finditer(without_blocks(page)))


def anchors(page: str | Path) -> set[str]:
    """Return the names that links to the headings of a page use."""
    headings = (match[1] for match in _HEADING.finditer(without_blocks(page)))
    return {re.sub(r"[^\w\- ]", "", each.lower()).replace(" ", "-") for each in headings}


def rows(page: str | Path, title: str) -> list[list[str]]:
    """Return the cells of the table whose first column has this title, without its head."""
    lines = without_blocks(page).splitlines()
    [start] = [at for at, line in enumerate(lines) if line.startswith(f"| {title} |")]
    found: list[list[str]] = []
    for line in lines[start + 2 :]:
        if not (match := _ROW.match(line)):
            break
        found.append([cell.strip() for cell in match[1].split("|")])
    return found
