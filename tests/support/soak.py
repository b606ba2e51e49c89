"""The two tiers of the tests under attack and load, and the table of the longer one.

Without `--soak` they run with small numbers and check states and counters; with it, with the full
numbers, and what they measured must be as required.
"""

import os
import platform
import re
from collections.abc import Iterable
from dataclasses import astuple, dataclass
from datetime import UTC, datetime
from operator import ge, gt, le, lt
from pathlib import Path
from typing import Final, TypeVar

_T = TypeVar("_T")

_COMPARISONS: Final = {"<=": le, ">=": ge, "<": lt, ">": gt}
_REQUIRED: Final = re.compile(r"(<=|>=|<|>)? ?(-?[\d.]+)")


@dataclass(frozen=True)
class Figure:
    """One row of the table."""

    name: str
    value: float
    unit: str
    required: str
    test: str

    @property
    def holds(self) -> bool:
        """Whether the value is as required."""
        if not self.required:
            return True
        match = _REQUIRED.fullmatch(self.required)
        assert match is not None, f"{self.required!r} is no requirement"
        sign, bound = match.groups()
        if sign is None:
            return self.value == float(bound)
        return bool(_COMPARISONS[sign](self.value, float(bound)))

    def row(self) -> str:
        """Return it as a row of Markdown."""
        value = f"{self.value:,.4g}" if abs(self.value) < 1000 else f"{self.value:,.0f}"
        unit = f" {self.unit}" if self.unit else ""
        required = self.required + unit if self.required else ""
        mark = "" if self.holds else " **(missed)**"
        return f"| {self.name} | {value}{unit}{mark} | {required} | `{self.test}` |"


class Book:
    """What the tests of this process have measured, and in which tier."""

    def __init__(self) -> None:
        self.soak = False
        self.figures: list[Figure] = []

    def take(self, rows: Iterable[Iterable[object]]) -> None:
        """Add the figures of another process, as `rows` returned them."""
        self.figures += [Figure(*row) for row in rows]  # type: ignore[arg-type]

    def rows(self) -> list[list[object]]:
        """Return the figures in a form that travels between processes."""
        return [list(astuple(each)) for each in self.figures]

    def missed(self, before: int) -> list[str]:
        """Return the figures behind the first `before` that are not as required."""
        return [each.row() for each in self.figures[before:] if not each.holds]

    def table(self) -> list[str]:
        """Return the lines of the table, in Markdown."""
        now = datetime.now(UTC)
        return [
            f"`make soak` on {now.day} {now:%B %Y}, {machine()}:",
            "",
            "| Figure | Measured | Required | Test |",
            "|---|---|---|---|",
            *(each.row() for each in sorted(self.figures, key=lambda each: each.test)),
        ]


BOOK: Final = Book()


def tier(*, short: _T, soak: _T) -> _T:
    """Return the value for the tier that runs."""
    return soak if BOOK.soak else short


def record(name: str, value: float, *, unit: str = "", required: str = "") -> None:
    """Add a figure to the table of `--soak`, whose test fails unless it is as `required`.

    `required` is a bound such as `<= 15` or `>= 0.9`, or a number that it must be; without it the
    figure is only shown. Nothing is compared in the short tier.
    """
    BOOK.figures.append(Figure(name, float(value), unit, required, current_test()))


def current_test() -> str:
    """Return the test that runs, as FILE::NAME[PARAMETERS]; the folder of most is left out."""
    path, _, name = os.environ.get("PYTEST_CURRENT_TEST", "::").partition("::")
    file = path.removeprefix("tests/").removeprefix("robustness/")
    return f"{file}::{name.rpartition(' ')[0]}"


def percentile(values: Iterable[float], share: float) -> float:
    """Return the value below which a share of the values lies, such as 0.99; 0 of none."""
    ordered = sorted(values)
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)] if ordered else 0.0


def machine() -> str:
    """Describe the machine in a few words."""
    names = re.findall(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text("utf-8"))
    cores = len(os.sched_getaffinity(0))
    return f"{cores} cores of {names[0] if names else platform.machine()}, Linux"
