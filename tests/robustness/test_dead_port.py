"""Ports at which nobody answers: the SDK says so soon, and what to do."""

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import pytest

from losswire.client import Client, Evaluation, RetryPolicy, UnavailableError
from tests.client.conftest import Call, call_async, call_blocking
from tests.support.scripted import Scripted, serving
from tests.support.soak import record

_CONTRACT_SECONDS = 2.0
_SLACK_SECONDS = 8.0
"""What a busy machine may add."""
_LARGE = np.zeros(3_000_000, np.float32)


@pytest.fixture(params=[call_blocking, call_async], ids=["Client", "AsyncClient"])
def call(request: pytest.FixtureRequest) -> Call:
    """Return what makes one call: both clients in turn."""
    chosen: Call = request.param
    return chosen


@pytest.fixture
def refusing() -> str:
    """Return an address at which connections are refused."""
    return "127.0.0.1:1"


@pytest.fixture
def silent() -> Iterator[str]:
    """Yield an address at which connections are accepted, and never answered."""
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        yield f"127.0.0.1:{listener.getsockname()[1]}"


@pytest.fixture
def hole() -> Iterator[str]:
    """Yield an address at which connections are not even accepted: its line is full."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.settimeout(0)
            with suppress(BlockingIOError):
                filler.connect(listener.getsockname())
        yield f"127.0.0.1:{listener.getsockname()[1]}"


@pytest.mark.parametrize("kind", ["refusing", "silent", "hole"])
def test_a_call_ends_soon(call: Call, kind: str, request: pytest.FixtureRequest) -> None:
    """No answer at all ends in about 2 s, with a sentence on how to start a server."""
    target = request.getfixturevalue(kind)
    started = time.monotonic()
    with pytest.raises(UnavailableError, match="losswire-server serve") as raised:
        call(target, "evaluate", "mse_loss", {"input": [1.0], "target": [0.0]})
    seconds = time.monotonic() - started
    record(f"no answer, {kind}", seconds, unit="s", required="<= 2.5")
    assert seconds < _CONTRACT_SECONDS + _SLACK_SECONDS
    assert target in raised.value.message
    assert (raised.value.reason, raised.value.retryable) == ("UNREACHABLE", True)


@pytest.mark.parametrize("kind", ["refusing", "silent", "hole"])
def test_another_target_is_there(call: Call, kind: str, request: pytest.FixtureRequest) -> None:
    """The first call of a client goes past targets that do not answer to one that does."""
    target = request.getfixturevalue(kind)
    with serving(Scripted()) as service:
        targets = f"{target},{target},{service.address}"
        call(targets, "evaluate", "mse_loss", {"input": [1.0], "target": [0.0]})
    assert len(service.evaluations) == 1


WAYS: dict[str, Callable[[Client], object]] = {
    "large": lambda client: client.evaluate("mse_loss", {"input": _LARGE, "target": _LARGE}),
    "many": lambda client: client.evaluate_many([Evaluation("mse_loss", {})]),
    "stream": lambda client: client.stream().__enter__(),
    "summarize": lambda client: client.summarize("mse_loss", [{"input": [1.0], "target": [0.0]}]),
    "put": lambda client: client.put([1.0]),
    "runs": lambda client: list(client.runs.list()),
}


@pytest.mark.parametrize("way", WAYS)
def test_every_kind_of_call_ends_soon(way: str, silent: str) -> None:
    """Whatever a client is asked for, a silent port ends it."""
    started = time.monotonic()
    with Client(silent) as client, pytest.raises(UnavailableError, match="no Losswire server"):
        WAYS[way](client)
    assert time.monotonic() - started < _CONTRACT_SECONDS + _SLACK_SECONDS


def test_waiting_for_a_server_that_starts(call: Call) -> None:
    """With `wait_for_ready`, a call waits for a server that is not there yet."""
    with serving(Scripted()) as before:
        address = before.address
    settings = {"wait_for_ready": True}
    up = threading.Event()
    done = threading.Event()

    def start() -> None:
        time.sleep(2.5)
        with serving(Scripted(), listen=address):
            up.set()
            done.wait(60)

    thread = threading.Thread(target=start)
    thread.start()
    try:
        call(address, "evaluate", "any", {}, settings=settings)
    finally:
        assert up.wait(60)
        done.set()
        thread.join()


def test_the_port_of_another_door_is_told(call: Call) -> None:
    """A server that speaks HTTP/1.1 is no reason to start one, or to wait."""
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as other:
        thread = threading.Thread(target=other.serve_forever)
        thread.start()
        try:
            with pytest.raises(UnavailableError, match=r"port of --http or --metrics\?"):
                call(f"127.0.0.1:{other.server_port}", "evaluate", "any", {})
        finally:
            other.shutdown()
            thread.join()


def test_a_server_that_is_gone_is_told() -> None:
    """Who was there is waited for until the timeout, which the error then says."""
    with serving(Scripted()) as server:
        client = Client(server.address)
        client.evaluate("any", {})
    with client, pytest.raises(UnavailableError, match="does not answer any more, tried for"):
        client.evaluate("any", {}, timeout=1)


def test_the_last_try_is_near_the_deadline() -> None:
    """A wait that would outlast a call is cut short, not the call."""
    settings = RetryPolicy(initial_backoff=5.0, max_backoff=5.0)
    started = time.monotonic()
    with (
        Client("127.0.0.1:1", retry=settings, wait_for_ready=True) as client,
        pytest.raises(UnavailableError, match="with a longer timeout"),
    ):
        client.evaluate("any", {}, timeout=2)
    assert time.monotonic() - started > 1.8


@pytest.mark.parametrize("wrong", [0, -1.0, float("nan"), "5", -(10**400)])
def test_impossible_waits(wrong: Any) -> None:  # noqa: ANN401 - on purpose
    """A wait is a number of seconds greater than 0, or True."""
    with pytest.raises(ValueError, match="wait_for_ready: expected"):
        Client("host:1", wait_for_ready=wrong)


@pytest.mark.parametrize("seconds", [10**400, 1e300, np.float32(5), float("inf")])
def test_waits_of_any_kind(call: Call, seconds: Any) -> None:  # noqa: ANN401 - on purpose
    """A wait is any kind of number, as a timeout is, however large."""
    with serving(Scripted()) as service:
        call(service.address, "evaluate", "any", {}, settings={"wait_for_ready": seconds})


def test_the_command_line_ends_soon(refusing: str) -> None:
    """A command whose server is not there ends by status 3 and one line."""
    command = [sys.executable, "-m", "losswire.client.cli", "losses", "--server", refusing]
    started = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert time.monotonic() - started < _CONTRACT_SECONDS + 3 * _SLACK_SECONDS
    assert done.returncode == 3
    [line] = done.stderr.splitlines()
    assert line.startswith(f"losswire: {refusing}: no Losswire server answers")
    assert "losswire-server serve" in line
