"""Servers to measure: with the native library, and without it."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Final

from losswire.client import Client

_GREETING: Final = "listening on "
_PATHS: Final = {
    "native": "from losswire.server.cli import main; main()",
    # As an installation without a compiler.
    "torch blocks": (
        "from losswire.server.compute.native import binding; binding.AVAILABLE = False;"
        "from losswire.server.cli import main; main()"
    ),
}
_TIMEOUT: Final = 120.0


@contextmanager
def clients() -> Iterator[dict[str, Client]]:
    """Start a server for each path; yields a client of each."""
    with ExitStack() as stack:
        yield {path: stack.enter_context(_serving(code)) for path, code in _PATHS.items()}


@contextmanager
def _serving(code: str) -> Iterator[Client]:
    command = [sys.executable, "-c", code, "serve", "--listen", "127.0.0.1:0", "--device", "cpu"]
    with subprocess.Popen(  # noqa: S603 (a program of this repository)
        command,
        env={**os.environ, "GRPC_VERBOSITY": "NONE"},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            line = process.stdout.readline() if process.stdout else ""
            if not line.startswith(_GREETING):
                message = f"instead of an address the server wrote {line!r}"
                raise ChildProcessError(message)
            with Client(line.removeprefix(_GREETING).strip(), timeout=_TIMEOUT) as client:
                yield client
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=30)
