"""Calls to the addresses of one name: shared out by how busy the servers say they are."""

import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import grpc
import pytest

from losswire.client import Client
from losswire.v1 import evaluation_pb2
from tests.support.scripted import Scripted, echo, serving

PATIENCE_SECONDS = 60.0
"""How long shares may take to follow: seconds, on a machine that is much busier than this test."""

Answer = Callable[
    [evaluation_pb2.Evaluation, grpc.ServicerContext], evaluation_pb2.EvaluationResult
]


def load_report(utilization: float) -> bytes:
    """Return a report of ORCA: field 6 is calls a second, 9 the utilization of the service."""
    return b"\x31" + struct.pack("<d", 100.0) + b"\x49" + struct.pack("<d", utilization)


def reporting(utilization: float) -> Answer:
    """Return a script that says with each answer how busy its server is."""

    def answer(
        evaluation: evaluation_pb2.Evaluation, context: grpc.ServicerContext
    ) -> evaluation_pb2.EvaluationResult:
        context.set_trailing_metadata((("endpoint-load-metrics-bin", load_report(utilization)),))
        return echo(evaluation)

    return answer


@contextmanager
def two_servers(idle: float, busy: float) -> Iterator[tuple[Scripted, Scripted]]:
    """Serve two scripts that say how busy they are."""
    with serving(Scripted(reporting(idle))) as a, serving(Scripted(reporting(busy))) as b:
        yield a, b


def shares(client: Client, a: Scripted, b: Scripted) -> tuple[int, int]:
    """Make 100 calls; returns how many each server got."""
    a.evaluations.clear()
    b.evaluations.clear()
    for _ in range(100):
        client.evaluate("any", {})
    return len(a.evaluations), len(b.evaluations)


def test_calls_follow_the_load() -> None:
    """A server that is four times as busy gets about a quarter of the calls of the other."""
    with two_servers(0.2, 0.8) as (a, b), Client(f"ipv4:{a.address},{b.address}") as client:
        end = time.monotonic() + PATIENCE_SECONDS
        while True:
            idle, busy = shares(client, a, b)
            if idle >= 2 * busy > 0:
                break
            assert time.monotonic() < end, f"the shares stay {idle} and {busy}"


@pytest.mark.parametrize("name", ["dns:///localhost:{}", "dns:localhost:{}"])
def test_a_name_is_one_target(name: str) -> None:
    """All addresses of a name are behind one channel, and those where nobody is are passed."""
    with serving(Scripted(reporting(0.5))) as service:
        port = service.address.rpartition(":")[2]
        with Client(name.format(port), timeout=60) as client:
            for _ in range(10):
                client.evaluate("any", {})
    assert len(service.evaluations) == 10
