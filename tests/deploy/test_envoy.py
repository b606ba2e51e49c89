"""deploy/envoy: a real Envoy with the configuration that ships, in front of two real servers."""

import base64
import http.client
import json
import signal
import ssl
import struct
import subprocess
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import httpx
import numpy as np
import pytest
from google.rpc import error_details_pb2, status_pb2

from losswire.client import Client, Evaluation, EvaluationResult, NotFoundError
from losswire.v1 import evaluation_pb2, loss_service_pb2, loss_service_pb2_grpc
from losswire.wire import decode_tensor, encode_tensor
from tests.support.envoy import (
    Envoy,
    Replica,
    clusters,
    configuration,
    require_envoy,
    running_envoy,
)
from tests.support.harness import Child
from tests.support.load import load
from tests.support.requests import GOLDEN, by_call, by_many, by_stream, is_golden
from tests.support.scripted import Scripted, echo, fail, retry_info, serving
from tests.support.vitals import wait_until

EVALUATE = "/losswire.v1.LossService/Evaluate"
SECONDS = 60
ORIGIN = "https://app.example.org"


class Started(NamedTuple):
    """A server and its addresses."""

    child: Child
    replica: Replica


@contextmanager
def two_servers(folder: Path) -> Iterator[list[Started]]:
    """Start two servers, which share no memory with callers, so that all calls go through Envoy."""
    with ExitStack() as stack:
        found = []
        for number in range(2):
            options = ("--http", "127.0.0.1:0", "--region-quota-mib", "0")
            child = stack.enter_context(Child(folder / f"server{number}.log", *options))
            at_http = child.read_line().removeprefix("http on ")
            found.append(Started(child, Replica(child.address, at_http)))
        yield found


@contextmanager
def two_behind_envoy(
    folder: Path, seconds_between_checks: int = 2
) -> Iterator[tuple[Envoy, list[Started]]]:
    """Start two servers and Envoy, without TLS."""
    require_envoy()
    with two_servers(folder) as servers:
        configured = configuration([each.replica for each in servers])
        for cluster in clusters(configured):
            interval = f"{seconds_between_checks}s"
            cluster["health_checks"][0].update(interval=interval, no_traffic_interval=interval)
        with running_envoy(folder / "envoy", configured) as envoy:
            wait_until(lambda: len(envoy.healthy()) == 2)
            yield envoy, servers


@pytest.fixture(scope="module")
def proxied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Envoy, list[Started]]]:
    """Start two servers and Envoy for the tests that do no harm to them."""
    with two_behind_envoy(tmp_path_factory.mktemp("envoy")) as found:
        yield found


@pytest.fixture(scope="module")
def envoy(proxied: tuple[Envoy, list[Started]]) -> Envoy:
    """Return Envoy in front of two servers that nothing happens to."""
    return proxied[0]


class Answer(NamedTuple):
    """An answer of gRPC-Web."""

    http_status: int
    headers: dict[str, str]
    messages: list[bytes]
    trailers: dict[str, str]


def grpc_web(address: str, method: str, message: bytes, **headers: str) -> Answer:
    """Call as a browser does: frames in the bodies, the last of which has the trailers."""
    connection = http.client.HTTPConnection(address, timeout=SECONDS)
    fixed = {"Content-Type": "application/grpc-web+proto", "X-Grpc-Web": "1"}
    body = struct.pack(">BI", 0, len(message)) + message
    connection.request("POST", method, body, {**fixed, **headers})
    answer = connection.getresponse()
    data, messages, trailers = answer.read(), list[bytes](), dict[str, str]()
    names = {name.lower(): value for name, value in answer.getheaders()}
    connection.close()
    while data:
        flags, size = struct.unpack(">BI", data[:5])
        content, data = data[5 : 5 + size], data[5 + size :]
        if flags & 0x80:
            pairs = [line.partition(":") for line in content.decode("ascii").splitlines() if line]
            trailers.update({name.lower(): value.strip() for name, _, value in pairs})
        else:
            messages.append(content)
    return Answer(answer.status, names, messages, trailers)


