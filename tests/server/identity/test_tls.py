"""TLS at every door, with certificates that change while the server serves."""

import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest

from losswire.server.address import StartError
from losswire.server.identity.tokens import new_token
from losswire.v1 import loss_service_pb2
from tests.support.asked import SECONDS, Served, bearer, serving, write_tokens
from tests.support.pems import Pems, make_pems
from tests.support.requests import GOLDEN, Stub, is_golden, item_status

_REQUEST = loss_service_pb2.EvaluateRequest(evaluation=GOLDEN)


@pytest.fixture(scope="module")
def pems(tmp_path_factory: pytest.TempPathFactory) -> Pems:
    """The files of an authority."""
    return make_pems(tmp_path_factory.mktemp("pems"))


@pytest.fixture(scope="module")
def mutual(pems: Pems) -> Iterator[Served]:
    """A server that asks for certificates, and knows no token."""
    with serving(**pems.server, tls_client_ca=pems.of("ca")) as found:
        yield found


def _evaluate(channel: grpc.Channel, metadata: Any = ()) -> None:  # noqa: ANN401 (pairs)
    response = Stub(channel).Evaluate(_REQUEST, metadata=metadata, timeout=SECONDS)
    assert is_golden(response.result)


def test_a_token_works_over_tls(pems: Pems, tmp_path: Path) -> None:
    """Both doors and the page of metrics prove themselves, and ask for a token."""
    token = new_token()
    tokens = write_tokens(tmp_path / "tokens", team=token)
    with serving(**pems.server, tokens=tokens) as served:
        with pems.channel(served) as channel:
            _evaluate(channel, bearer(token))
            with pytest.raises(grpc.RpcError) as caught:
                _evaluate(channel)
            assert item_status(caught.value).reason == "UNAUTHENTICATED"
        for address, path in ((served.http, "/v1/losses"), (served.metrics, "/metrics")):
            with pems.client(address) as client:
                assert client.get(path).status_code == 401
                assert client.get(path, headers=dict(bearer(token))).status_code == 200
        with pems.client(served.http) as client:
            answer = client.post("/v1/evaluate", content=b"x" * (1 << 20))
            assert answer.status_code == 401
        with pytest.raises(httpx.HTTPError):
            httpx.get(f"http://{served.http}/healthz")
        with grpc.insecure_channel(served.grpc) as channel, pytest.raises(grpc.RpcError) as caught:
            _evaluate(channel, bearer(token))
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


def test_a_certificate_names_the_tenant(pems: Pems, mutual: Served) -> None:
    """A caller with a certificate needs no token."""
    with pems.channel(mutual, with_client=True) as channel:
        _evaluate(channel)
        _evaluate(channel, bearer("lw_of_another_server"))
    with pems.client(mutual.http, with_client=True) as client:
        assert client.get("/v1/losses").status_code == 200


def test_without_a_certificate_nobody_connects(pems: Pems, mutual: Served) -> None:
    """Where certificates are asked for, no connection is made without one, also for health."""
    with pems.channel(mutual) as channel, pytest.raises(grpc.RpcError) as caught:
        _evaluate(channel)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    with pems.client(mutual.http) as client, pytest.raises((httpx.HTTPError, ssl.SSLError)):
        client.get("/healthz")


def test_a_certificate_of_another_authority_is_refused(
    pems: Pems, mutual: Served, tmp_path: Path
) -> None:
    """Who has a certificate of somebody else cannot connect."""
    others = make_pems(tmp_path)
    credentials = grpc.ssl_channel_credentials(
        pems.data("ca"), others.data("client-key"), others.data("client")
    )
    with grpc.secure_channel(mutual.grpc, credentials) as channel:
        with pytest.raises(grpc.RpcError) as caught:
            _evaluate(channel)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


def test_a_certificate_must_name_somebody(tmp_path: Path) -> None:
    """A certificate whose common name can be no tenant's proves nothing."""
    pems = make_pems(tmp_path, "a\nb")
    with serving(**pems.server, tls_client_ca=pems.of("ca")) as served:
        with pems.channel(served, with_client=True) as channel:
            with pytest.raises(grpc.RpcError) as caught:
                _evaluate(channel)
            assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
        with pems.client(served.http, with_client=True) as client:
            assert client.get("/v1/losses").status_code == 401


def test_with_both_a_token_counts_first(pems: Pems, tmp_path: Path) -> None:
    """Where both are asked for, a certificate suffices, but not with a wrong token."""
    token = new_token()
    tokens = write_tokens(tmp_path / "tokens", team=token)
    with (
        serving(**pems.server, tls_client_ca=pems.of("ca"), tokens=tokens) as served,
        pems.channel(served, with_client=True) as channel,
    ):
        _evaluate(channel)
        _evaluate(channel, bearer(token))
        with pytest.raises(grpc.RpcError) as caught:
            _evaluate(channel, bearer(new_token()))
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED


@pytest.mark.parametrize(
    ("changes", "mistake"),
    [
        ({"tls_key": ""}, "need each other"),
        ({"tls_cert": ""}, "need each other"),
        ({"tls_cert": "", "tls_key": "", "tls_client_ca": "ca"}, "needs both"),
        ({"tls_key": "client-key"}, "key values mismatch"),
        ({"tls_cert": "server-key"}, "no certificate and its key"),
        ({"tls_cert": "missing"}, "No such file"),
        ({"tls_client_ca": "server-key"}, "no certificates in PEM"),
    ],
)
def test_wrong_files_end_the_start(pems: Pems, changes: dict[str, str], mistake: str) -> None:
    """A server does not start with files that it cannot use, and says which."""
    names = {name: text and pems.of(text) for name, text in changes.items()}
    with pytest.raises(StartError, match=mistake) as caught, serving(**{**pems.server, **names}):
        pass
    assert "\n" not in str(caught.value)


def test_an_encrypted_key_ends_the_start(pems: Pems, tmp_path: Path) -> None:
    """A key with a passphrase is refused instead of asking at a terminal."""
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415

    key = serialization.load_pem_private_key(pems.data("server-key"), None)
    path = tmp_path / "key.pem"
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    with (
        pytest.raises(StartError, match="is encrypted"),
        serving(tls_cert=pems.of("server"), tls_key=str(path)),
    ):
        pass


@pytest.mark.parametrize("option", ["listen", "http", "metrics"])
def test_others_may_call_where_both_sides_prove_who_they_are(
    pems: Pems, tmp_path: Path, option: str
) -> None:
    """An address that other machines reach needs TLS and tokens or certificates, both of them."""
    tokens = {"tokens": write_tokens(tmp_path / "tokens", team=new_token())}
    public = {option: "0.0.0.0:0"}
    for lacking in ({}, tokens, pems.server):
        with (
            pytest.raises(StartError, match=f"--{option} 0.0.0.0:0 can be reached"),
            serving(**public, **lacking),
        ):
            pass
    for enough in ({**tokens, **pems.server}, {**pems.server, "tls_client_ca": pems.of("ca")}):
        with serving(**public, **enough):
            pass
