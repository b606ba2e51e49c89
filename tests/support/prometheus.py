"""A real Prometheus."""

import json
import socket
import subprocess
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server
from wsgiref.types import WSGIApplication

SECONDS = 60
"""How long to wait for a scrape."""


class _Quiet(WSGIRequestHandler):
    """Writes no line for each request."""

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as it is called
        """Do nothing."""


@contextmanager
def _serving(app: WSGIApplication) -> Iterator[int]:
    """Serve an application; yields the port."""
    with make_server("127.0.0.1", 0, app, handler_class=_Quiet) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


def _free_port() -> int:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port: int = bound.getsockname()[1]
    return port


class Prometheus:
    """Asks a Prometheus."""

    def __init__(self, port: int) -> None:
        self._start = f"http://127.0.0.1:{port}/api/v1/"

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Return the series that an expression gives now."""
        return list(self._get("query", {"query": expression})["result"])

    def rules(self) -> list[dict[str, Any]]:
        """Return the rules, with their state and their health."""
        groups = self._get("rules", {})["groups"]
        return [rule for group in groups for rule in group["rules"]]

    def number(self, expression: str) -> float:
        """Return the only number that an expression gives."""
        [series] = self.query(expression)
        return float(series["value"][1])

    def _get(self, path: str, fields: Mapping[str, str]) -> dict[str, Any]:
        url = f"{self._start}{path}?{urllib.parse.urlencode(fields)}"
        with urllib.request.urlopen(url, timeout=SECONDS) as answer:  # noqa: S310 - our own
            data: dict[str, Any] = json.load(answer)["data"]
        return data

    def wait(self, expression: str) -> None:
        """Wait until an expression gives something."""
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            try:
                if self.query(expression):
                    return
            except OSError:
                pass  # it is still starting
            time.sleep(0.2)
        raise TimeoutError(f"{expression} gives nothing")


@contextmanager
def scraping(executable: str, app: WSGIApplication, folder: Path) -> Iterator[Prometheus]:
    """Run a Prometheus that scrapes an application every second."""
    with _serving(app) as target:
        settings = {
            "global": {"scrape_interval": "1s"},
            "scrape_configs": [
                {"job_name": "losses", "static_configs": [{"targets": [f"127.0.0.1:{target}"]}]}
            ],
        }
        path = folder / "prometheus.yml"  # JSON is YAML
        path.write_text(json.dumps(settings), "utf-8")
        with running_prometheus(executable, path) as started:
            yield started


@contextmanager
def running_prometheus(executable: str, settings: Path) -> Iterator[Prometheus]:
    """Run a Prometheus with a file of settings; what it writes is beside that file."""
    port, folder = _free_port(), settings.parent
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(
            [
                executable,
                f"--config.file={settings}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
                "--enable-feature=native-histograms",
            ],
            stdout=log,
            stderr=log,
        )
        try:
            yield Prometheus(port)
        finally:
            process.terminate()
            process.wait(30)
