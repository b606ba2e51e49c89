"""A server process to test against, and the one place where the tests start one."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import grpc

UNLIMITED = (
    ("grpc.enable_retries", 0),
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
)
"""Channel options under which the server, not the channel, is what refuses."""


def path_with(folder: Path) -> str:
    """Return the PYTHONPATH of a child that also finds the modules of a folder."""
    return os.pathsep.join([str(folder), *filter(None, sys.path)])


class Child:
    """One `losswire-server serve` process, whose log is kept in a file."""

    def __init__(
        self,
        log: Path,
        *arguments: str,
        listen: str = "127.0.0.1:0",
        environment: Mapping[str, str] | None = None,
        store: str | None = "none",
    ) -> None:
        """Start it and wait until it is ready.

        It keeps no runs, unless `arguments` say where; with the store None, where the user's are.
        """
        self.log = log
        command = [sys.executable, "-m", "losswire.server", "serve", "--device", "cpu"]
        command += ["--threads", "1", "--listen", listen]
        command += [] if store is None else ["--store", store]
        command += arguments
        with log.open("wb") as stderr:
            self.process = subprocess.Popen(
                command,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                env={**os.environ, **(environment or {})},
            )
        self.first_line = self._output.readline()
        self.address = self.first_line.removeprefix("listening on ").strip()

    @property
    def _output(self) -> IO[str]:
        if self.process.stdout is None:
            message = "the process was started without a pipe"
            raise TypeError(message)
        return self.process.stdout

    def read_line(self) -> str:
        """Read the next line that it prints."""
        return self._output.readline().strip()

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self.process.poll() is None

    @property
    def resident_bytes(self) -> int:
        """The memory that the process holds."""
        status = Path(f"/proc/{self.process.pid}/status").read_text(encoding="ascii")
        [line] = [each for each in status.splitlines() if each.startswith("VmRSS:")]
        return int(line.split()[1]) * 1024

    def entries(self) -> list[dict[str, Any]]:
        """Read the log; every line must be a JSON object."""
        lines = self.log.read_text(encoding="utf-8").splitlines()
        return [json.loads(line) for line in lines]

    def channel(self) -> grpc.Channel:
        """Connect to it."""
        return grpc.insecure_channel(self.address, UNLIMITED)

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.process.send_signal(signal.SIGTERM)

    def wait(self) -> int:
        """Wait for the exit status and return it."""
        status = self.process.wait(timeout=60)
        self._output.close()
        return status

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.alive:
            self.terminate()
        try:
            self.wait()
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.wait()
            raise
