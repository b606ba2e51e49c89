"""Draws docs/architecture.svg from the layers in pyproject.toml.

Usage, from the root of the repository: python -m tools.draw_layers [PICTURE.svg]
"""

import argparse
import sys
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent

PHRASES: Final[Mapping[str, str]] = {
    "losswire.server.__main__": "the program",
    "losswire.server.docs": "writes docs/losses.md",
    "losswire.server.cli": "command line",
    "losswire.server.local": "in the caller's process",
    "losswire.server.configuration": "from flags, variables and a file",
    "losswire.server.identity": "who calls: tokens and certificates",
    "losswire.server.telemetry": "a line for each call",
    "losswire.server.supervisor": "keeps several worker processes",
    "losswire.server.serving": "until it is told to stop",
    "losswire.server.app": "puts the parts together, starts and stops them",
    "losswire.server.http": "JSON, forms and the console",
    "losswire.server.rpc": "bytes to calls, exceptions to statuses",
    "losswire.server.prepared": "evaluations without decoding",
    "losswire.server.runs": "kept in a database",
    "losswire.server.summaries": "SummarizeLosses",
    "losswire.server.pipeline": "decode, resolve, validate, admit, encode",
    "losswire.server.losses": "one function a loss",
    "losswire.server.compute": "autograd, closed forms, native code; the one reduction",
    "losswire.server.metrics": "counts and times",
    "losswire.server.memory": "budget, resident tensors, regions",
    "losswire.server.declare": "what plugins import",
    "losswire.server.catalogue": "the record of a loss: shapes, dtypes, options, values",
    "losswire.server.address": "HOST:PORT",
    "losswire.server.errors": "exceptions",
    "losswire.server.event_loop": "bulk goes last",
    "losswire.server.log": "lines of JSON",
    "losswire.server.settings": "limits and defaults",
    "losswire.server.control_group": "CPUs and memory it allows",
    "losswire.server.private_folder": "of sockets",
    "losswire.server.thresholds": "numbers that were chosen, and why",
    "losswire.client.cli": "losswire",
    "losswire.client.torch": "modules",
    "losswire.client.jax": "functions",
    "losswire.client.exporters": "to other tools",
    "losswire.client.sklearn": "scorers",
    "losswire.client.ray": "tasks of Ray",
    "losswire.client.spark": "tasks of Spark",
    "losswire.client.distributed": "a part, and merging",
    "losswire.client._distributed": "parts: plan, order of merging, what is left",
    "losswire.client._client": "the client that blocks",
    "losswire.client._async_client": "the client for asyncio",
    "losswire.client._streams": "EvaluateStream",
    "losswire.client._runs": "runs that a server keeps",
    "losswire.client._memory": "memory shared with the server",
    "losswire.client._calls": "one call and its retries",
    "losswire.client._data": "data sets to batches",
    "losswire.client._summaries": "what they say",
    "losswire.client._report": "a page for a browser",
    "losswire.client._messages": "arrays to messages and back",
    "losswire.client._errors": "exceptions",
    "losswire.client._allocator": "large blocks",
    "losswire.client._version": "version",
    "losswire.summaries": "mergeable states of summaries and their figures, which both sides use",
    "losswire.wire": "the tensor codec that both sides use",
    "losswire.v1": "the contract: .proto files and generated stubs",
}
"""A few words on each module; a module without any cannot be drawn."""

CONTRACT: Final = (("losswire.summaries",), ("losswire.wire",), ("losswire.v1",))
"""The rooms of the contract's distribution, which both sides import."""

_TITLES: Final = {
    "losswire.server": "Server: losswire-server",
    "losswire.client": "SDK: losswire",
}
_FILLS: Final = {"losswire.server": "#ddf4ff", "losswire.client": "#dafbe1"}
_INK, _GREY = "#1f2328", "#57606a"
_WIDTH, _MARGIN, _GAP, _ROW, _BOX, _TOP = 1000, 20, 10, 58, 44, 70
_COLUMNS: Final = {"losswire.server": (50, 570), "losswire.client": (660, 320)}
"""Where the boxes of each distribution begin, and how wide a row is."""

