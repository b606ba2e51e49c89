"""A server process from its first line to its exit status, as an operator sees it."""

import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import grpc
import pytest
import torch
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from losswire.server.cli import main
from losswire.v1 import loss_service_pb2
from tests.support.harness import UNLIMITED, Child, path_with
from tests.support.requests import (
    GOLDEN,
    TIMEOUT,
    Stub,
    by_call,
    evaluation,
    f32,
    is_golden,
    stream_requests,
)
from tests.support.vitals import wait_until

_SERVICES = ("losswire.v1.LossService", "losswire.v1.RunService", "losswire.v1.TensorService")
_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


def test_it_tells_where_it_listens_once_it_does(child: Child) -> None:
    """The first line on standard output is the address, with the port that was picked."""
    assert re.fullmatch(r"listening on 127\.0\.0\.1:[1-9]\d*\n", child.first_line)
    host, _, port = child.address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=TIMEOUT):
        pass


@pytest.mark.parametrize("service", ["", "losswire.v1.LossService", "losswire.live"])
def test_health_says_serving(child: Child, service: str) -> None:
    """The server as a whole and each service that is filled are SERVING; the process is alive."""
    with child.channel() as channel:
        health = health_pb2_grpc.HealthStub(channel)
        request = health_pb2.HealthCheckRequest(service=service)
        assert health.Check(request, timeout=TIMEOUT).status == _SERVING


def test_health_does_not_know_other_services(child: Child) -> None:
    """An unknown service is NOT_FOUND."""
    with child.channel() as channel, pytest.raises(grpc.RpcError) as refused:
        health_pb2_grpc.HealthStub(channel).Check(
            health_pb2.HealthCheckRequest(service="nope"), timeout=TIMEOUT
        )
    assert refused.value.code() is grpc.StatusCode.NOT_FOUND


def test_reflection_lists_every_service(child: Child) -> None:
    """A generic client finds the services without the .proto files."""
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    with child.channel() as channel:
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        [answer] = stub.ServerReflectionInfo(iter([request]), timeout=TIMEOUT)
    assert sorted(each.name for each in answer.list_services_response.service) == [
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
        "grpc.reflection.v1alpha.ServerReflection",
        *_SERVICES,
    ]


def test_a_compressed_message_is_refused(child: Child) -> None:
    """Gzip is UNIMPLEMENTED: a compressed message would be inflated before it is measured."""
    zeros = evaluation("sigmoid", {"input": f32(*[0.0] * 10_000)})
    request = loss_service_pb2.EvaluateRequest(evaluation=zeros)
    with child.channel() as channel, pytest.raises(grpc.RpcError) as refused:
        Stub(channel).Evaluate(request, timeout=TIMEOUT, compression=grpc.Compression.Gzip)
    assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize("stream", [False, True], ids=["call", "stream"])
def test_a_message_over_the_limit_is_refused(stub: Stub, stream: bool) -> None:  # noqa: FBT001
    """9 MiB in one piece are RESOURCE_EXHAUSTED; the next call is answered."""
    item = evaluation("sigmoid", {"input": f32(*[0.0] * 16)})
    item.inputs["input"].data = bytes(9 * 1024 * 1024)
    request = loss_service_pb2.EvaluateRequest(evaluation=item)

    def by_stream() -> object:
        return list(stub.EvaluateStream(stream_requests([(1, item)]), timeout=TIMEOUT))

    def by_one_call() -> object:
        return stub.Evaluate(request, timeout=TIMEOUT)

    with pytest.raises(grpc.RpcError) as refused:
        (by_stream if stream else by_one_call)()
    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert is_golden(by_call(stub, GOLDEN).result)


def test_the_limit_is_a_setting(tmp_path: Path) -> None:
    """GetServerInfo reports --max-message-mib, up to which requests pass; unix sockets work."""
    address = f"unix:{tmp_path}/socket"
    with Child(tmp_path / "log", "--max-message-mib", "10", listen=address) as child:
        assert child.first_line == f"listening on {address}\n"
        with child.channel() as channel:
            stub = Stub(channel)
            info = stub.GetServerInfo(loss_service_pb2.GetServerInfoRequest(), timeout=TIMEOUT)
            assert info.limits.max_message_bytes == 10 * 1024 * 1024
            item = evaluation("sigmoid", {"input": torch.zeros(9 * 2**18).numpy()})
            assert by_call(stub, item).result.loss.shape == [9 * 2**18]
        child.process.send_signal(signal.SIGINT)
        assert child.wait() == 0
    assert not (tmp_path / "socket").exists()


_SLOW = '''
import os
import time
from pathlib import Path

from torch import Tensor

from losswire.server.declare import Input, Terms, floats, layout, loss


@loss(
    layouts=(layout("any", input=floats("*S"), values="*S"),),
    inputs={"input": Input(meaning="How long to take, in seconds.")},
    source="tests",
)
def slow(input: Tensor) -> Terms:
    """Take a while."""
    Path(os.environ["STARTED"]).touch()
    time.sleep(float(input.sum()))
    return Terms(input)
'''


