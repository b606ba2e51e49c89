"""The settings of a server, read once by the command line and never changed."""

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from losswire.server import thresholds
from losswire.server.control_group import cpu_limit, memory_limit

MIB: Final = 1024 * 1024


@dataclass(frozen=True, kw_only=True)
class Place:
    """The place of a worker among those that a supervisor runs."""

    index: int
    """From 0; the worker that replaces it has the same."""
    count: int
    """How many there are."""
    listen: str
    """The address that all of them have, with the port that was picked."""
    folder: str
    """A private folder, in which all workers answer each other's questions."""
    http_descriptor: int | None = None
    """The socket of the HTTP door, which all of them listen at; None: there is none."""
    metrics_descriptor: int | None = None
    """That of the address where metrics are read."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings of one server."""

    listen: str = "127.0.0.1:50051"
    """HOST:PORT or unix:PATH; port 0 picks a free one."""
    metrics: str = ""
    """HOST:PORT where Prometheus reads metrics; empty: nowhere."""
    http: str = ""
    """HOST:PORT of the HTTP door and the console; port 0 picks a free one. Empty: there is none."""
    http_cors: tuple[str, ...] = ()
    """The origins of pages, besides the console, that may call the HTTP door from a browser."""
    device: str = "auto"
    """`auto` (a GPU when there is one), `cpu` or `cuda`."""
    threads: int
    """The threads that torch uses on the CPU."""
    allow_insecure: bool = False
    """Whether to listen at an address that other machines can reach, without TLS or token."""
    tls_cert: str = ""
    """A file with the server's certificates, in PEM, its own first; empty: no TLS."""
    tls_key: str = ""
    """The file with the key of the first certificate."""
    tls_client_ca: str = ""
    """A file with the authorities whose certificates callers have to show; empty: none."""
    tokens: str = ""
    """A file with the hashes of the tokens that callers may show; empty: none is asked for."""
    health: str = ""
    """HOST:PORT where only health is answered, without TLS and tokens; empty: nowhere."""
    call_log: str = "none"
    """Which calls have a line in the log: `none`, `errors`, `all`, or a fraction such as `0.01`,
    which adds that part of the others to the errors."""
    orca: bool = False
    """Whether calls end with a report of the load, for load balancers."""
    max_message_bytes: int = 8 * MIB
    """The largest request in one message."""
    max_evaluations_per_call: int = 4096
    """The most evaluations in one EvaluateMany."""
    max_in_flight_per_stream: int = 64
    """The most unanswered evaluations of one EvaluateStream."""
    memory_budget_bytes: int
    """The memory that all evaluations together may take."""
    resident_quota_bytes: int = 0
    """The memory that resident tensors may take, beside the budget; 0 keeps none."""
    region_quota_bytes: int = 0
    """The part of the budget that regions shared with callers may hold; 0 shares no memory."""
    region_socket: str = ""
    """The unix socket that leases regions. Empty: one in a private folder, when only this machine
    can call, and none otherwise."""
    preferred_chunk_bytes: int = thresholds.PREFERRED_CHUNK_BYTES
    """The size of a chunk that the server recommends."""
    drain_seconds: float = 10.0
    """The seconds that calls may continue after SIGTERM."""
    notice_seconds: float = 0.0
    """The seconds after SIGTERM in which calls are accepted although health says NOT_SERVING."""
    hang_seconds: float = 60.0
    """The seconds for which one evaluation may occupy the engine before it counts as hung."""
    place: Place | None = None
    """The place of this process among others with the same addresses; None: it is alone."""
    losses: tuple[str, ...] = ()
    """Modules with further losses, installed beside the server."""
    store: str = "none"
    """Where runs are kept: a folder, a URL of SQLite or PostgreSQL, or `none`."""
    http_files: Mapping[str, Path] = field(default_factory=dict)
    """Files that the console may read, each by a token that is a part of its address."""

    @property
    def lets_others_call(self) -> bool:
        """Whether it may be reached from other machines.

        With TLS, and callers who say who they are, or because that is not wanted.
        """
        asks = self.tokens or self.tls_client_ca
        return self.allow_insecure or bool(self.tls_cert and asks)

    @property
    def chunk_bytes(self) -> int:
        """The recommended size of a chunk: fits into one message, and many fit into the budget."""
        share = self.memory_budget_bytes // thresholds.CHUNKS_IN_BUDGET
        return min(self.preferred_chunk_bytes, self.max_message_bytes, share)


def call_log_fraction(setting: str) -> float | None:
    """Return which part of the calls that succeed has a line in the log; None: no call has one.

    Of those that fail all have one then. Raises ValueError for what is no such setting.
    """
    if setting == "none":
        return None
    fraction = {"errors": 0.0, "all": 1.0}.get(setting)
    if fraction is None:
        with suppress(ValueError):
            fraction = float(setting)
    if fraction is None or not 0 <= fraction <= 1:
        message = f"{setting}: expected `none`, `errors`, `all` or a fraction such as 0.01"
        raise ValueError(message)
    return fraction


def available_cpus() -> int:
    """Count the CPUs this process may use: its affinity, and the cgroup's quota rounded up."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    quota = cpu_limit()
    return max(1, min(allowed or 1, quota or allowed or 1))


def available_memory() -> int:
    """Return the memory this process may use, in bytes: the cgroup's limit or all there is."""
    installed = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = memory_limit()
    return installed if limit is None else min(installed, limit)