_HEAD: Final = """\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" \
height="{height}" font-family="system-ui, sans-serif" role="img" \
aria-label="The layers of server and SDK">
<defs><marker id="a" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="8" markerHeight="8" \
orient="auto"><path d="M0,0 L10,5 L0,10 z" fill="{grey}"/></marker></defs>
<rect width="{width}" height="{height}" fill="#ffffff"/>"""

Layers = Sequence[Sequence[str]]


def layers_of(project: Mapping[str, object]) -> dict[str, Layers]:
    """Return the layers of each container in pyproject.toml, from top to bottom."""
    contracts = project["tool"]["importlinter"]["contracts"]  # type: ignore[index]
    return {
        container: [[f"{container}.{name.strip()}" for name in layer.split("|")] for layer in rows]
        for contract in contracts
        for container in contract.get("containers", ())
        for rows in [contract["layers"]]
    }


def draw(layers: Mapping[str, Layers]) -> str:
    """Return the picture as SVG."""
    bottom = _TOP + _ROW * max(map(len, layers.values())) + 10
    height = bottom + len(CONTRACT) * _ROW + 10
    parts = [
        _HEAD.format(width=_WIDTH, height=height, grey=_GREY),
        _text(_MARGIN, 24, "A module imports from the layers below its own, never from above.", 13),
    ]
    for container, rows in layers.items():
        left, width = _COLUMNS[container]
        # Both columns end at the same height.
        start = bottom - _GAP - _ROW * len(rows)
        parts.append(_text(left, start - 14, _TITLES[container], 16, weight="bold"))
        parts.append(_arrow(left - 15, start, bottom - _GAP))
        for number, row in enumerate(rows):
            parts += _boxes(row, left, start + _ROW * number, width, _FILLS[container])
    whole = _WIDTH - 50 - _MARGIN
    for number, names in enumerate(CONTRACT):
        parts += _boxes(names, 50, bottom + _ROW * number, whole, "#fff8c5")
    return "\n".join([*parts, "</svg>", ""])


def _boxes(names: Sequence[str], left: int, top: int, width: int, fill: str) -> Iterator[str]:
    """Draw the modules of one layer beside each other, in width by their words."""
    words = [max(len(name.rpartition(".")[2]) * 1.4, len(PHRASES[name])) + 4 for name in names]
    free = width - _GAP * (len(names) - 1)
    for name, share in zip(names, words, strict=True):
        wide = round(free * share / sum(words))
        title = name if any(name in row for row in CONTRACT) else name.split(".")[2]
        middle = left + wide // 2
        yield (
            f'<rect x="{left}" y="{top}" width="{wide}" height="{_BOX}" rx="6" fill="{fill}"'
            f' stroke="{_GREY}"/>'
        )
        yield _text(middle, top + 18, title, 14, weight="bold", anchor="middle")
        yield _text(middle, top + 35, PHRASES[name], 12, anchor="middle")
        left += wide + _GAP


def _text(
    x: int, y: int, text: str, size: int, *, weight: str = "normal", anchor: str = "start"
) -> str:
    """Draw one line of text."""
    return (
        f'<text x="{x}" y="{y}" font-size="{size}" text-anchor="{anchor}" font-weight="{weight}"'
        f' fill="{_INK}">{escape(text)}</text>'
    )


def _arrow(x: int, top: int, bottom: int) -> str:
    """Draw the direction of imports."""
    return f'<path d="M{x},{top} L{x},{bottom}" stroke="{_GREY}" marker-end="url(#a)"/>'


def main(arguments: Sequence[str]) -> int:
    """Write the picture."""
    parser = argparse.ArgumentParser(description="Draw the layers of server and SDK.")
    default = ROOT / "docs" / "architecture.svg"
    parser.add_argument("picture", nargs="?", type=Path, default=default)
    picture: Path = parser.parse_args(arguments).picture
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    picture.write_text(draw(layers_of(project)), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
