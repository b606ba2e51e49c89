"""deploy/kubernetes: a server with the settings of the ConfigMap does what a cluster expects."""

import itertools
import os
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import httpx
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from losswire.client import Client, LosswireError
from losswire.server.identity.authority import Authority
from losswire.server.identity.tokens import digest_of, new_token
from losswire.server.rpc.health import LIVE
from tests.deploy.manifests import BASE, of_base

SECONDS = 60
"""How long to wait for an answer: for hangs only."""
_Status = health_pb2.HealthCheckResponse


class Secret:
    """A folder as the kubelet mounts a Secret: links into a folder that is replaced as a whole."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._numbers = itertools.count()
        folder.mkdir()

    def write(self, files: Mapping[str, bytes]) -> None:
        """Replace all files at once."""
        version = self._folder / f"..{next(self._numbers)}"
        version.mkdir()
        for name, content in files.items():
            (version / name).write_bytes(content)
            link = self._folder / name
            if not link.is_symlink():
                link.symlink_to(f"..data/{name}")
        new = self._folder / "..data_tmp"
        new.symlink_to(version.name)
        new.rename(self._folder / "..data")


@dataclass(frozen=True)
class Replica:
    """A server, its ports, its tokens as a Secret, and the authority to trust."""

    process: subprocess.Popen[str]
    port: int
    metrics: int
    health: int
    tokens: Secret
    authority: Path

    def state(self, service: str) -> int:
        """Return what a probe is told."""
        with grpc.insecure_channel(f"127.0.0.1:{self.health}") as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            request = health_pb2.HealthCheckRequest(service=service)
            return int(stub.Check(request, timeout=SECONDS, wait_for_ready=True).status)

    def read_metrics(self, token: str) -> httpx.Response:
        """Ask for metrics with a token; none where it is empty."""
        context = ssl.create_default_context(cafile=str(self.authority))
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return httpx.get(
            f"https://127.0.0.1:{self.metrics}/metrics",
            headers=headers,
            verify=context,
            timeout=SECONDS,
        )


def hash_of(token: str) -> bytes:
    """Return the line of a file of tokens."""
    return f"prometheus sha256:{digest_of(token)}\n".encode()


TOKEN = new_token()


@contextmanager
def serving(folder: Path, **variables: str) -> Iterator[Replica]:
    """Serve with those settings, but for folders and ports; SIGTERM ends it with status 0."""
    issued = folder / "issued"
    issued.mkdir()
    authority = Authority.make()
    authority.write(issued)
    authority.issue_server(issued, ["losswire"])
    mounted = folder / "etc"
    mounted.mkdir()
    Secret(mounted / "tls").write(
        {
            "tls.crt": (issued / "server.pem").read_bytes(),
            "tls.key": (issued / "server-key.pem").read_bytes(),
        }
    )
    tokens = Secret(mounted / "tokens")
    tokens.write({"tokens": hash_of(TOKEN)})
    text = (BASE / "losswire.toml").read_text("utf-8").replace("/etc/losswire", str(mounted))
    for listened in ("50051", "9464", "50052"):
        text = text.replace(f'"0.0.0.0:{listened}"', '"0.0.0.0:0"')
    config = folder / "losswire.toml"
    config.write_text(text, "utf-8")
    with subprocess.Popen(
        [sys.executable, "-m", "losswire.server", "serve", "--config", str(config)],
        env={**os.environ, "LOSSWIRE_DEVICE": "cpu", "LOSSWIRE_THREADS": "1", **variables},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            starts = ("listening on ", "metrics on ", "health on ")
            lines = [process.stdout.readline().strip() for _ in starts]
            assert all(map(str.startswith, lines, starts)), f"the server wrote {lines}"
            port, metrics, health = (int(line.rpartition(":")[2]) for line in lines)
            yield Replica(process, port, metrics, health, tokens, issued / "ca.pem")
        finally:
            process.send_signal(signal.SIGTERM)
            status = process.wait(timeout=SECONDS)
        assert status == 0


@pytest.fixture(scope="module")
def replica(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replica]:
    """A server that ends at once."""
    with serving(tmp_path_factory.mktemp("replica"), LOSSWIRE_NOTICE_SECONDS="0") as found:
        yield found


def test_probes_are_answered_without_tls_and_token(replica: Replica) -> None:
    """Each probe of the Deployment is told SERVING."""
    [container] = of_base("Deployment")["spec"]["template"]["spec"]["containers"]
    for name in ("startup", "readiness", "liveness"):
        service = container[f"{name}Probe"]["grpc"]["service"]
        assert replica.state(service) == _Status.SERVING


def test_a_replica_that_ends_is_alive_and_not_ready(tmp_path: Path) -> None:
    """Until its notice is over, so that the kubelet takes it out of DNS and does not kill it."""
    with serving(tmp_path) as ending:
        ending.process.send_signal(signal.SIGTERM)
        end = time.monotonic() + SECONDS
        while ending.state("") != _Status.NOT_SERVING:
            assert time.monotonic() < end
        assert ending.state(LIVE) == _Status.SERVING


def test_callers_find_it_by_name(replica: Replica) -> None:
    """The SDK with a target that DNS resolves, the authority and a token; not without a token."""
    target = f"dns:///localhost:{replica.port}"
    inputs = {"input": np.ones(3, np.float32), "target": np.zeros(3, np.float32)}
    with Client(target, token=TOKEN, tls_ca=str(replica.authority)) as client:
        assert client.evaluate("mse_loss", inputs).loss == 1
    with (
        Client(target, tls_ca=str(replica.authority)) as client,
        pytest.raises(LosswireError, match="a token is needed"),
    ):
        client.evaluate("mse_loss", inputs)


def test_metrics_are_read_as_the_service_monitor_says(replica: Replica) -> None:
    """Over TLS and with a token, and never without."""
    assert "losswire_admitted_ratio" in replica.read_metrics(TOKEN).text
    assert replica.read_metrics("").status_code == 401
    assert replica.read_metrics(new_token()).status_code == 401


def test_a_changed_secret_is_read_again(replica: Replica) -> None:
    """The kubelet replaces the folder behind the links: a new token counts, one that left ends."""
    newer = new_token()
    for line, status in ((hash_of(newer), 200), (b"", 401)):
        replica.tokens.write({"tokens": hash_of(TOKEN) + line})
        end = time.monotonic() + SECONDS
        while replica.read_metrics(newer).status_code != status:
            assert time.monotonic() < end
            time.sleep(0.1)
