"""Who a command is for the server, and whom it trusts."""

from pathlib import Path

import grpc
import pytest

from losswire.client.cli._main import main
from tests.support.asked import serving as asking
from tests.support.asked import write_tokens
from tests.support.certificates import Authority
from tests.support.scripted import Scripted, fail, serving


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Authority:
    """An authority, with a certificate of its own for the command, in the working directory."""
    authority = Authority()
    monkeypatch.chdir(tmp_path)
    Path("ca.pem").write_bytes(authority.certificate)
    authority.issue("tenant").write(tmp_path, "client")
    Path("token").write_text("of-the-file", encoding="ascii")
    return authority


_VARIABLES = {"tls-cert": "TLS_CLIENT_CERT", "tls-key": "TLS_CLIENT_KEY"}
"""Those that are named otherwise than the option: a server has such settings, too."""


@pytest.mark.parametrize("by_variables", [False, True], ids=["options", "variables"])
def test_a_server_that_asks_for_everything(
    files: Authority,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    *,
    by_variables: bool,
) -> None:
    """Options or variables name the token and the certificates."""
    names = {"tls-ca": "ca.pem", "tls-cert": "client.pem", "tls-key": "client-key.pem"}
    options = []
    for name, value in {**names, "token-file": "token"}.items():
        if by_variables:
            variable = _VARIABLES.get(name, name.upper().replace("-", "_"))
            monkeypatch.setenv(f"LOSSWIRE_{variable}", value)
        else:
            options += [f"--{name}", value]
    pair = files.issue("the server")
    credentials = grpc.ssl_server_credentials(
        [(pair.key, pair.certificate)], files.certificate, require_client_auth=True
    )
    with serving(Scripted(), credentials=credentials) as service:
        server = ["--server", service.address]
        assert main(["losses", *server, *options]) == 0
        # The script has no health: it answers, and the versions come over the same connection.
        assert main(["ping", *server, "--no-tls"]) == 3
        capsys.readouterr()
        main(["ping", *server, *options])
        assert "UNIMPLEMENTED" in capsys.readouterr().err


@pytest.mark.usefixtures("files")
@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--tls-ca", "absent"], "--tls-ca: cannot read 'absent': No such file or directory"),
        (["--tls-key", "client-key.pem"], "--tls-key: a key needs its certificate, --tls-cert"),
        (["--token", "a", "--token-file", "token"], "--token: give this or --token-file, not both"),
        (["--no-tls", "--tls-ca", "ca.pem"], "--tls: without TLS, --tls-ca cannot be used"),
        (["--token", ""], "--token: expected printable ASCII text"),
    ],
)
@pytest.mark.parametrize("command", ["losses", "ping"])
def test_what_cannot_be_meant(
    command: str, options: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A mistake is named by its option."""
    assert main([command, "--server", "127.0.0.1:1", *options]) == 2
    assert capsys.readouterr().err == f"losswire: {line}\n"


def test_a_token_that_is_not_accepted(capsys: pytest.CaptureFixture[str]) -> None:
    """The line says how to give another one, and not which was given."""

    class Refusing(Scripted):
        def ListLosses(  # type: ignore[override]  # noqa: N802
            self, request: object, context: grpc.ServicerContext
        ) -> None:
            """Refuse everybody."""
            del request
            fail(context, grpc.StatusCode.UNAUTHENTICATED, "a token is needed")

    with serving(Refusing()) as service:
        assert main(["losses", "--server", service.address, "--token", "s3cret"]) == 4
    line = capsys.readouterr().err
    assert "a token is needed. Give the client a token with --token-file" in line
    assert "s3cret" not in line


@pytest.mark.parametrize("has_token", [True, False])
def test_top_shows_its_token(
    files: Authority, tmp_path: Path, capsys: pytest.CaptureFixture[str], *, has_token: bool
) -> None:
    """A server that asks everybody who they are answers `top` over TLS, with a token."""
    certificate, key = files.issue("the server").write(tmp_path, "server")
    tokens = write_tokens(tmp_path / "tokens", tenant="of-the-file")
    with asking(tls_cert=str(certificate), tls_key=str(key), tokens=tokens) as served:
        url = f"https://{served.http}"
        options = ["--token-file", "token"] if has_token else []
        words = ["top", url, "--once", "--interval", "0.05", "--tls-ca", "ca.pem", *options]
        assert main(words) == (0 if has_token else 4)
    said = capsys.readouterr()
    assert ("READY" in said.out) == has_token
    assert ("401" in said.err) != has_token


def test_top_keeps_its_token_to_this_machine(capsys: pytest.CaptureFixture[str]) -> None:
    """Without TLS, no token goes to another machine."""
    assert main(["top", "http://losswire.invalid:8080", "--once", "--token", "s3cret"]) == 2
    expected = "--token: goes to another machine by https:// only, or with --no-tls"
    assert capsys.readouterr().err == f"losswire: {expected}\n"