def test_calls_in_flight_finish_after_sigterm(tmp_path: Path) -> None:
    """On SIGTERM (twice) health says NOT_SERVING, the call at work is answered, exit status 0."""
    (tmp_path / "slow_loss.py").write_text(_SLOW)
    started = tmp_path / "started"
    with (
        Child(
            tmp_path / "log",
            *("--losses", "slow_loss"),
            environment={"PYTHONPATH": path_with(tmp_path), "STARTED": str(started)},
        ) as child,
        child.channel() as channel,
    ):
        watch = health_pb2_grpc.HealthStub(channel).Watch(
            health_pb2.HealthCheckRequest(), timeout=TIMEOUT
        )
        assert next(watch).status == _SERVING
        item = evaluation("slow", {"input": f32(1.5)})
        request = loss_service_pb2.EvaluateRequest(evaluation=item)
        call = Stub(channel).Evaluate.future(request, timeout=TIMEOUT)
        while not started.exists():
            time.sleep(0.01)
        child.terminate()
        assert next(watch).status == _NOT_SERVING
        assert not call.done()
        child.terminate()
        watch.cancel()
        assert call.result().result.sum == 1.5
        assert child.wait() == 0
    assert child.entries()[-1]["message"] == "stopped"


def test_the_second_interrupt_ends_it_at_once(tmp_path: Path) -> None:
    """SIGINT drains; another one ends the process with status 130, whatever is computed."""
    (tmp_path / "slow_loss.py").write_text(_SLOW)
    started = tmp_path / "started"
    environment = {"PYTHONPATH": path_with(tmp_path), "STARTED": str(started)}
    arguments = ("--losses", "slow_loss", "--drain-seconds", "600")
    with (
        Child(tmp_path / "log", *arguments, environment=environment) as child,
        child.channel() as channel,
    ):
        item = evaluation("slow", {"input": f32(100)})
        request = loss_service_pb2.EvaluateRequest(evaluation=item)
        call = Stub(channel).Evaluate.future(request, timeout=TIMEOUT)
        wait_until(started.exists)
        child.process.send_signal(signal.SIGINT)
        health = health_pb2_grpc.HealthStub(channel)
        wait_until(lambda: _state(health) == _NOT_SERVING)
        assert not call.done()
        child.process.send_signal(signal.SIGINT)
        assert child.wait() == 130


def _state(health: health_pb2_grpc.HealthStub, service: str = "") -> int:
    request = health_pb2.HealthCheckRequest(service=service)
    status: int = health.Check(request, timeout=TIMEOUT).status
    return status


def test_an_engine_that_hangs_is_neither_ready_nor_alive(tmp_path: Path) -> None:
    """The canary is not evaluated in time: health says so, and that all is well once it is."""
    (tmp_path / "slow_loss.py").write_text(_SLOW)
    environment = {"PYTHONPATH": path_with(tmp_path), "STARTED": str(tmp_path / "started")}
    arguments = ("--losses", "slow_loss", "--hang-seconds", "0.5")
    with (
        Child(tmp_path / "log", *arguments, environment=environment) as child,
        child.channel() as channel,
    ):
        health = health_pb2_grpc.HealthStub(channel)
        item = evaluation("slow", {"input": f32(4)})
        request = loss_service_pb2.EvaluateRequest(evaluation=item)
        call = Stub(channel).Evaluate.future(request, timeout=TIMEOUT)
        wait_until(lambda: _state(health, "losswire.live") == _NOT_SERVING)
        assert _state(health) == _NOT_SERVING
        assert call.result().result.sum == 4
        wait_until(lambda: _state(health, "losswire.live") == _SERVING)
        assert _state(health) == _SERVING
    assert "the engine has taken nothing for 0.5 s" in [each["message"] for each in child.entries()]


def test_an_open_stream_does_not_delay_the_end(tmp_path: Path) -> None:
    """A stream and a watch that are idle end with UNAVAILABLE, long before the time to drain."""
    with (
        Child(tmp_path / "log", "--drain-seconds", "600") as child,
        child.channel() as channel,
    ):
        requests: SimpleQueue[Any] = SimpleQueue()
        sent = iter(lambda: requests.get(), None)  # noqa: PLW0108 - mypy cannot call it itself
        stream = Stub(channel).EvaluateStream(sent, timeout=TIMEOUT)
        requests.put(next(iter(stream_requests([(1, GOLDEN)]))))
        assert is_golden(next(stream).outcome.result)
        watch = health_pb2_grpc.HealthStub(channel).Watch(
            health_pb2.HealthCheckRequest(), timeout=TIMEOUT
        )
        assert next(watch).status == _SERVING
        child.terminate()
        with pytest.raises(grpc.RpcError) as ended:
            next(stream)
        assert ended.value.code() is grpc.StatusCode.UNAVAILABLE
        assert ended.value.details() == "the server shuts down; another one can continue"
        assert next(watch).status == _NOT_SERVING
        assert child.wait() == 0
        requests.put(None)


_PORT_TAKEN = "the address of the shared server"

