"""Where a client connects to: one server, several, and what it says of itself there."""

import inspect
import math
from pathlib import Path
from typing import Any

import grpc
import pytest

from losswire.client import AsyncClient, Client, RetryPolicy, UnavailableError, __version__
from losswire.client._calls.session import parse_targets
from tests.client.conftest import Call
from tests.support.scripted import Scripted, serving

CALLS = 20


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("host:1", ["host:1"]),
        ("a:1,b:2", ["a:1", "b:2"]),
        (" a:1 , b:2 ", ["a:1", "b:2"]),
        ("[::1]:50051", ["[::1]:50051"]),
        ("dns:///name:1", ["dns:///name:1"]),
        ("dns:///a:1,dns:///b:2", ["dns:///a:1", "dns:///b:2"]),
        ("ipv4:1.2.3.4:1,5.6.7.8:2", ["ipv4:1.2.3.4:1,5.6.7.8:2"]),
        ("ipv6:[::1]:1,[::2]:2", ["ipv6:[::1]:1,[::2]:2"]),
        ("unix:/run/a.sock", ["unix:/run/a.sock"]),
        ("unix-abstract:name", ["unix-abstract:name"]),
    ],
)
def test_targets(target: str, expected: list[str]) -> None:
    """Names with commas between them get a channel each; gRPC's own lists stay whole."""
    assert parse_targets(target) == expected


@pytest.mark.parametrize(
    ("target", "error"),
    [
        ("", ValueError),
        ("host", ValueError),
        (":1", ValueError),
        ("host:", ValueError),
        ("host:http", ValueError),
        ("host:0", ValueError),
        ("host:65536", ValueError),
        ("::1:50051", ValueError),
        ("a:1,,b:2", ValueError),
        ("a:1,", ValueError),
        (50051, TypeError),
        (None, TypeError),
    ],
)
@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_impossible_targets(kind: Any, target: Any, error: type[Exception]) -> None:  # noqa: ANN401
    """A target that cannot be meant is refused at once, by name."""
    with pytest.raises(error, match="target: "):
        kind(target)


@pytest.mark.parametrize("token", ["", "two\nlines", "caf\u00e9"])
def test_impossible_tokens(token: str) -> None:
    """A token that no header can carry is refused, without being repeated."""
    with pytest.raises(ValueError, match=r"^token: expected printable ASCII text$"):
        Client("host:1", token=token)


@pytest.mark.parametrize("form", ["{a},{b}", "ipv4:{a},{b}"], ids=["by the SDK", "by gRPC"])
def test_calls_go_round_all_servers(form: str) -> None:
    """Two servers get an equal share of the calls."""
    with serving(Scripted()) as a, serving(Scripted()) as b:
        with Client(form.format(a=a.address, b=b.address)) as client:
            # gRPC goes round those it is connected to already: begin once both are.
            while not (a.evaluations and b.evaluations):
                client.evaluate("any", {})
            a.evaluations.clear()
            b.evaluations.clear()
            for _ in range(CALLS):
                client.evaluate("any", {})
        assert (len(a.evaluations), len(b.evaluations)) == (CALLS // 2, CALLS // 2)


@pytest.mark.parametrize("form", ["{a},{b}", "ipv4:{a},{b}"], ids=["by the SDK", "by gRPC"])
def test_calls_go_past_a_server_that_is_down(form: str) -> None:
    """When one of two servers stops, every call still succeeds."""
    with serving(Scripted()) as a:
        with serving(Scripted()) as b:
            client = Client(form.format(a=a.address, b=b.address), timeout=60)
            for _ in range(CALLS):
                client.evaluate("any", {})
        with client:
            for _ in range(CALLS):
                client.evaluate("any", {})
    assert len(a.evaluations) + len(b.evaluations) == 2 * CALLS


def test_a_server_that_comes_back() -> None:
    """A client finds its server again after a restart on the same port."""
    with serving(Scripted()) as before:
        client = Client(before.address, timeout=60)
        client.evaluate("any", {})
    with client:
        with pytest.raises(UnavailableError):
            client.evaluate("any", {}, timeout=0.5)
        with serving(Scripted(), listen=before.address) as after:
            client.evaluate("any", {})
    assert len(after.evaluations) == 1


def test_async_calls_go_round_and_past(call: Call) -> None:
    """Both clients find the one server that is up, at any place in the list."""
    with serving(Scripted()) as up:
        for target in (f"{up.address},127.0.0.1:1", f"127.0.0.1:1,{up.address}"):
            call(target, "evaluate", "any", {})
    assert len(up.evaluations) == 2


def test_nobody_is_there(call: Call) -> None:
    """A server that cannot be reached is UnavailableError, after as many tries as allowed."""
    once = {"retry": RetryPolicy(max_attempts=1)}
    with pytest.raises(UnavailableError, match=r"127\.0\.0\.1:1"):
        call("127.0.0.1:1", "server_info", settings=once)


def test_unix_socket(call: Call, tmp_path: Path) -> None:
    """A target may be a unix socket."""
    with serving(Scripted(), listen=f"unix:{tmp_path}/socket") as service:
        call(service.address, "evaluate", "any", {})
    assert len(service.evaluations) == 1


def test_what_is_sent_beside_the_request(call: Call, echoing: Scripted) -> None:
    """Calls carry the SDK's name and version, and the token when there is one."""
    call(echoing.address, "evaluate", "any", {}, settings={"token": "s3cret"})
    call(echoing.address, "evaluate", "any", {})
    with_token, without = echoing.metadata
    assert with_token["authorization"] == "Bearer s3cret"
    assert "authorization" not in without
    assert str(without["user-agent"]).startswith(f"losswire-python/{__version__} ")


def test_credentials(call: Call) -> None:
    """With credentials the connection is made by them; a server with others is not reached."""
    settings = {"credentials": grpc.local_channel_credentials(), "token": "s3cret"}
    with serving(Scripted(), credentials=grpc.local_server_credentials()) as service:
        call(service.address, "evaluate", "any", {}, settings=settings)
    assert service.metadata[0]["authorization"] == "Bearer s3cret"


def test_the_environments_proxy_is_not_used(
    call: Call, echoing: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing in the environment redirects a call."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("grpc_proxy", "http://127.0.0.1:1")
    call(echoing.address, "evaluate", "any", {}, timeout=60)
    assert len(echoing.metadata) == 1


def test_the_token_is_not_shown() -> None:
    """Neither client shows more than its target."""
    token = "s3cret"  # noqa: S105 - nobody's
    with Client("host:1", token=token) as client:
        assert repr(client) == "<losswire Client of host:1>"
    assert repr(AsyncClient("host:1", token=token)) == "<losswire AsyncClient of host:1>"


def test_default_timeout_is_finite() -> None:
    """Every call has a deadline, also when nobody gives one."""
    for client in (Client, AsyncClient):
        default = inspect.signature(client).parameters["timeout"].default
        assert 0 < default < math.inf
