"""Servers as child processes, started the way an operator starts them."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

_GREETING = "listening on "


@contextmanager
def running_server(*arguments: str, environment: Mapping[str, str] | None = None) -> Iterator[str]:
    """Start a server on a free port and yield its address; SIGTERM ends it with status 0.

    `arguments` are further ones of `serve`, `environment` further variables.
    """
    command = [sys.executable, "-m", "losswire.server", "serve"]
    command += ["--listen", "127.0.0.1:0", "--device", "cpu", "--threads", "1"]
    # Not where the user of these tests keeps runs.
    command += ["--store", "none", *arguments]
    with subprocess.Popen(
        command,
        env={**os.environ, **(environment or {})},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line.startswith(_GREETING), f"instead of an address the server wrote {line!r}"
            yield line.removeprefix(_GREETING).strip()
        finally:
            process.send_signal(signal.SIGTERM)
            status = process.wait(timeout=60)
        assert status == 0, f"the server ended with status {status}"


def assert_accepted(settings: Path) -> None:
    """Check that the server's own command line accepts a file of settings."""
    command = [sys.executable, "-m", "losswire.server", "serve", "--check-config"]
    ran = subprocess.run(
        [*command, "--config", str(settings)], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
