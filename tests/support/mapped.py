"""What a process has mapped and open, as the kernel sees it."""

import gc
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path


def mapped_regions() -> int:
    """Count the regions that this process has mapped, without those that wait for a collection."""
    gc.collect()
    lines = Path("/proc/self/maps").read_text(encoding="utf-8").splitlines()
    return sum("losswire-region" in line for line in lines)


def descriptors(process: int) -> int:
    """Count the open descriptors of a process."""
    return sum(1 for _ in Path(f"/proc/{process}/fd").iterdir())


def open_files(process: int | str = "self") -> Iterator[tuple[Path, str]]:
    """Yield each open descriptor of a process and what it refers to.

    Other threads of that process open and close descriptors meanwhile: one that is gone before
    it was read is not open.
    """
    for each in tuple(Path(f"/proc/{process}/fd").iterdir()):
        with suppress(OSError):
            yield each, str(each.readlink())


def eventually(condition: Callable[[], bool]) -> bool:
    """Wait up to a minute until a condition holds; returns whether it did."""
    waiting = threading.Event()
    return any(condition() or waiting.wait(0.01) for _ in range(6000))
