"""A server process with all its addresses: gRPC, HTTP and metrics."""

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

_SECONDS = 60
"""How long to wait for an answer: for hangs only."""


@dataclass(frozen=True)
class Doors:
    """The addresses of a server, HOST:PORT each, and its process."""

    grpc: str
    http: str
    metrics: str
    pid: int

    def page(self, accept: str = "") -> tuple[str, bytes]:
        """Return the content type and the bytes of /metrics."""
        request = urllib.request.Request(f"http://{self.metrics}/metrics")
        if accept:
            request.add_header("Accept", accept)
        with urllib.request.urlopen(request, timeout=_SECONDS) as answer:  # noqa: S310 - our own
            return answer.headers["Content-Type"], answer.read()

    def samples(self) -> "Samples":
        """Return what the page in text has now."""
        return Samples(self.page()[1].decode())

    def get(self, path: str) -> Any:  # noqa: ANN401 (any JSON)
        """Return the JSON of a path of the HTTP door."""
        return self.ask("GET", path)[1]

    def ask(self, method: str, path: str, content: object = None) -> tuple[int, Any]:
        """Send a request with JSON; returns the status and the JSON of the answer."""
        request = urllib.request.Request(
            f"http://{self.http}{path}",
            data=None if content is None else json.dumps(content).encode(),
            headers={"Content-Type": "application/json"},
            method=method,
        )
        try:
            with urllib.request.urlopen(request, timeout=_SECONDS) as answer:  # noqa: S310 - our own
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.load(error)


class Samples:
    """The samples of a page in text."""

    def __init__(self, text: str) -> None:
        self._values: dict[str, list[tuple[Mapping[str, str], float]]] = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                self._values.setdefault(sample.name, []).append((sample.labels, sample.value))

    def __contains__(self, name: str) -> bool:
        """Return whether there is a sample of this name."""
        return name in self._values

    def of(self, name: str, **labels: str) -> float:
        """Return the sum of the samples with a name and these labels; 0 when there are none."""
        return sum(
            value
            for has, value in self._values.get(name, [])
            if all(has.get(key) == wanted for key, wanted in labels.items())
        )

    def labels(self, name: str, label: str) -> set[str]:
        """Return all values of a label."""
        return {has[label] for has, _ in self._values.get(name, [])}


@contextmanager
def open_doors(*arguments: str, environment: Mapping[str, str] | None = None) -> Iterator[Doors]:
    """Start a server with all its addresses; SIGTERM ends it with status 0.

    `arguments` are further ones of `serve`, `environment` further variables.
    """
    command = [sys.executable, "-m", "losswire.server", "serve", "--device", "cpu"]
    command += ["--threads", "1", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0"]
    command += ["--metrics", "127.0.0.1:0"]
    if "--store" not in arguments:
        command += ["--store", "none"]
    with subprocess.Popen(
        [*command, *arguments],
        env={**os.environ, **(environment or {})},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            lines = [process.stdout.readline().strip() for _ in range(3)]
            starts = ("listening on ", "http on ", "metrics on ")
            assert all(map(str.startswith, lines, starts)), f"the server wrote {lines}"
            grpc, http, metrics = map(str.removeprefix, lines, starts)
            yield Doors(grpc, http, metrics, process.pid)
        finally:
            process.send_signal(signal.SIGTERM)
            status = process.wait(timeout=60)
        assert status == 0, f"the server ended with status {status}"
