"""Tokens and certificates change while the server serves, and no call fails."""

import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import httpx
import pytest

from losswire.server.identity.authority import Authority
from losswire.server.identity.tokens import TokenHash, digest_of, new_token
from losswire.v1 import loss_service_pb2
from tests.support.asked import SECONDS, Served, bearer, serving, write_tokens
from tests.support.harness import Child
from tests.support.pems import make_pems
from tests.support.requests import GOLDEN, Stub, is_golden

_REQUEST = loss_service_pb2.EvaluateRequest(evaluation=GOLDEN)


def _calls(channel: grpc.Channel, token: str) -> bool:
    """Return whether a call with a token is answered."""
    metadata = bearer(token)
    try:
        response = Stub(channel).Evaluate(_REQUEST, metadata=metadata, timeout=SECONDS)
    except grpc.RpcError:
        return False
    return is_golden(response.result)


def _until(condition: Callable[[], bool]) -> None:
    """Wait until something is so."""
    end = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


@contextmanager
def _load(call: Callable[[], bool]) -> Iterator[list[bool]]:
    """Call again and again in a thread; lends what came of each call."""
    done: list[bool] = []
    stopping = threading.Event()

    def run() -> None:
        while not stopping.is_set():
            done.append(call())

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield done
    finally:
        stopping.set()
        thread.join(SECONDS)


def test_tokens_change_under_load(tmp_path: Path) -> None:
    """A new token is added, callers change to it, the old one is removed: no call fails."""
    old, new = new_token(), new_token()
    path = tmp_path / "tokens"
    write_tokens(path, team=old)
    used = [old]
    with (
        serving(tokens=str(path)) as served,
        grpc.insecure_channel(served.grpc) as channel,
        _load(lambda: _calls(channel, used[0])) as done,
    ):
        both = [TokenHash("team", digest_of(each)).line for each in (old, new)]
        path.write_text("\n".join(both), encoding="utf-8")
        _until(lambda: _calls(channel, new))
        used[0] = new
        count = len(done)
        _until(lambda: len(done) > count + 1)
        write_tokens(path, team=new)
        _until(lambda: not _calls(channel, old))
        count = len(done)
        _until(lambda: len(done) > count)
    assert all(done)


def test_certificates_change_under_load(tmp_path: Path) -> None:
    """The server takes the certificates of another authority: old and new connections work."""
    first, second = make_pems(tmp_path / "first"), make_pems(tmp_path / "second")
    live = make_pems(tmp_path / "live")
    for each in ("server", "server-key"):
        Path(live.of(each)).write_bytes(first.data(each))
    # What callers trust while they change from one authority to the other.
    Path(live.of("ca")).write_bytes(first.data("ca") + second.data("ca"))

    with serving(**live.server) as served, live.channel(served) as lasting:

        def over_http(address: str) -> bool:
            with live.client(address) as client:
                return client.get("/v1/losses").status_code == 200

        def call() -> bool:
            with live.channel(served) as channel:
                return _calls(channel, "") and _calls(lasting, "") and over_http(served.http)

        def by_new_ones() -> bool:
            try:
                with second.channel(served) as channel, second.client(served.http) as client:
                    return _calls(channel, "") and client.get("/healthz").status_code == 200
            except httpx.HTTPError:
                return False

        with _load(call) as done:
            _until(lambda: len(done) > 1)
            assert not by_new_ones()
            # One after the other, so that for a moment they do not belong together.
            for each in ("server-key", "server"):
                Path(live.of(each)).write_bytes(second.data(each))
                time.sleep(0.1)
            _until(by_new_ones)
            count = len(done)
            _until(lambda: len(done) > count + 1)
        with first.channel(served) as channel:
            assert not _calls(channel, "")
    assert all(done)


def test_authorities_of_callers_change(tmp_path: Path) -> None:
    """Who has a certificate of an authority that is no longer there cannot connect any more."""
    live, others = make_pems(tmp_path / "live"), make_pems(tmp_path / "others")
    trusted = tmp_path / "trusted.pem"
    trusted.write_bytes(live.data("ca"))
    with serving(**live.server, tls_client_ca=str(trusted)) as served:

        def over_http() -> bool:
            try:
                with live.client(served.http, with_client=True) as client:
                    return client.get("/v1/losses").status_code == 200
            except httpx.HTTPError:
                return False

        def over_grpc() -> bool:
            with live.channel(served, with_client=True) as channel:
                return _calls(channel, "")

        assert over_http()
        assert over_grpc()
        trusted.write_bytes(others.data("ca"))
        _until(lambda: not over_http() and not over_grpc())