def asking(loss: str) -> bytes:
    """Return a request whose loss is 2.5 and whose gradient is (1, 2), for mse_loss."""
    inputs = {
        "input": np.array([1.0, 2.0], np.float32),
        "target": np.array([0.0, 0.0], np.float32),
    }
    return loss_service_pb2.EvaluateRequest(
        evaluation=evaluation_pb2.Evaluation(
            loss=loss,
            inputs={name: encode_tensor(value) for name, value in inputs.items()},
            gradients_for=["input"],
        )
    ).SerializeToString()


def test_the_sdk_calls_both_replicas(envoy: Envoy) -> None:
    """Evaluations of all sizes and streams are right, and both servers answered."""
    draw = np.random.default_rng(8)
    with Client(envoy.address, timeout=SECONDS) as client:
        for rows in (8, 100_000, 400_000):  # the last is more than one message holds
            inputs = {
                name: draw.normal(size=(rows, 10)).astype(np.float32)
                for name in ("input", "target")
            }
            result = client.evaluate("mse_loss", inputs, gradients=["input"])
            difference = inputs["input"].astype(np.float64) - inputs["target"]
            np.testing.assert_allclose(result.loss, np.mean(difference**2), rtol=1e-5)
            gradient = 2 * difference / difference.size
            np.testing.assert_allclose(result.gradients["input"], gradient, rtol=1e-4, atol=1e-9)
        item = Evaluation("mse_loss", {"input": [1.0, 2.0], "target": [0.0, 0.0]})
        for _ in range(40):
            assert float(client.evaluate(item.loss, item.inputs).loss) == 2.5
        for each in client.evaluate_many([item] * 3):
            assert isinstance(each, EvaluationResult)
            assert float(each.loss) == 2.5
        with client.stream() as stream:
            assert float(stream.submit(item).result().loss) == 2.5
    lines = envoy.entries_of(EVALUATE, least=40)
    assert len({each["replica"] for each in lines}) == 2
    assert {(each["code"], each["http_status"]) for each in lines} == {("OK", 200)}


@pytest.mark.parametrize("method", [by_call, by_many, by_stream])
def test_every_kind_of_call_is_as_without_it(envoy: Envoy, method: Any) -> None:  # noqa: ANN401
    """Plain gRPC callers get the same results."""
    with grpc.insecure_channel(envoy.address) as channel:
        assert is_golden(method(loss_service_pb2_grpc.LossServiceStub(channel), GOLDEN).result)


def test_grpc_web(envoy: Envoy) -> None:
    """A call over HTTP/1.1, as a page makes it, has the value, the gradient and the trailers."""
    answer = grpc_web(envoy.address, EVALUATE, asking("mse_loss"), Origin=ORIGIN)
    assert answer.http_status == 200
    assert answer.headers["content-type"] == "application/grpc-web+proto"
    assert answer.headers["access-control-allow-origin"] == ORIGIN
    exposed = answer.headers["access-control-expose-headers"].split(",")
    assert "grpc-status-details-bin" in [each.strip() for each in exposed]
    [message] = answer.messages
    result = loss_service_pb2.EvaluateResponse.FromString(message).result
    assert decode_tensor(result.loss, "loss").tolist() == 2.5
    assert decode_tensor(result.gradients["input"], "gradient").tolist() == [1.0, 2.0]
    assert answer.trailers["grpc-status"] == "0"


def test_errors_over_grpc_web(envoy: Envoy) -> None:
    """An unknown loss keeps its code and its details."""
    answer = grpc_web(envoy.address, EVALUATE, asking("mse_los"))
    assert answer.messages == []
    found = {**answer.headers, **answer.trailers}
    assert found["grpc-status"] == str(grpc.StatusCode.NOT_FOUND.value[0])
    text = found["grpc-status-details-bin"]
    status = status_pb2.Status.FromString(base64.b64decode(text + "=" * (-len(text) % 4)))
    info = error_details_pb2.ErrorInfo()
    assert any(each.Unpack(info) for each in status.details)
    assert (info.domain, info.reason) == ("losswire", "UNKNOWN_LOSS")


