"""What the kernel's control groups allow this process: processors and memory.

A group is limited by each that it is in. The kernel shows those of a process by the paths in
/proc/self/cgroup; in most containers the path is `/`, and the mount begins at their own group.
"""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Final

ROOT: Final = Path("/sys/fs/cgroup")
"""Where the groups of version 2 are mounted; those of version 1 in a folder for each controller."""

OWN: Final = Path("/proc/self/cgroup")
"""The groups of this process: a line `ID:CONTROLLERS:PATH` for each hierarchy."""


def memory_limit() -> int | None:
    """Return the most bytes that the groups allow; None: there is no limit."""
    texts = [_read(folder / "memory.max") for folder in _folders("")]
    texts += [_read(folder / "memory.limit_in_bytes") for folder in _folders("memory")]
    return min((int(text) for text in texts if text.isdigit()), default=None)


def cpu_limit() -> int | None:
    """Return the fewest processors that the groups allow, rounded up; None: there is no limit."""
    quotas = [text for folder in _folders("") if (text := _read(folder / "cpu.max"))]
    if not quotas:
        quotas = [
            f"{_read(folder / 'cpu.cfs_quota_us')} {_read(folder / 'cpu.cfs_period_us')}"
            for folder in _folders("cpu")
        ]
    return min((count for text in quotas if (count := _processors(text))), default=None)


def _processors(text: str) -> int | None:
    """Return how many processors a quota and its period are, rounded up."""
    quota, _, period = text.partition(" ")
    if not (quota.isdigit() and period.isdigit() and int(period)):
        return None
    return -(-int(quota) // int(period))


def _folders(controller: str) -> Iterator[Path]:
    """Yield the folders of a controller's groups, from the process's own up to the root.

    Without a controller: those of version 2, which has one hierarchy for all.
    """
    mount = ROOT / controller
    path = PurePosixPath(_own_path(controller))
    for each in (path, *path.parents):
        # Outside of the mount the kernel writes `/../`: what is there cannot be seen.
        if ".." not in each.parts:
            yield mount / each.relative_to("/")


def _own_path(controller: str) -> str:
    """Return the path of the process's group in the hierarchy of a controller; `/` for unknown."""
    for line in _read(OWN).splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controller in controllers.split(",") and path.startswith("/"):
            return path
    return "/"


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
