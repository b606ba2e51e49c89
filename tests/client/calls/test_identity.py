"""Who a client is and whom it trusts: tokens, certificates, and the variables in their place."""

import logging
from pathlib import Path
from typing import Any

import grpc
import pytest

from losswire.client import (
    AsyncClient,
    Client,
    Evaluation,
    LosswireError,
    UnauthenticatedError,
    UnavailableError,
)
from losswire.client._calls.identity import is_loopback
from tests.client.conftest import Call
from tests.support.certificates import Authority
from tests.support.scripted import Scripted, fail, serving

TOKEN = "lw_" + 43 * "s"


@pytest.fixture(scope="module")
def authority() -> Authority:
    """One authority for all tests."""
    return Authority()


def server_credentials(authority: Authority, *, asks: bool = False) -> grpc.ServerCredentials:
    """Return the credentials of a server, which asks for a client's certificate or not."""
    pair = authority.issue("the server")
    return grpc.ssl_server_credentials(
        [(pair.key, pair.certificate)],
        authority.certificate if asks else None,
        require_client_auth=asks,
    )


@pytest.fixture
def ca(authority: Authority, tmp_path: Path) -> Path:
    """The file of who vouches for servers."""
    path = tmp_path / "ca.pem"
    path.write_bytes(authority.certificate)
    return path


def test_a_token_file(call: Call, echoing: Scripted, tmp_path: Path) -> None:
    """The text of a file is sent as the token, without what is around it."""
    path = tmp_path / "token"
    path.write_text(f"{TOKEN}\n")
    call(echoing.address, "evaluate", "any", {}, settings={"token_file": path})
    assert echoing.metadata[0]["authorization"] == f"Bearer {TOKEN}"


def test_an_encrypted_connection(
    call: Call, authority: Authority, ca: Path, tmp_path: Path
) -> None:
    """With `tls_ca` and a certificate of its own, a client reaches a server that asks for it."""
    certificate, key = authority.issue("tenant").write(tmp_path, "client")
    settings = {"tls_ca": str(ca), "tls_cert": certificate, "tls_key": key, "token": TOKEN}
    with serving(Scripted(), credentials=server_credentials(authority, asks=True)) as service:
        call(service.address, "evaluate", "any", {}, settings=settings)
        with pytest.raises(UnavailableError):
            call(service.address, "evaluate", "any", {}, settings={"tls_ca": ca})
    assert [each["authorization"] for each in service.metadata] == [f"Bearer {TOKEN}"]


def test_a_server_that_nobody_vouches_for(call: Call, ca: Path) -> None:
    """A server whose certificate another authority signed is not reached."""
    with (
        serving(Scripted(), credentials=server_credentials(Authority("another"))) as service,
        pytest.raises(UnavailableError),
    ):
        call(service.address, "evaluate", "any", {}, settings={"tls_ca": ca})
    assert not service.metadata


def test_a_stream_is_the_same_client(authority: Authority, ca: Path) -> None:
    """The connection of a stream proves and trusts the same."""
    with (
        serving(Scripted(), credentials=server_credentials(authority)) as service,
        Client(service.address, tls_ca=ca) as client,
        client.stream() as stream,
    ):
        answer = stream.submit(Evaluation("any", {}))
        assert answer.result(timeout=60).transport == "stream"


def test_variables(
    call: Call,
    authority: Authority,
    ca: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where no argument is given, variables say the same."""
    certificate, key = authority.issue().write(tmp_path, "client")
    path = tmp_path / "token"
    path.write_text(TOKEN)
    for name, value in (
        ("TOKEN_FILE", path),
        ("TLS", "1"),
        ("TLS_CA", ca),
        ("TLS_CLIENT_CERT", certificate),
        ("TLS_CLIENT_KEY", key),
    ):
        monkeypatch.setenv(f"LOSSWIRE_{name}", str(value))
    with serving(Scripted(), credentials=server_credentials(authority, asks=True)) as service:
        call(service.address, "evaluate", "any", {})
        call(service.address, "evaluate", "any", {}, settings={"token": "mine"})
    sent = [each["authorization"] for each in service.metadata]
    assert sent == [f"Bearer {TOKEN}", "Bearer mine"]


def test_arguments_win(
    call: Call, echoing: Scripted, ca: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`tls=False` switches off what variables say, and an argument's token is sent."""
    monkeypatch.setenv("LOSSWIRE_TLS_CA", str(ca))
    monkeypatch.setenv("LOSSWIRE_TLS", "1")
    monkeypatch.setenv("LOSSWIRE_TOKEN", "theirs")
    settings = {"tls": False, "token": "mine"}
    call(echoing.address, "evaluate", "any", {}, settings=settings)
    assert echoing.metadata[0]["authorization"] == "Bearer mine"


def test_a_token_alone(call: Call, echoing: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    """A token does not need TLS to a server that can only be on this machine."""
    monkeypatch.setenv("LOSSWIRE_TOKEN", TOKEN)
    call(echoing.address, "evaluate", "any", {})
    port = echoing.address.rpartition(":")[2]
    call(f"dns:///localhost:{port}", "evaluate", "any", {}, timeout=60)
    assert {each["authorization"] for each in echoing.metadata} == {f"Bearer {TOKEN}"}


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("127.0.0.1:1", True),
        ("127.9.9.9:1", True),
        ("[::1]:1", True),
        ("localhost:1", True),
        ("unix:/run/a.sock", True),
        ("unix-abstract:a", True),
        ("dns:///localhost:1", True),
        ("dns:localhost:1", True),
        ("dns:///localhost", True),
        ("ipv4:127.0.0.1:1,127.0.0.2:1", True),
        ("ipv6:[::1]:1", True),
        ("ipv6:::1", True),
        ("10.0.0.1:1", False),
        ("losswire.example:1", False),
        ("localhost.example:1", False),
        ("dns:///losswire.example:1", False),
        ("dns://127.0.0.1/localhost:1", False),
        ("ipv4:127.0.0.1:1,10.0.0.1:1", False),
        ("ipv6:[2001:db8::1]:1", False),
        ("vsock:1:1", False),
        ("xds:///localhost", False),
    ],
)
def test_where_a_token_needs_tls(target: str, *, expected: bool) -> None:
    """A token goes without TLS only where no other machine can answer."""
    assert is_loopback(target) == expected


