"""Tokens and certificates that change on disk while a client is used."""

import asyncio
import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from losswire.client import (
    AsyncClient,
    Client,
    Evaluation,
    LosswireError,
    RetryPolicy,
    UnauthenticatedError,
)
from losswire.v1 import evaluation_pb2
from tests.support.certificates import Authority
from tests.support.scripted import Scripted, echo, fail, serving

ONCE = RetryPolicy(max_attempts=1)


class Gate:
    """A script that accepts one token."""

    def __init__(self, token: str) -> None:
        self.accepted = token
        self.refusals = 0

    def __call__(
        self, evaluation: evaluation_pb2.Evaluation, context: grpc.ServicerContext
    ) -> evaluation_pb2.EvaluationResult:
        """Answer callers with the token."""
        sent: dict[str, Any] = dict(context.invocation_metadata())
        if sent.get("authorization") != f"Bearer {self.accepted}":
            self.refusals += 1
            fail(context, grpc.StatusCode.UNAUTHENTICATED, "a token is needed")
        return echo(evaluation)


def test_a_new_token(tmp_path: Path) -> None:
    """A call that the server refuses is made once more with the token that the file has now."""
    path = tmp_path / "token"
    path.write_text("first")
    gate = Gate("first")
    with serving(Scripted(script=gate)) as service:
        with Client(service.address, token_file=path, retry=ONCE) as client:
            client.evaluate("any", {})
            path.write_text("the second")
            gate.accepted = "the second"
            client.evaluate("any", {})
            client.evaluate("any", {})
            assert gate.refusals <= 1
            gate.accepted = "a third"
            with pytest.raises(UnauthenticatedError):
                client.evaluate("any", {})
        assert gate.refusals <= 2


def test_a_new_token_for_many_threads(tmp_path: Path) -> None:
    """However many calls an old token fails, each goes on with the new one."""
    path = tmp_path / "token"
    path.write_text("first")
    gate = Gate("first")
    failures: list[Exception] = []

    def call_often(client: Client) -> None:
        try:
            for _ in range(50):
                client.evaluate("any", {})
        except Exception as error:  # noqa: BLE001 - the test fails by it
            failures.append(error)

    with (
        serving(Scripted(script=gate)) as service,
        Client(service.address, token_file=path, retry=ONCE) as client,
    ):
        client.evaluate("any", {})
        threads = [threading.Thread(target=call_often, args=(client,)) for _ in range(8)]
        for each in threads:
            each.start()
        path.write_text("the second")
        gate.accepted = "the second"
        for each in threads:
            each.join()
    assert not failures


def test_a_token_file_that_is_no_good_for_a_moment(tmp_path: Path) -> None:
    """A file that is empty or gone changes nothing: the last good token is sent."""
    path = tmp_path / "token"
    path.write_text("first")
    gate = Gate("first")
    with (
        serving(Scripted(script=gate)) as service,
        Client(service.address, token_file=path, retry=ONCE) as client,
    ):
        for spoil in (lambda: path.write_text(""), path.unlink):
            spoil()
            gate.accepted = "another"
            with pytest.raises(UnauthenticatedError):
                client.evaluate("any", {})
            gate.accepted = "first"
            client.evaluate("any", {})


def server_of(authority: Authority, clients: Authority) -> grpc.ServerCredentials:
    """Return the credentials of a server that asks for a certificate."""
    pair = authority.issue("the server")
    return grpc.ssl_server_credentials(
        [(pair.key, pair.certificate)], clients.certificate, require_client_auth=True
    )


def test_new_certificates(tmp_path: Path) -> None:
    """A server that comes back with another authority is reached once the files have changed.

    A stream and calls under way before are not disturbed by the new connections.
    """
    before, after = Authority("before"), Authority("after")
    ca = tmp_path / "ca.pem"
    ca.write_bytes(before.certificate)
    certificate, key = before.issue("tenant").write(tmp_path, "client")
    with serving(Scripted(), credentials=server_of(before, before)) as service:
        client = Client(service.address, tls_ca=ca, tls_cert=certificate, tls_key=key, timeout=60)
        client.evaluate("any", {})
    with (
        client,
        serving(Scripted(), credentials=server_of(after, after), listen=service.address) as again,
    ):
        ca.write_bytes(after.certificate)
        after.issue("tenant").write(tmp_path, "client")
        client.evaluate("any", {})
        with client.stream() as stream:
            stream.submit(Evaluation("any", {})).result()
    assert len(again.evaluations) == 2


class Slow:
    """A script whose calls of one loss last until they may end, and of another are lost."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.may_end = threading.Event()

    def __call__(
        self, evaluation: evaluation_pb2.Evaluation, context: grpc.ServicerContext
    ) -> evaluation_pb2.EvaluationResult:
        """Answer, sooner or later."""
        if evaluation.loss == "slow":
            self.begun.set()
            self.may_end.wait(60)
        elif evaluation.loss == "lost":
            fail(context, grpc.StatusCode.UNAVAILABLE)
        return echo(evaluation)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """An authority whose certificate is in a file."""
    made = Authority()
    (tmp_path / "ca.pem").write_bytes(made.certificate)
    return made


@contextmanager
def slow_service(authority: Authority) -> Iterator[tuple[Scripted, Slow]]:
    """Serve the script over TLS."""
    script, pair = Slow(), authority.issue("the server")
    credentials = grpc.ssl_server_credentials([(pair.key, pair.certificate)])
    with serving(Scripted(script=script), credentials=credentials) as service:
        yield service, script


def test_new_certificates_leave_calls_under_way(authority: Authority, tmp_path: Path) -> None:
    """A call over the connection before goes on to its end while others take the new one."""
    path = tmp_path / "ca.pem"
    with (
        slow_service(authority) as (service, script),
        Client(service.address, tls_ca=path, timeout=60) as client,
    ):
        answers: list[Any] = []
        slow = threading.Thread(target=lambda: answers.append(client.evaluate("slow", {})))
        slow.start()
        script.begun.wait(60)
        path.write_bytes(authority.certificate + Authority("another").certificate)
        with pytest.raises(LosswireError):
            client.evaluate("lost", {}, timeout=0.5)  # the files are looked at after a failure
        client.evaluate("any", {})
        gc.collect()
        script.may_end.set()
        slow.join()
    assert len(answers) == 1


def test_new_certificates_leave_tasks_under_way(authority: Authority, tmp_path: Path) -> None:
    """The same holds on an event loop."""
    path = tmp_path / "ca.pem"

    async def run(service: Scripted, script: Slow) -> None:
        async with AsyncClient(service.address, tls_ca=path, timeout=60) as client:
            slow = asyncio.create_task(client.evaluate("slow", {}))
            await asyncio.to_thread(script.begun.wait, 60)
            path.write_bytes(authority.certificate + Authority("another").certificate)
            with pytest.raises(LosswireError):
                await client.evaluate("lost", {}, timeout=0.5)
            await client.evaluate("any", {})
            gc.collect()
            script.may_end.set()
            await slow

    with slow_service(authority) as (service, script):
        asyncio.run(run(service, script))
