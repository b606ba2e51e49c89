"""Every door asks who calls, before it does anything else."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from losswire.server.identity.tokens import new_token
from losswire.v1 import loss_service_pb2
from tests.support.asked import SECONDS, Served, bearer, serving, write_tokens
from tests.support.requests import GOLDEN, Stub, is_golden, item_status

_TOKEN = new_token()
_WRONG = [
    ("nothing", ()),
    ("an unknown token", bearer(new_token())),
    ("a part of a token", bearer(_TOKEN[:-1])),
    ("another scheme", (("authorization", f"Basic {_TOKEN}"),)),
    ("no scheme", (("authorization", _TOKEN),)),
    ("two", (*bearer(_TOKEN), *bearer("lw_"))),
]
_WRONG_CASES = pytest.mark.parametrize(
    "wrong", [each for _, each in _WRONG], ids=[name for name, _ in _WRONG]
)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server that knows one token."""
    path = tmp_path_factory.mktemp("tokens") / "tokens"
    with serving(tokens=write_tokens(path, team=_TOKEN)) as found:
        yield found


@pytest.fixture
def channel(served: Served) -> Iterator[grpc.Channel]:
    """A connection to it."""
    with grpc.insecure_channel(served.grpc) as found:
        yield found


def _reflect(
    channel: grpc.Channel, request: reflection_pb2.ServerReflectionRequest
) -> reflection_pb2.ServerReflectionResponse:
    stub = reflection_pb2_grpc.ServerReflectionStub(channel)
    [answer] = stub.ServerReflectionInfo(iter([request]), metadata=bearer(_TOKEN), timeout=SECONDS)
    return answer


def _methods(channel: grpc.Channel) -> Iterator[str]:
    """Yield the path of every method that reflection lists."""
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    for service in _reflect(channel, request).list_services_response.service:
        question = reflection_pb2.ServerReflectionRequest(file_containing_symbol=service.name)
        for data in _reflect(channel, question).file_descriptor_response.file_descriptor_proto:
            file = FileDescriptorProto.FromString(data)
            for each in file.service:
                if f"{file.package}.{each.name}" == service.name:
                    yield from (f"/{service.name}/{method.name}" for method in each.method)


@_WRONG_CASES
def test_every_method_is_refused(channel: grpc.Channel, wrong: tuple[tuple[str, str], ...]) -> None:
    """Without a token, or with a wrong one, every method but health's says so in the same words."""
    methods = [each for each in _methods(channel) if not each.startswith("/grpc.health.v1.")]
    assert "/losswire.v1.TensorService/CreateRegion" in methods
    assert "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo" in methods
    for method in methods:
        call: Any = channel.stream_stream(method)
        with pytest.raises(grpc.RpcError) as caught:
            list(call(iter([b"\xff"]), metadata=wrong, timeout=SECONDS))
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED, method
        assert caught.value.details() == (
            "a token is needed: send `authorization: Bearer TOKEN` with one that this server knows"
        )


def test_a_refusal_has_its_reason(channel: grpc.Channel) -> None:
    """A caller's program can tell the refusal by its reason, as any other one."""
    with pytest.raises(grpc.RpcError) as caught:
        Stub(channel).Evaluate(loss_service_pb2.EvaluateRequest(evaluation=GOLDEN), timeout=SECONDS)
    assert item_status(caught.value).reason == "UNAUTHENTICATED"


def test_a_known_token_may_call(channel: grpc.Channel) -> None:
    """With a right token, calls are answered as everywhere."""
    request = loss_service_pb2.EvaluateRequest(evaluation=GOLDEN)
    for scheme in ("Bearer", "bearer"):
        metadata = (("authorization", f"{scheme} {_TOKEN}"),)
        response = Stub(channel).Evaluate(request, metadata=metadata, timeout=SECONDS)
        assert is_golden(response.result)


def test_health_answers_everybody(channel: grpc.Channel, served: Served) -> None:
    """Whoever asks for health needs no token."""
    stub = health_pb2_grpc.HealthStub(channel)
    answer = stub.Check(health_pb2.HealthCheckRequest(), timeout=SECONDS)
    assert answer.status == health_pb2.HealthCheckResponse.SERVING
    for path in ("healthz", "readyz"):
        assert httpx.get(f"http://{served.http}/{path}").status_code == 200


@_WRONG_CASES
def test_every_path_is_refused(served: Served, wrong: tuple[tuple[str, str], ...]) -> None:
    """Over HTTP every path of the document is refused alike, also those that there are not."""
    headers = dict(bearer(_TOKEN))
    with httpx.Client(base_url=f"http://{served.http}", timeout=SECONDS) as client:
        document = client.get("/openapi.json", headers=headers).json()
        calls = [
            (method.upper(), path.replace("{", "").replace("}", ""))
            for path, operations in document["paths"].items()
            for method in operations
            if path not in ("/healthz", "/readyz")
        ]
        assert {"/openapi.json", "/v1/evaluate", "/v1/live"} <= {path for _, path in calls}
        for method, path in [*calls, ("GET", "/nothing"), ("PATCH", "/v1/evaluate")]:
            answer = client.request(method, path, headers=list(wrong), content=b"{}")
            assert answer.status_code == 401, path
            assert answer.headers["www-authenticate"] == "Bearer"
            assert answer.headers["content-type"] == "application/problem+json"
            assert answer.json()["reason"] == "UNAUTHENTICATED"
        assert client.get("/v1/losses", headers=headers).status_code == 200
        assert client.get("/nothing", headers=headers).status_code == 404


def test_the_page_of_metrics_asks_too(served: Served) -> None:
    """Metrics need a token at their own address as well."""
    url = f"http://{served.metrics}/metrics"
    assert httpx.get(url).status_code == 401
    assert httpx.get(url, headers=dict(bearer(_TOKEN))).status_code == 200


def test_the_console_loads_without_a_token(served: Served) -> None:
    """The console's own files are no secret; its data is."""
    assert httpx.get(f"http://{served.http}/").status_code == 200


def test_a_browser_may_ask_first(tmp_path: Path) -> None:
    """A page of an allowed origin may send a token: the browser asks that without one."""
    path = write_tokens(tmp_path / "tokens", team=_TOKEN)
    with serving(tokens=path, http_cors=("https://example.org",)) as found:
        answer = httpx.options(
            f"http://{found.http}/v1/evaluate",
            headers={
                "origin": "https://example.org",
                "access-control-request-method": "POST",
                "access-control-request-headers": "authorization,content-type",
            },
        )
    assert answer.status_code == 200
