"""A picture of a run: `python -m benchmarks.plot RESULTS.json PICTURE.svg`."""

import argparse
import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any, Final

Cases = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Line:
    """One bar of the picture."""

    label: str
    cases: tuple[str, ...]
    """The cases that it shows; of several, the fastest."""


_ECHO_CHUNKED: Final = "raw gRPC echo, 1 MiB chunks, kept blocks"
_ECHO_KEPT: Final = "raw gRPC echo, kept blocks"


def _both(name: str, policy: str) -> tuple[str, ...]:
    return tuple(f"{name} {server}{policy}" for server in ("sync", "aio"))


def _chunked(size: str) -> tuple[str, ...]:
    callers = ("echo chunked", "echo chunked asyncio")
    return tuple(name for each in callers for name in _both(f"{size} {each}", " kept"))


PANELS: Final = (
    (
        "S",
        (
            Line("torch in the caller's process", ("S torch", "S torch kept")),
            Line("raw gRPC echo", _both("S echo unary", "") + _both("S echo unary", " kept")),
            Line("Evaluate", ("S unary",)),
            Line("stream, one after another", ("S stream",)),
            Line("stream, one after another, asyncio", ("S stream asyncio",)),
            Line("stream, pipelined, each", ("S stream pipelined",)),
            Line("EvaluateMany, each", ("S many",)),
            Line("Evaluate on the same machine, without gRPC", ("S local",)),
        ),
    ),
    (
        "M",
        (
            Line("copy", ("M copy",)),
            Line("torch in the caller's process, kept blocks", ("M torch kept",)),
            Line("torch in the caller's process", ("M torch",)),
            Line(_ECHO_KEPT, _both("M echo unary", " kept")),
            Line(_ECHO_CHUNKED, _chunked("M")),
            Line("same-host region, in place", ("M in place",)),
            Line("same-host region, copied in and out", ("M copies",)),
            Line("over TCP", ("M tcp",)),
        ),
    ),
    (
        "L",
        (
            Line("copy", ("L copy",)),
            Line("torch in the caller's process, kept blocks", ("L torch kept",)),
            Line("torch in the caller's process", ("L torch",)),
            Line(_ECHO_KEPT, _both("L echo unary", " kept")),
            Line("raw gRPC echo", _both("L echo unary", "")),
            Line(_ECHO_CHUNKED, _chunked("L")),
            Line("same-host region, in place", ("L in place",)),
            Line("same-host region, copied in and out", ("L copies",)),
            Line("over TCP, chunked", ("L tcp",)),
            Line("over TCP, factored gradient", ("L tcp factored",)),
            Line("over TCP, bfloat16", ("L tcp bf16",)),
            Line("over TCP, mean squared error", ("L tcp mse",)),
            Line("over TCP, loss only", ("L tcp loss only",)),
        ),
    ),
)
"""The bars by size of the logits."""

_WIDTH, _LEFT, _RIGHT = 860, 300, 90
_ROW, _BAR, _HEAD, _TOP, _BOTTOM = 20, 12, 30, 62, 34
_STYLE: Final = """
  text { font: 12px system-ui, sans-serif; fill: #24292f }
  .page { fill: #ffffff } .title { font-size: 15px; font-weight: 600 } .head { font-weight: 600 }
  .tick { font-size: 11px; fill: #57606a } .grid { stroke: #d0d7de }
  .floor { fill: #9aa4af } .ours { fill: #2f6fdb } .spread { stroke: #24292f; stroke-width: 1.5 }
  .none { fill: #57606a; font-style: italic }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 } .page { fill: #0d1117 } .tick, .none { fill: #9198a1 }
    .grid { stroke: #30363d } .floor { fill: #656d76 } .ours { fill: #5b9bff }
    .spread { stroke: #e6edf3 }
  }
"""


class _Scale:
    """Milliseconds to places, logarithmic."""

    def __init__(self, times: Sequence[float]) -> None:
        """Cover whole powers of ten."""
        self.low = math.floor(math.log10(min(times)))
        self.high = max(self.low + 1, math.ceil(math.log10(max(times))))

    def __call__(self, milliseconds: float) -> float:
        """Return the position of a time."""
        part = (math.log10(milliseconds) - self.low) / (self.high - self.low)
        return _LEFT + part * (_WIDTH - _LEFT - _RIGHT)


