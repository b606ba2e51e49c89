"""The port where only health is answered: the states of the server, also while it drains."""

import asyncio
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2

from losswire.server.address import StartError
from losswire.server.app import App
from losswire.server.rpc.health import LIVE, Health
from losswire.server.rpc.health_port import HealthPort
from losswire.server.settings import MIB, Settings
from losswire.v1 import loss_service_pb2, loss_service_pb2_grpc
from tests.support.harness import Child
from tests.support.inside import CLOSED, Gate, numbered, serving_app, until
from tests.support.requests import TIMEOUT
from tests.support.workers import Workers

_Status = health_pb2.HealthCheckResponse
_SERVICE = "losswire.v1.LossService"


def _check(channel: Any, service: str = "") -> Any:  # noqa: ANN401 (a call, or its answer)
    """Ask for the state of a service."""
    check = channel.unary_unary(
        "/grpc.health.v1.Health/Check",
        request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
        response_deserializer=_Status.FromString,
    )
    return check(health_pb2.HealthCheckRequest(service=service), timeout=TIMEOUT)


def _health_line(child: Child) -> str:
    line = child.read_line()
    assert line.startswith("health on 127.0.0.1:")
    return line.removeprefix("health on ")


def test_it_answers_health_and_nothing_else(tmp_path: Path) -> None:
    """All names that the other port knows, and no service of losses, nor reflection."""
    with (
        Child(tmp_path / "log", "--health", "127.0.0.1:0") as child,
        grpc.insecure_channel(_health_line(child)) as channel,
        child.channel() as other,
    ):
        for service in ("", LIVE, _SERVICE):
            assert _check(channel, service) == _check(other, service)
            assert _check(channel, service).status == _Status.SERVING
        with pytest.raises(grpc.RpcError) as unknown:
            _check(channel, "nope")
        with pytest.raises(grpc.RpcError) as unserved:
            loss_service_pb2_grpc.LossServiceStub(channel).ListLosses(
                loss_service_pb2.ListLossesRequest(), timeout=TIMEOUT
            )
    assert unknown.value.code() is grpc.StatusCode.NOT_FOUND
    assert unserved.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_it_says_that_the_server_is_not_ready_yet() -> None:
    """Probes are answered before the server has tested itself."""

    async def run() -> None:
        port = HealthPort("127.0.0.1:0", Health([_SERVICE]), is_shared=False)
        await port.start()
        async with grpc.aio.insecure_channel(port.address) as channel:
            assert (await _check(channel, _SERVICE)).status == _Status.NOT_SERVING
            assert (await _check(channel, LIVE)).status == _Status.SERVING
        await port.stop()

    asyncio.run(run())


def test_it_answers_while_the_server_drains() -> None:
    """As long as a call is being answered, probes learn that the server is alive and not ready."""
    gate = Gate()

    async def run() -> None:
        async with (
            serving_app(gate, health="127.0.0.1:0") as (app, channel),
            grpc.aio.insecure_channel(app.health_address) as probe,
        ):
            assert (await _check(probe)).status == _Status.SERVING
            stub = loss_service_pb2_grpc.LossServiceStub(channel)
            request = loss_service_pb2.EvaluateRequest(evaluation=numbered(CLOSED))
            call: Any = stub.Evaluate(request)
            answering = asyncio.ensure_future(call)
            await until(gate.reached.is_set)
            stopping = asyncio.create_task(app.stop())
            while (await _check(probe)).status == _Status.SERVING:  # noqa: ASYNC110 (over gRPC)
                await asyncio.sleep(0.005)
            assert (await _check(probe, _SERVICE)).status == _Status.NOT_SERVING
            assert (await _check(probe, LIVE)).status == _Status.SERVING
            assert not stopping.done()
            gate.open.set()
            await answering
            await stopping

    asyncio.run(run())


def test_workers_share_it(tmp_path: Path) -> None:
    """It is answered with several workers, and again once one was replaced."""
    with Workers(tmp_path / "log", "--health", "127.0.0.1:0") as child:
        address = _health_line(child)
        child.wait_for_spare()
        child.strike(0)
        with grpc.insecure_channel(address) as channel:
            assert _check(channel, _SERVICE).status == _Status.SERVING


@pytest.mark.parametrize("text", ["unix:/x", "nothing", "127.0.0.1:99999"])
def test_a_wrong_address_is_told(text: str) -> None:
    """The server names the setting."""
    settings = Settings(threads=1, memory_budget_bytes=64 * MIB, device="cpu", health=text)
    with pytest.raises(StartError, match="--health"):
        App(settings)


def test_an_address_in_use_is_told() -> None:
    """Two servers never share it."""

    async def run() -> None:
        first, second = (Health([]), Health([]))
        port = HealthPort("127.0.0.1:0", first, is_shared=False)
        await port.start()
        try:
            with pytest.raises(StartError, match=r"--health 127.*another program"):
                await HealthPort(port.address, second, is_shared=False).start()
        finally:
            await port.stop()

    asyncio.run(run())