REFUSED: tuple[tuple[Sequence[str], str], ...] = (
    (("--listen", "0.0.0.0:0"), "--listen 0.0.0.0:0 can be reached from other machines"),
    (("--listen", "[::]:0"), "--listen [::]:0 can be reached from other machines"),
    (("--listen", "example.org:0"), "say --allow-insecure to do without"),
    (("--listen", "nonsense"), "--listen nonsense: expected HOST:PORT or unix:PATH"),
    (("--listen", ":50051"), "--listen :50051: expected HOST:PORT or unix:PATH"),
    (("--listen", "127.0.0.1:70000"), "--listen 127.0.0.1:70000: expected HOST:PORT"),
    (("--listen", "127.0.0.1:http"), "--listen 127.0.0.1:http: expected HOST:PORT"),
    (("--listen", "unix:/nowhere/at/all"), "--listen unix:/nowhere/at/all: "),
    (("--listen", _PORT_TAKEN), "--listen 127.0.0.1:"),
    (("--losses", "no_such_module"), "--losses no_such_module: No module named 'no_such_module'"),
    (("--losses", "losswire.server.nope"), "--losses losswire.server.nope: No module named"),
)


@pytest.mark.parametrize(("arguments", "said"), REFUSED, ids=[" ".join(a) for a, _ in REFUSED])
def test_settings_that_cannot_be_served_are_told_in_one_line(
    child: Child, capfd: pytest.CaptureFixture[str], arguments: Sequence[str], said: str
) -> None:
    """Exit status 2 and one readable line, which is never a traceback."""
    given = [child.address if each == _PORT_TAKEN else each for each in arguments]
    assert main(["serve", "--device", "cpu", "--listen", "127.0.0.1:0", *given]) == 2
    out, err = capfd.readouterr()
    assert out == ""
    ours = [line for line in err.splitlines() if not re.match(r"[EWI]\d{4} ", line)]
    assert len(ours) == 1
    assert ours[0].startswith("losswire-server: ")
    assert said in ours[0]


def test_a_gpu_that_is_not_there_is_told_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """--device cuda without a CUDA device is exit status 2 and one line."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main(["serve", "--device", "cuda", "--listen", "127.0.0.1:0"]) == 2
    assert capfd.readouterr().err == (
        "losswire-server: --device cuda: torch finds no CUDA device\n"
    )


_BROKEN = {
    "syntax_error": "def :",
    "raises": "raise RuntimeError('a reason')",
    "wrong_record": _SLOW.replace('"""Take a while."""', ""),
    "double": _SLOW.replace("def slow", "def mse_loss"),
}


@pytest.mark.parametrize("name", list(_BROKEN))
def test_losses_that_cannot_be_loaded_are_told_in_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    name: str,
) -> None:
    """A module of losses that is broken is exit status 2 and one line that names it."""
    (tmp_path / f"losses_{name}.py").write_text(_BROKEN[name])
    monkeypatch.syspath_prepend(tmp_path)
    arguments = ["serve", "--listen", "127.0.0.1:0", "--losses", f"losses_{name}"]
    assert main(arguments) == 2
    err = capfd.readouterr().err
    assert err.startswith(f"losswire-server: --losses losses_{name}: ")
    assert len(err.splitlines()) == 1


def test_it_listens_to_other_machines_when_told(tmp_path: Path) -> None:
    """--allow-insecure is what it takes to listen on every interface."""
    with Child(tmp_path / "log", "--allow-insecure", listen="0.0.0.0:0") as child:
        port = child.address.removeprefix("0.0.0.0:")
        with grpc.insecure_channel(f"127.0.0.1:{port}", UNLIMITED) as channel:
            assert is_golden(by_call(Stub(channel), GOLDEN).result)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--help"], "serve"),
        (["serve", "--help"], "Prints `listening on HOST:PORT` when ready."),
        (["serve", "--help"], "--allow-insecure"),
        (["--version"], "0."),
    ],
)
def test_help_helps(capsys: pytest.CaptureFixture[str], arguments: list[str], said: str) -> None:
    """--help and --version answer on standard output with status 0."""
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 0
    assert said in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "COMMAND"),
        (["serve", "--threads", "0"], "--threads: 0 is not a whole number greater than 0"),
        (["serve", "--threads", "two"], "--threads: two is not a whole number greater than 0"),
        (["serve", "--device", "tpu"], "invalid choice: 'tpu'"),
        (["serve", "--drain-seconds", "-1"], "--drain-seconds: -1 is not a number of seconds"),
        (["serve", "--workers", "-1"], "--workers: -1 is not a whole number"),
        (["serve", "--hang-seconds", "0"], "0 is not a number of seconds greater than 0"),
        (["serve", "--drain-seconds", "nan"], "--drain-seconds: nan is not a number of seconds"),
        (["serve", "--nonsense"], "--nonsense"),
    ],
)
def test_a_wrong_command_line_is_told(
    capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    """The last line names the argument and what is wrong with it; status 2."""
    assert main(arguments) == 2
    assert said in capsys.readouterr().err.splitlines()[-1]


def test_the_module_is_the_command() -> None:
    """`python -m losswire.server` without a server to start exits as the command does."""
    command = [sys.executable, "-m", "losswire.server", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(r"\d+\.\d+\.\d+\S*\n", done.stdout)