@pytest.mark.parametrize(("origin", "named"), [(ORIGIN, ORIGIN), ("https://other.org", None)])
def test_origins_of_pages(envoy: Envoy, origin: str, named: str | None) -> None:
    """A page of the origin that is named may call over gRPC-Web, another one may not."""
    connection = http.client.HTTPConnection(envoy.address, timeout=SECONDS)
    asked = {
        "Origin": origin,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "content-type,x-grpc-web",
    }
    connection.request("OPTIONS", EVALUATE, headers=asked)
    answer = connection.getresponse()
    answer.read()
    connection.close()
    assert answer.headers["access-control-allow-origin"] == named
    assert not named or "x-grpc-web" in answer.headers["access-control-allow-headers"]


def test_http_with_json(envoy: Envoy) -> None:
    """POST /v1/evaluate and /healthz are answered, other paths are not passed on."""
    request = urllib.request.Request(
        f"http://{envoy.address}/v1/evaluate",
        data=json.dumps(
            {
                "loss": "mse_loss",
                "inputs": {"input": [1.0, 2.0], "target": [0.0, 0.0]},
                "gradients_for": ["input"],
            }
        ).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=SECONDS) as answer:  # noqa: S310 - our own
        result = json.load(answer)
    assert (result["loss"], result["gradients"]["input"]) == (2.5, [1.0, 2.0])
    connection = http.client.HTTPConnection(envoy.address, timeout=SECONDS)
    statuses = []
    for path in ("/healthz", "/metrics", "/", "/v1/../metrics"):
        connection.request("GET", path)
        answered = connection.getresponse()
        answered.read()
        statuses.append(answered.status)
    connection.close()
    assert statuses == [200, 404, 404, 404]


def test_errors_keep_their_details(envoy: Envoy) -> None:
    """The SDK sees the same error as without Envoy, and it was not tried again."""
    with (
        Client(envoy.address, timeout=SECONDS) as client,
        pytest.raises(NotFoundError, match="mse_loss") as caught,
    ):
        client.evaluate("mse_los", {"input": [1.0], "target": [0.0]})
    assert (caught.value.reason, bool(caught.value.request_id)) == ("UNKNOWN_LOSS", True)
    wait_until(lambda: _tries(envoy, "NOT_FOUND") == {1})


def test_what_is_too_large_is_refused_by_the_server(envoy: Envoy) -> None:
    """A message over the server's limit is RESOURCE_EXHAUSTED, without another try."""
    item = evaluation_pb2.Evaluation(
        loss="l1_loss",
        inputs={name: encode_tensor(np.zeros(2_000_000)) for name in ("input", "target")},
    )
    unlimited = [("grpc.max_send_message_length", -1)]
    with grpc.insecure_channel(envoy.address, unlimited) as channel:
        stub = loss_service_pb2_grpc.LossServiceStub(channel)
        with pytest.raises(grpc.RpcError) as caught:
            stub.Evaluate(loss_service_pb2.EvaluateRequest(evaluation=item), timeout=SECONDS)
    assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    wait_until(lambda: _tries(envoy, "RESOURCE_EXHAUSTED") == {1})


def _tries(envoy: Envoy, code: str) -> set[int]:
    """Return how often evaluations that ended with a code were sent."""
    return {int(each["tries"]) for each in envoy.entries() if each["code"] == code}


def test_a_replica_that_is_killed_fails_no_call(tmp_path: Path) -> None:
    """Eight threads call through Envoy while one of two servers is killed: no call fails."""
    with two_behind_envoy(tmp_path) as (envoy, servers), load(envoy.address) as seen:
        wait_until(lambda: len(_replicas(envoy)) == 2)
        killed, other = servers
        killed.child.process.kill()
        before = seen.calls
        wait_until(lambda: seen.calls >= before + 200)
        wait_until(lambda: envoy.healthy() == {other.replica.grpc})
        before = seen.calls
        wait_until(lambda: seen.calls >= before + 50)
        seen.check()


def test_a_replica_that_drains_fails_no_call(tmp_path: Path) -> None:
    """A caller without tries of its own sees nothing of it when one of two servers is ended."""
    with (
        two_behind_envoy(tmp_path) as (envoy, servers),
        grpc.insecure_channel(envoy.address, [("grpc.enable_retries", 0)]) as channel,
    ):
        stub = loss_service_pb2_grpc.LossServiceStub(channel)
        ended = servers[0].child
        ended.terminate()
        while ended.alive:
            assert is_golden(by_call(stub, GOLDEN).result)
        for _ in range(20):
            assert is_golden(by_call(stub, GOLDEN).result)


