"""Child processes: servers, and clients that measure on command."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from benchmarks.worker import Spec

ROOT = Path(__file__).resolve().parents[1]

_GREETING = "listening on "
_STOP_SECONDS = 15


class ChildError(Exception):
    """A child process ended, or wrote something else than was expected."""


class Process:
    """A child process, and what it used."""

    def __init__(self, module: str, *arguments: str) -> None:
        """Start `python -m MODULE ...`."""
        self._name = " ".join([module, *arguments])
        self._process = subprocess.Popen(  # noqa: S603 - a program of this repository
            [sys.executable, "-m", module, *arguments],
            cwd=ROOT,
            env={**os.environ, "GRPC_VERBOSITY": "NONE"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    @property
    def cpu_seconds(self) -> float:
        """The CPU time of it and what it started, with the kernel's for them."""
        return sum(map(_cpu_seconds, _family(self._process.pid)))

    @property
    def resident_bytes(self) -> int:
        """The memory that it holds."""
        return self._status("VmRSS")

    @property
    def peak_bytes(self) -> int:
        """The most memory that it held since `reset_peak`."""
        return self._status("VmHWM")

    def reset_peak(self) -> None:
        """Forget the most memory that it held."""
        Path(f"/proc/{self._process.pid}/clear_refs").write_text("5", encoding="ascii")

    def _status(self, field: str) -> int:
        text = Path(f"/proc/{self._process.pid}/status").read_text(encoding="ascii")
        [line] = [each for each in text.splitlines() if each.startswith(f"{field}:")]
        return int(line.split()[1]) * 1024

    def read_line(self) -> str:
        """Read a line of its output."""
        line = _pipe(self._process.stdout).readline()
        if not line:
            message = f"{self._name} ended with status {self._process.wait()}"
            raise ChildError(message)
        return line

    def write_line(self, line: str) -> None:
        """Write a line to its input."""
        pipe = _pipe(self._process.stdin)
        pipe.write(line + "\n")
        pipe.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.end()

    def end(self) -> None:
        """End it and wait until it has."""
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            _pipe(pipe).close()


class Server(Process):
    """A server on a port of its own choice."""

    @property
    def address(self) -> str:
        """Where it listens, once it does."""
        if not hasattr(self, "_address"):
            line = self.read_line()
            if not line.startswith(_GREETING):
                message = f"instead of an address {self._name} wrote {line!r}"
                raise ChildError(message)
            self._address = line.removeprefix(_GREETING).strip()
        return self._address


class Driver(Process):
    """A client that measures."""

    def open(self, name: str, spec: Spec) -> dict[str, Any]:
        """Make something to measure, and check its result once."""
        return self._ask(do="open", name=name, spec=asdict(spec))

    def run(self, name: str, count: int) -> dict[str, Any]:
        """Measure it a number of times."""
        return self._ask(do="run", name=name, count=count)

    def _ask(self, **command: object) -> dict[str, Any]:
        self.write_line(json.dumps(command))
        answer: dict[str, Any] = json.loads(self.read_line())
        return answer


def _family(pid: int) -> list[int]:
    """Return a process and those that run of all that it started, directly or not."""
    found = [pid]
    for each in found:
        for task in Path(f"/proc/{each}/task").glob("*/children"):
            with suppress(OSError):  # it has ended meanwhile
                found += map(int, task.read_text(encoding="ascii").split())
    return found


def _cpu_seconds(pid: int) -> float:
    """Return the CPU time of all threads of a process; 0 when it has ended meanwhile."""
    with suppress(OSError):
        # As clock_getcpuclockid makes a clock of a process; in nanoseconds, unlike /proc's ticks.
        return time.clock_gettime(~pid << 3 | 2)
    return 0.0


def _pipe(pipe: IO[str] | None) -> IO[str]:
    if pipe is None:
        raise ChildError("the process was started without a pipe")
    return pipe
