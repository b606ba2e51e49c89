"""The figures in the documentation: `python -m benchmarks.page RESULTS.json PAGE.md`.

Replaces what stands between the two markers of the page.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from benchmarks.report import markdown

BEGIN: Final = "<!-- figures: written by `python -m benchmarks.page` -->"
END: Final = "<!-- end of figures -->"


def with_figures(page: str, figures: str) -> str:
    """Put figures between the markers of a page; ValueError where these are missing."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        message = f"the page lacks {BEGIN} or {END}"
        raise ValueError(message)
    return f"{before}{begin}\n\n{figures.strip()}\n\n{end}{after}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the figures of results into a page; gives the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.page", description=__doc__)
    parser.add_argument("results", type=Path)
    parser.add_argument("page", type=Path)
    options = parser.parse_args(arguments)
    results = json.loads(options.results.read_text(encoding="utf-8"))
    page = options.page.read_text(encoding="utf-8")
    options.page.write_text(with_figures(page, markdown(results)), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
