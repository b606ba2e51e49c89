"""The figures in the documentation: `python -m benchmarks.page RESULTS.json PAGE.md`.

Replaces the text between two markers of the page: all figures, or a summary.
"""

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks.report import markdown, summary

PARTS: Final[Mapping[str, Callable[[Mapping[str, Any]], str]]] = {
    "figures": markdown,
    "summary": summary,
}
"""What makes each part that a page may have."""


def with_figures(page: str, results: Mapping[str, Any]) -> str:
    """Put figures between the markers of a page; ValueError where there are none."""
    found = page
    for name, make in PARTS.items():
        before, begin, rest = found.partition(
            f"<!-- {name}: written by `python -m benchmarks.page` -->"
        )
        _, end, after = rest.partition(f"<!-- end of {name} -->")
        if begin and end:
            found = f"{before}{begin}\n\n{make(results).strip()}\n\n{end}{after}"
    if found is page:
        message = "the page lacks markers, such as <!-- end of figures -->"
        raise ValueError(message)
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the figures of results into a page; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.page", description=__doc__)
    parser.add_argument("results", type=Path)
    parser.add_argument("page", type=Path)
    options = parser.parse_args(arguments)
    results = json.loads(options.results.read_text(encoding="utf-8"))
    page = options.page.read_text(encoding="utf-8")
    options.page.write_text(with_figures(page, results), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