@pytest.mark.parametrize("broken", ["no line of tokens\n", None])
def test_broken_tokens_change_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, broken: str | None
) -> None:
    """A file with a mistake, or none, leaves the tokens as they were, and the log says why."""
    token = new_token()
    path = tmp_path / "tokens"
    write_tokens(path, team=token)
    with serving(tokens=str(path)) as served, grpc.insecure_channel(served.grpc) as channel:
        if broken is None:
            path.unlink()
        else:
            path.write_text(broken, encoding="utf-8")
        _until(lambda: "stays in force" in caplog.text)
        assert _calls(channel, token)
        [entry] = [each for each in caplog.records if "stays in force" in each.message]
        assert entry.levelno == logging.ERROR
        assert str(path) in entry.message
        # Once it is mended, it counts again.
        other = new_token()
        write_tokens(path, team=other)
        _until(lambda: _calls(channel, other))
        assert not _calls(channel, token)


def test_broken_certificates_change_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A certificate without its key leaves the server with the pair that it had."""
    caplog.set_level(logging.INFO)
    pems = make_pems(tmp_path)
    with serving(**pems.server) as served:
        Path(pems.of("server")).write_bytes(pems.data("client"))
        _until(lambda: "stays in force" in caplog.text)
        with pems.channel(served) as channel, pems.client(served.http) as client:
            assert _calls(channel, "")
            assert client.get("/healthz").status_code == 200
        Authority.read(tmp_path).issue_server(tmp_path, [])
        _until(lambda: "read again" in caplog.text)
        with pems.channel(served) as channel:
            assert _calls(channel, "")


def test_a_hangup_reads_again(tmp_path: Path) -> None:
    """SIGHUP reads the files at once, and ends nothing."""
    path = tmp_path / "tokens"
    tokens = write_tokens(path, team=new_token())
    with Child(tmp_path / "log", "--tokens", tokens) as child:
        child.process.send_signal(signal.SIGHUP)
        _until(lambda: any("read again" in each["message"] for each in child.entries()))
        assert child.alive


@pytest.mark.parametrize("has_tokens", [False, True])
def test_a_hangup_ends_no_server_that_drains(tmp_path: Path, has_tokens: bool) -> None:  # noqa: FBT001
    """SIGHUP is not the end, also without files and after SIGTERM: the exit status is 0."""
    arguments = ["--notice-seconds", "1"]
    if has_tokens:
        arguments += ["--tokens", write_tokens(tmp_path / "tokens", team=new_token())]
    with Child(tmp_path / "log", *arguments) as child:
        child.process.send_signal(signal.SIGHUP)
        child.process.send_signal(signal.SIGTERM)
        child.process.send_signal(signal.SIGHUP)
        assert child.wait() == 0


def test_a_broken_file_ends_the_start(tmp_path: Path) -> None:
    """A server does not start with tokens that it cannot read: status 2, and one sentence."""
    path = tmp_path / "tokens"
    path.write_text("team lw_what_is_this\n", encoding="utf-8")
    with Child(tmp_path / "log", "--tokens", str(path)) as child:
        assert child.wait() == 2
    *_, last = child.log.read_text(encoding="utf-8").splitlines()
    assert last.startswith(f"losswire-server: --tokens: {path}:1: ")


def test_workers_ask_too_and_follow_changes(tmp_path: Path) -> None:
    """Each of several workers proves itself, asks who calls and follows the files."""
    pems = make_pems(tmp_path / "pems")
    old, new = new_token(), new_token()
    path = tmp_path / "tokens"
    arguments = ["--workers", "2", "--memory-budget-mib", "128", "--http", "127.0.0.1:0"]
    arguments += ["--tokens", write_tokens(path, team=old)]
    arguments += ["--tls-cert", pems.of("server"), "--tls-key", pems.of("server-key")]
    with Child(tmp_path / "log", *arguments) as child:
        http = child.read_line().removeprefix("http on ")

        def answers(token: str) -> set[bool]:
            """Return what several connections say, which reach both workers."""
            found = set[bool]()
            for _ in range(16):
                with pems.channel(Served(child.address, http, "")) as channel:
                    found.add(_calls(channel, token))
            return found

        assert answers(old) == {True}
        assert answers(new) == {False}
        with pems.client(http) as client:
            assert client.get("/v1/losses").status_code == 401
            assert client.get("/v1/losses", headers=dict(bearer(old))).status_code == 200
        write_tokens(path, team=new)
        child.process.send_signal(signal.SIGHUP)
        _until(lambda: answers(new) == {True} and answers(old) == {False})
        assert child.alive
