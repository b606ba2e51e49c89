"""Runs a demonstration in a child process, and classifies its output."""

import math
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

_SCRIPT = Path(__file__).with_name("plain_torch.py")


@dataclass(frozen=True)
class Shown:
    """The end of a demonstration."""

    status: int
    """Negative: the signal that ended it."""
    numbers: Sequence[float]
    complaint: str


Judge = Callable[[Shown], bool]
"""Tells whether a demonstration showed torch to misbehave in a certain way."""


def show(name: str) -> Shown:
    """Run a demonstration."""
    child = subprocess.run(
        [sys.executable, str(_SCRIPT), name], capture_output=True, text=True, check=False
    )
    return Shown(child.returncode, [float(line) for line in child.stdout.split()], child.stderr)


def crashes(shown: Shown) -> bool:
    """Return whether the process was lost."""
    return shown.status == -signal.SIGSEGV


def reads_its_neighbours(shown: Shown) -> bool:
    """Return whether equal inputs gave two numbers, because other memory differed."""
    first, second = shown.numbers
    return shown.status == 0 and first != second


def gives_what_memory_held(shown: Shown) -> bool:
    """Return whether the mean of no rows was ever a number."""
    return shown.status == 0 and any(not math.isnan(n) and n != 0 for n in shown.numbers)


def gives_a_number(shown: Shown) -> bool:
    """Return whether an input without a meaning gave a result."""
    return shown.status == 0 and all(map(math.isfinite, shown.numbers))
