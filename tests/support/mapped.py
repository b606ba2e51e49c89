"""Counts the regions that a process has mapped, as the kernel sees them."""

import gc
import threading
from collections.abc import Callable
from pathlib import Path


def mapped_regions() -> int:
    """Count the regions that this process has mapped, without those that wait for a collection."""
    gc.collect()
    lines = Path("/proc/self/maps").read_text(encoding="utf-8").splitlines()
    return sum("losswire-region" in line for line in lines)


def descriptors(process: int) -> int:
    """Count the open descriptors of a process."""
    return sum(1 for _ in Path(f"/proc/{process}/fd").iterdir())


def eventually(condition: Callable[[], bool]) -> bool:
    """Wait up to a minute until a condition holds; returns whether it did."""
    waiting = threading.Event()
    return any(condition() or waiting.wait(0.01) for _ in range(6000))