@pytest.mark.usefixtures("files")
@pytest.mark.parametrize("kind", [Client, AsyncClient])
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"token": "a", "token_file": "b"}, "token: give this or token_file, not both"),
        ({"token_file": "absent"}, "token_file: cannot read 'absent': No such file"),
        ({"tls_ca": "absent"}, "tls_ca: cannot read 'absent': No such file"),
        ({"tls_ca": "text"}, "tls_ca: 'text' is not PEM: it has no line `-----BEGIN CERTIFICATE"),
        ({"tls_ca": "damaged"}, "tls_ca: 'damaged' has a damaged certificate"),
        ({"tls_cert": "client.pem"}, "tls_cert: a certificate needs its key, tls_key"),
        ({"tls_key": "client-key.pem"}, "tls_key: a key needs its certificate, tls_cert"),
        ({"tls_cert": "client.pem", "tls_key": "other-key.pem"}, "tls_key: 'other-key.pem' is not"),
        ({"tls_cert": "client.pem", "tls_key": "text"}, "tls_key: 'text' is not PEM"),
        ({"tls_cert": "text", "tls_key": "text"}, "tls_cert: 'text' is not PEM"),
        ({"tls": False, "tls_ca": "ca.pem"}, "tls: without TLS, tls_ca cannot be used"),
        (
            {"tls_ca": "ca.pem", "credentials": grpc.local_channel_credentials()},
            "credentials: give this or tls_ca, not both",
        ),
        ({"token_file": "empty"}, "token_file: expected printable ASCII text"),
    ],
)
def test_what_cannot_be_meant(
    kind: Any,  # noqa: ANN401
    settings: dict[str, Any],
    message: str,
) -> None:
    """Arguments that are no good are refused at once, by name."""
    with pytest.raises(ValueError, match=f"^{message.replace('(', '.')}"):
        kind("127.0.0.1:1", **settings)


@pytest.fixture
def files(ca: Path, authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Good and bad files in the working directory."""
    monkeypatch.chdir(tmp_path)
    authority.issue().write(tmp_path, "client")
    authority.issue().write(tmp_path, "other")
    (tmp_path / "text").write_text("no certificate")
    (tmp_path / "empty").write_text("")
    damaged = ca.read_text().splitlines()
    (tmp_path / "damaged").write_text("\n".join([damaged[0], *damaged[2:]]))


@pytest.mark.usefixtures("files")
@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"TOKEN": "a", "TOKEN_FILE": "b"}, "LOSSWIRE_TOKEN: give this or LOSSWIRE_TOKEN_FILE"),
        ({"TOKEN_FILE": "absent"}, "LOSSWIRE_TOKEN_FILE: cannot read 'absent'"),
        ({"TLS": "yes"}, "LOSSWIRE_TLS: expected 0 or 1, got 'yes'"),
        ({"TLS_CA": "text"}, "LOSSWIRE_TLS_CA: 'text' is not PEM"),
        (
            {"TLS_CLIENT_KEY": "client-key.pem"},
            "LOSSWIRE_TLS_CLIENT_KEY: a key needs its certificate",
        ),
        ({"TLS": "0", "TLS_CA": "ca.pem"}, "LOSSWIRE_TLS: without TLS, LOSSWIRE_TLS_CA cannot"),
    ],
)
def test_variables_that_cannot_be_meant(
    variables: dict[str, str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a variable says wrong is refused by its name."""
    for name, value in variables.items():
        monkeypatch.setenv(f"LOSSWIRE_{name}", value)
    with pytest.raises(ValueError, match=f"^{message}"):
        Client("127.0.0.1:1")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"token": 1}, "token: expected text, got int"),
        ({"token_file": 1}, "token_file: expected a path, got int"),
        ({"tls": 1}, "tls: expected True, False or None, got 1"),
        ({"tls_certificate": "a"}, "a client has no argument 'tls_certificate'"),
    ],
)
def test_arguments_of_other_types(settings: dict[str, Any], message: str) -> None:
    """An argument of another type, or with another name, is a TypeError."""
    with pytest.raises(TypeError, match=f"^{message}$"):
        Client("127.0.0.1:1", **settings)


def test_an_error_says_how_to_give_a_token_and_never_which(
    call: Call, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The error for a token that is not accepted has advice; no token is in it, or in a log."""
    caplog.set_level(logging.DEBUG)
    path = tmp_path / "token"
    path.write_text(TOKEN)

    def refuse(_evaluation: object, context: grpc.ServicerContext) -> Any:  # noqa: ANN401
        fail(context, grpc.StatusCode.UNAUTHENTICATED, "a token is needed")

    with (
        serving(Scripted(script=refuse)) as service,
        pytest.raises(UnauthenticatedError, match="LOSSWIRE_TOKEN_FILE") as caught,
    ):
        call(service.address, "evaluate", "any", {}, settings={"token_file": path})
    assert isinstance(caught.value, LosswireError)
    assert len(service.metadata) == 1
    assert TOKEN not in f"{caught.value!r} {caught.value} {caplog.text}"
    assert TOKEN not in repr(Client("127.0.0.1:1", token_file=path))
