"""What is measured at the moment when somebody asks, beside what the recorder counted."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """The state of a server now."""

    worker_id: str
    server_version: str
    torch_version: str
    device: str
    """`cpu` or `cuda:0`."""
    device_name: str
    started: float
    """Seconds since 1970."""
    is_ready: bool
    selftest_seconds: float
    budget_bytes: int
    quota_bytes: dict[str, int]
    """Of `regions` and `residents`."""
    reserved_bytes: dict[str, int]
    """Of `receive`, `compute`, `answer`, `regions` and `residents`; all but the last are within the
    budget."""
    queue_length: int
    """The evaluations and parts that wait for the worker."""
    queue_oldest_seconds: float
    device_memory_bytes: int
    device_memory_reserved_bytes: int
    """What this process holds of it."""

    @property
    def admitted_ratio(self) -> float:
        """The part of the budget that is reserved."""
        held = sum(self.reserved_bytes.values()) - self.reserved_bytes["residents"]
        return held / self.budget_bytes if self.budget_bytes else 0.0