def picture(results: Mapping[str, Any]) -> str:
    """Draw a run."""
    cases: Cases = results["cases"]
    shown = [each for each in cases.values() if each["status"] == "ok" and not each["rate"]]
    scale = _Scale([_times(each)[place] for each in shown for place in (1, 2)] or [1.0])
    lines = sum(len(panel) for _, panel in PANELS)
    height = _TOP + len(PANELS) * _HEAD + lines * _ROW + _BOTTOM
    parts = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" '
            f'width="{_WIDTH}" height="{height}" role="img">'
        ),
        "<title>Time of a cross-entropy with its gradient, beside the floors</title>",
        f"<style>{_STYLE}</style>",
        f'<rect class="page" width="{_WIDTH}" height="{height}"/>',
        (
            '<text class="title" x="16" y="26">Cross-entropy loss and gradient, numpy to numpy, '
            "milliseconds</text>"
        ),
        '<rect class="ours" x="16" y="37" width="12" height="12" rx="2"/>',
        '<text x="34" y="47">Losswire</text>',
        '<rect class="floor" x="110" y="37" width="12" height="12" rx="2"/>',
        '<text x="128" y="47">floors, which share no code with it</text>',
        *_grid(scale, height),
    ]
    y = _TOP
    for size, panel in PANELS:
        rows, columns = results["sizes"][size]
        number = f"{rows} x {columns} float32, {_size(4 * rows * columns)}"
        parts.append(f'<text class="head" x="16" y="{y + 18}">{size}: {number}</text>')
        y += _HEAD
        for line in panel:
            parts.extend(_bar(line, cases, scale, y))
            y += _ROW
    return "\n".join([*parts, "</svg>"]) + "\n"


def _size(count: int) -> str:
    """Write a number of bytes."""
    return f"{count / 1e6:.3g} MB" if count >= 1e5 else f"{count / 1e3:.3g} kB"  # noqa: PLR2004


def _grid(scale: _Scale, height: int) -> Iterator[str]:
    for power in range(scale.low, scale.high + 1):
        x = scale(10.0**power)
        yield (
            f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{height - _BOTTOM}"/>'
        )
        yield (
            f'<text class="tick" x="{x:.1f}" y="{height - _BOTTOM + 18}" '
            f'text-anchor="middle">{10.0**power:g} ms</text>'
        )


def _bar(line: Line, cases: Cases, scale: _Scale, y: int) -> Iterator[str]:
    baseline = y + _BAR
    yield (
        f'<text x="{_LEFT - 8}" y="{baseline - 1}" text-anchor="end">{escape(line.label)}</text>'
    )
    found = [cases.get(name, {"status": "not measured"}) for name in line.cases]
    measured = [each for each in found if each["status"] == "ok"]
    if not measured:
        status = escape(found[0]["status"])
        yield f'<text class="none" x="{_LEFT + 6}" y="{baseline - 1}">{status}</text>'
        return
    best = min(measured, key=lambda each: float(each["median"]))
    middle, low, high = _times(best)
    kind = "floor" if best["floor"] else "ours"
    x, start, stop = scale(middle), scale(low), scale(high)
    yield (
        f'<rect class="{kind}" x="{_LEFT}" y="{y}" width="{x - _LEFT:.1f}" height="{_BAR}" rx="2"/>'
    )
    center = y + _BAR / 2
    yield f'<line class="spread" x1="{start:.1f}" x2="{stop:.1f}" y1="{center}" y2="{center}"/>'
    yield f'<text x="{stop + 6:.1f}" y="{baseline - 1}">{middle:.3g}</text>'


def _times(case: Mapping[str, Any]) -> tuple[float, float, float]:
    """Return median, lowest and highest of the rounds, in milliseconds for one evaluation."""
    each = 1000 / case["evaluations"]
    return case["median"] * each, case["low"] * each, case["high"] * each


def main(arguments: Sequence[str] | None = None) -> int:
    """Draw a picture of results; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.plot", description=__doc__)
    parser.add_argument("results", type=Path)
    parser.add_argument("picture", type=Path)
    options = parser.parse_args(arguments)
    results = json.loads(options.results.read_text(encoding="utf-8"))
    options.picture.write_text(picture(results), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
