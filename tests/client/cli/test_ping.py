"""`losswire ping`: one line, and an exit status that orchestrators can use."""

import json
import re
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from tests.client.cli.conftest import Run

_STATUS = health_pb2.HealthCheckResponse


@contextmanager
def _health_only(status: int) -> Iterator[tuple[str, health.HealthServicer]]:
    """Serve nothing but health."""
    servicer = health.HealthServicer()
    servicer.set("", status)
    service = grpc.server(ThreadPoolExecutor(2))
    health_pb2_grpc.add_HealthServicer_to_server(servicer, service)
    port = service.add_insecure_port("127.0.0.1:0")
    service.start()
    try:
        yield f"127.0.0.1:{port}", servicer
    finally:
        service.stop(None).wait()


@contextmanager
def _silent() -> Iterator[str]:
    """Accept connections and say nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"127.0.0.1:{listener.getsockname()[1]}"


@pytest.fixture
def nobody() -> str:
    """An address where nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    return f"127.0.0.1:{port}"


def test_a_server_that_serves(losswire: Run, server: str) -> None:
    """The line has address, health, versions and the round trip; the status is 0."""
    ran = losswire("ping")
    assert (ran.status, ran.err) == (0, "")
    pattern = (
        rf"{server} SERVING, losswire-server \S+, torch \S+ on cpu, losswire \S+, "
        r"round trip \d+\.\d ms\n"
    )
    assert re.fullmatch(pattern, ran.out)


def test_json(losswire: Run, server: str) -> None:
    """--json has the same facts."""
    facts = json.loads(losswire("ping", "--json").out)
    assert (facts["server"], facts["status"], facts["device"]) == (server, "SERVING", "cpu")
    assert facts["round_trip_ms"] > 0


HEALTHS = (
    (_STATUS.SERVING, 0, "SERVING"),
    (_STATUS.NOT_SERVING, 1, "NOT_SERVING"),
    (_STATUS.UNKNOWN, 1, "UNKNOWN"),
    (_STATUS.SERVICE_UNKNOWN, 1, "SERVICE_UNKNOWN"),
)


@pytest.mark.parametrize(("status", "expected", "name"), HEALTHS, ids=[each[2] for each in HEALTHS])
def test_health_alone_decides(losswire: Run, status: int, expected: int, name: str) -> None:
    """Only SERVING is 0, also when the versions are not to be had."""
    with _health_only(status) as (address, _):
        ran = losswire("ping", "--server", address)
    assert (ran.status, ran.err) == (expected, "")
    assert ran.out.startswith(f"{address} {name}, versions unknown (UNIMPLEMENTED), losswire ")


def test_nobody_is_there(losswire: Run, nobody: str) -> None:
    """A refused connection is one line, and 3."""
    ran = losswire("ping", "--server", nobody)
    assert (ran.status, ran.out, ran.err.count("\n")) == (3, "", 1)
    assert ran.err.startswith(f"losswire: {nobody}: ")
    assert ran.err.endswith("(UNAVAILABLE)\n")


def test_nobody_is_there_in_json(losswire: Run, nobody: str) -> None:
    """With --json that is an object too, and still 3."""
    ran = losswire("ping", "--json", "--server", nobody)
    facts = json.loads(ran.out)
    assert (ran.status, ran.err, facts["status"]) == (3, "", None)
    assert facts["error"].endswith("(UNAVAILABLE)")


def test_somebody_says_nothing(losswire: Run) -> None:
    """A server that hangs is given up when the time is over."""
    with _silent() as address:
        ran = losswire("ping", "--server", address, "--timeout", "0.3")
    assert (ran.status, ran.out, ran.err.count("\n")) == (3, "", 1)


def test_the_worst_of_several_counts(losswire: Run, server: str, nobody: str) -> None:
    """Each server has its line; the status is that of the worst."""
    ran = losswire("ping", "--server", f"{server},{nobody}")
    assert ran.status == 3
    assert ran.out.startswith(f"{server} SERVING")
    assert ran.err.startswith(f"losswire: {nobody}: ")


def test_waiting_for_a_server_that_comes(losswire: Run) -> None:
    """--wait asks again until it serves."""
    with _health_only(_STATUS.NOT_SERVING) as (address, servicer), ThreadPoolExecutor(1) as pool:

        def begin() -> None:
            time.sleep(0.5)
            servicer.set("", _STATUS.SERVING)

        begun = pool.submit(begin)
        ran = losswire("ping", "--wait", "--server", address, "--timeout", "30")
        begun.result()
    assert (ran.status, ran.err) == (0, "")
    assert ran.out.startswith(f"{address} SERVING")


def test_waiting_ends(losswire: Run, nobody: str) -> None:
    """--wait gives up when the time is over."""
    ran = losswire("ping", "--wait", "--server", nobody, "--timeout", "0.5")
    assert (ran.status, ran.out) == (3, "")


@pytest.mark.parametrize("command", [("losses",), ("describe", "x"), ("eval", "x")])
def test_other_commands_say_so_too(losswire: Run, nobody: str, command: tuple[str, ...]) -> None:
    """Every command reports a server that is not there with its address, and 3."""
    ran = losswire(*command, "--server", nobody)
    assert (ran.status, ran.out, ran.err.count("\n")) == (3, "", 1)
    assert ran.err.startswith(f"losswire: {nobody}: ")


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "inf", "soon"])
def test_timeouts_are_time_spans(losswire: Run, seconds: str) -> None:
    """A timeout that is none is refused."""
    ran = losswire("ping", "--timeout", seconds)
    assert (ran.status, ran.out, ran.err.count("\n")) == (2, "", 1)
    assert f"{seconds!r} is not a number of seconds greater than 0" in ran.err
