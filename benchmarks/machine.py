"""The machine of a run, and whether anything else was running."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

_PACKAGES = ("torch", "grpcio", "protobuf", "numpy", "ml_dtypes", "losswire", "losswire-server")
_BUSY_LOAD = 0.5
"""The load average, per core, from which the figures are not to be trusted."""

_BUSY_SHARE = 0.1
"""The part of all CPU time that others may use during a run."""


def describe() -> dict[str, Any]:
    """Return versions and hardware."""
    return {
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": f"{platform.system()} {platform.release()}, {' '.join(platform.libc_ver())}",
        "python": platform.python_version(),
        **{name: _version(name) for name in _PACKAGES},
    }


def load() -> float:
    """Return how many processes wanted to run during the last minute, per core."""
    return os.getloadavg()[0] / len(os.sched_getaffinity(0))


def is_busy(load_per_core: float) -> bool:
    """Return whether that is too much for a measurement."""
    return load_per_core > _BUSY_LOAD


def disturbs(used_by_others: float) -> bool:
    """Return whether others used too much of the CPUs during the run."""
    return used_by_others > _BUSY_SHARE


class Neighbours:
    """The CPU time that other programs used."""

    def __init__(self) -> None:
        """Start to watch."""
        self._begin = self._read()

    def share(self) -> float:
        """Return the part of all CPU time since then that others used, from 0 to 1."""
        busy, total, own = (now - then for now, then in zip(self._read(), self._begin, strict=True))
        return max(0.0, busy - own) / total if total else 0.0

    @staticmethod
    def _read() -> tuple[float, float, float]:
        """Return seconds: of busy CPUs, of all CPUs, and of this program with ended children."""
        line = Path("/proc/stat").read_text(encoding="ascii").partition("\n")[0]
        # user nice system idle iowait irq softirq steal; what guests use is part of user.
        ticks = [int(each) / os.sysconf("SC_CLK_TCK") for each in line.split()[1:9]]
        times = os.times()
        return sum(ticks) - ticks[3] - ticks[4], sum(ticks), sum(times[:4])


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or "unknown"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
