"""What a process holds: memory, descriptors, threads; read from outside."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread
from time import monotonic, sleep
from typing import Self


@dataclass(frozen=True)
class Vitals:
    """One reading."""

    resident_bytes: int
    descriptors: int
    threads: int


def vitals(pid: int) -> Vitals:
    """Read a process; raises OSError when it is gone."""
    return Vitals(
        resident_bytes=_status(pid, "VmRSS") * 1024,
        descriptors=sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir()),
        threads=_status(pid, "Threads"),
    )


def descriptors_named(pid: int, part: str) -> int:
    """Count the descriptors whose target contains a text, such as `memfd:losswire-region`."""
    count = 0
    for each in Path(f"/proc/{pid}/fd").iterdir():
        try:
            count += part in str(each.readlink())
        except FileNotFoundError:  # closed meanwhile
            continue
    return count


def family(pid: int) -> list[int]:
    """Return a process and all that it started, directly or not."""
    found = [pid]
    for each in found:
        for task in Path(f"/proc/{each}/task").glob("*/children"):
            found += map(int, task.read_text("ascii").split())
    return found


class PeakMemory:
    """Watches the memory of some processes together, while its context is open.

    The system's own record of the peak is of one process and includes what was before, so that it
    samples instead: every 20 ms.
    """

    def __init__(self, *pids: int) -> None:
        self._pids = pids
        self._stop = Event()
        self._thread = Thread(target=self._watch, daemon=True)
        self.before_bytes = self._sum()
        self.peak_bytes = self.before_bytes

    @property
    def growth_bytes(self) -> int:
        """The peak beyond what there was before."""
        return self.peak_bytes - self.before_bytes

    def _sum(self) -> int:
        total = 0
        for pid in self._pids:
            try:
                total += _status(pid, "VmRSS") * 1024
            except OSError:
                continue
        return total

    def _watch(self) -> None:
        while not self._stop.wait(0.02):
            self.peak_bytes = max(self.peak_bytes, self._sum())

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()


def wait_until(condition: Callable[[], bool], seconds: float = 60.0) -> float:
    """Wait until something holds and return how long it took; raises TimeoutError."""
    start = monotonic()
    while not condition():
        if monotonic() - start > seconds:
            message = f"it did not happen in {seconds} s"
            raise TimeoutError(message)
        sleep(0.01)
    return monotonic() - start


def _status(pid: int, name: str) -> int:
    """Read a number of /proc/PID/status; 0 where a process that has ended has none."""
    for line in Path(f"/proc/{pid}/status").read_text("ascii").splitlines():
        key, _, value = line.partition(":")
        if key == name:
            return int(value.split()[0])
    return 0
