"""Measures the errors of all closed forms, and writes docs/accuracy.md.

Usage, from the root of the repository: python -m benchmarks.accuracy
It takes some minutes. The exit status is 1 if a result is above torch.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path
from typing import Final

import numpy as np
import torch

from benchmarks import machine
from benchmarks.accuracy.forms import FORMS, Form
from benchmarks.accuracy.measure import DTYPES, SIZES, Errors, Key, above, measure
from benchmarks.accuracy.page import lines_of, render
from benchmarks.accuracy.servers import clients

_PAGE: Final = Path(__file__).resolve().parents[2] / "docs" / "accuracy.md"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and write; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.accuracy",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("page", nargs="?", type=Path, default=_PAGE)
    parser.add_argument("--only", default="", help="forms whose name begins so")
    parser.add_argument("--dtypes", nargs="*", default=DTYPES, choices=DTYPES)
    parser.add_argument("--draws", type=int, default=8, help="the most draws of one size")
    parser.add_argument("--most", type=int, default=SIZES[-1], help="the most elements")
    options = parser.parse_args(arguments)
    if np.finfo(np.longdouble).eps >= np.finfo(np.float64).eps:
        parser.error("this machine has no type wider than float64")
    chosen = [form for form in FORMS if form.name.startswith(options.only)]
    cells: dict[Key, Errors] = {}
    torch.set_num_threads(1)
    with clients() as paths, ThreadPoolExecutor(os.cpu_count()) as threads:

        def run(pair: tuple[Form, str]) -> dict[Key, Errors]:
            return measure(*pair, paths, most=options.most, draws=options.draws).cells

        pairs = list(product(chosen, options.dtypes))
        for (form, dtype), found in zip(pairs, threads.map(run, pairs), strict=True):
            cells |= found
            print(f"{form.name}, {dtype}", *lines_of(above(found)), sep="\n  ", flush=True)
    options.page.write_text(render(cells, _machine()), encoding="utf-8")
    return 1 if above(cells) else 0


def _machine() -> str:
    facts = machine.describe()
    return (
        f"{facts['cores']} cores of {facts['cpu']}, {facts['system']}; Python {facts['python']}, "
        f"torch {facts['torch']}, numpy {facts['numpy']}."
    )


if __name__ == "__main__":
    sys.exit(main())
