"""The settings of a server: read once, at the edge, and never changed."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

MIB: Final = 1024 * 1024

_CHUNKS_IN_BUDGET: Final = 64
"""How many chunks have room in the budget. A call takes up to 20, gradients and all."""

_CGROUP: Final = Path("/sys/fs/cgroup")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a server is told when it starts."""

    listen: str = "127.0.0.1:50051"
    """HOST:PORT or unix:PATH; port 0 picks a free one."""
    device: str = "auto"
    """`auto` (a GPU when there is one), `cpu` or `cuda`."""
    threads: int
    """How many threads torch uses on the CPU."""
    allow_insecure: bool = False
    """Whether to listen where other machines can call, without TLS or token."""
    max_message_bytes: int = 8 * MIB
    """The largest request in one piece."""
    max_evaluations_per_call: int = 4096
    """The most evaluations in one EvaluateMany."""
    max_in_flight_per_stream: int = 64
    """The most unanswered evaluations of one EvaluateStream."""
    memory_budget_bytes: int
    """The memory that all evaluations together may take."""
    resident_quota_bytes: int = 0
    """The memory that resident tensors may take, beside the budget; 0 keeps none."""
    region_quota_bytes: int = 0
    """How much of the budget same-host regions may hold; 0 shares no memory."""
    region_socket: str = ""
    """The unix socket that hands out regions. Empty: one in a private folder, when only this
    machine can call, and none otherwise."""
    preferred_chunk_bytes: int = 4 * MIB
    """The size of a chunk that the server recommends."""
    drain_seconds: float = 10.0
    """How long calls may go on after SIGTERM."""
    losses: tuple[str, ...] = ()
    """Modules with further losses, installed beside the server."""

    @property
    def chunk_bytes(self) -> int:
        """The size of a chunk that goes into one message, and that many calls have room for."""
        share = self.memory_budget_bytes // _CHUNKS_IN_BUDGET
        return min(self.preferred_chunk_bytes, self.max_message_bytes, share)


def available_cpus() -> int:
    """Count the CPUs this process may use: its affinity, and the cgroup's quota rounded up."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    quota = _cgroup_cpus()
    return max(1, min(allowed or 1, quota or allowed or 1))


def available_memory() -> int:
    """Give the memory this process may use, in bytes: the cgroup's limit or all there is."""
    installed = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limits = [
        int(text)
        for name in ("memory.max", "memory/memory.limit_in_bytes")
        if (text := _read(_CGROUP / name)).isdigit()
    ]
    return min([installed, *limits])


def _cgroup_cpus() -> int | None:
    """Give the cgroup's CPU quota, rounded up; None when there is none."""
    quota, _, period = _read(_CGROUP / "cpu.max").partition(" ")
    if not quota:
        quota = _read(_CGROUP / "cpu/cpu.cfs_quota_us")
        period = _read(_CGROUP / "cpu/cpu.cfs_period_us")
    if not (quota.isdigit() and period.isdigit() and int(period)):
        return None
    return -(-int(quota) // int(period))


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except OSError:
        return ""