def _replicas(envoy: Envoy) -> set[str]:
    """Return who answered evaluations."""
    return {each["replica"] for each in envoy.entries() if each["path"] == EVALUATE}


def test_the_callers_deadline_holds_in_it(tmp_path: Path) -> None:
    """When all servers have stopped without a word, a call ends by its grpc-timeout."""
    # Nobody asks for their health before the deadline.
    with two_behind_envoy(tmp_path, seconds_between_checks=600) as (envoy, servers):
        for each in servers:
            each.child.process.send_signal(signal.SIGSTOP)
        try:
            answer = _grpc_by_hand(envoy, {"grpc-timeout": "500m"})
        finally:
            for each in servers:
                each.child.process.send_signal(signal.SIGCONT)
    assert answer["grpc-status"] == str(grpc.StatusCode.DEADLINE_EXCEEDED.value[0])


def _grpc_by_hand(envoy: Envoy, headers: dict[str, str]) -> httpx.Headers:
    """Evaluate over HTTP/2 without a client that counts time itself; returns the headers."""
    message = asking("mse_loss")
    with httpx.Client(http1=False, http2=True, timeout=SECONDS) as client:
        return client.post(
            f"http://{envoy.address}{EVALUATE}",
            content=struct.pack(">BI", 0, len(message)) + message,
            headers={"Content-Type": "application/grpc", "TE": "trailers", **headers},
        ).headers


@pytest.mark.parametrize(
    ("code", "metadata", "tries"),
    [
        (grpc.StatusCode.UNAVAILABLE, (), 2),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, (("grpc-retry-pushback-ms", "20"),), 2),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, (("grpc-retry-pushback-ms", "-1"),), 1),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, (), 1),
        (grpc.StatusCode.INTERNAL, (), 1),
    ],
)
def test_what_is_tried_again(
    tmp_path: Path, code: grpc.StatusCode, metadata: Sequence[tuple[str, str]], tries: int
) -> None:
    """An evaluation is sent again where the server is away, or says when to come back."""
    require_envoy()

    def fail_once(
        item: evaluation_pb2.Evaluation, context: grpc.ServicerContext
    ) -> evaluation_pb2.EvaluationResult:
        if len(service.evaluations) == 1:
            fail(context, code, details=[retry_info(0.02)], metadata=metadata)
        return echo(item)

    with serving(Scripted(script=fail_once)) as service:
        configured = configuration([Replica(service.address, service.address)])
        for cluster in clusters(configured):
            del cluster["health_checks"]  # the script has none
        with running_envoy(tmp_path / "envoy", configured) as envoy:
            answer = grpc_web(envoy.address, EVALUATE, asking("mse_loss"))
    assert len(service.evaluations) == tries
    found = {**answer.headers, **answer.trailers}
    assert found["grpc-status"] == ("0" if tries == 2 else str(code.value[0]))


def _certificate(folder: Path) -> str:
    """Make a certificate in a new folder and return its text."""
    folder.mkdir()
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost"]
    command += ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-days", "2"]
    command += ["-keyout", str(folder / "tls.key"), "-out", str(folder / "tls.crt")]
    subprocess.run(command, check=True, capture_output=True)
    return (folder / "tls.crt").read_text("ascii")


def test_tls(proxied: tuple[Envoy, list[Started]], tmp_path: Path) -> None:
    """As it ships, the SDK calls over TLS, and a new certificate is used without a restart."""
    first, second = _certificate(tmp_path / "tls"), _certificate(tmp_path / "next")
    configured = configuration([each.replica for each in proxied[1]], tls=tmp_path)
    with running_envoy(tmp_path / "envoy", configured) as envoy:
        trusted = grpc.ssl_channel_credentials(first.encode())
        with Client(envoy.address, timeout=SECONDS, credentials=trusted) as client:
            result = client.evaluate("mse_loss", {"input": [2.0], "target": [0.0]})
        assert float(result.loss) == 4.0
        for name in ("tls.key", "tls.crt"):
            (tmp_path / "next" / name).rename(tmp_path / "tls" / name)
        host, _, port = envoy.address.rpartition(":")
        wait_until(lambda: ssl.get_server_certificate((host, int(port))) == second)
