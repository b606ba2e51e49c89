"""Reports of the load: at the end of calls that a load balancer may have sent, and only there.

Read as they are sent: gRPC's clients keep them for themselves.
"""

import asyncio
import base64
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from google.protobuf.message import Message

from losswire.server.settings import MIB
from losswire.v1 import loss_service_pb2, tensor_service_pb2
from tests.support.harness import Child
from tests.support.http2 import EVALUATE, EVALUATE_STREAM, Session, framed
from tests.support.inside import PATIENCE, Gate, serving_app
from tests.support.requests import GOLDEN, evaluation, f32

_KEY = "endpoint-load-metrics-bin"
_RPS, _EPS, _UTILIZATION = 6, 7, 9
_REQUEST = loss_service_pb2.EvaluateRequest(evaluation=GOLDEN)
_WRONG = loss_service_pb2.EvaluateRequest(evaluation=evaluation("nope", {"input": f32(1.0)}))


def _fields(report: str) -> dict[int, float]:
    """Read a message whose fields are doubles, each with a tag of one byte, in base64."""
    data = base64.b64decode(report + "=" * (-len(report) % 4))
    fields = {tag >> 3: value for tag, value in struct.iter_unpack("<Bd", data) if tag & 7 == 1}
    assert len(data) == 9 * len(fields)
    return fields


@asynccontextmanager
async def _connected(address: str) -> AsyncIterator[Session]:
    session = await Session.open(address)
    try:
        yield session
    finally:
        session.close()


async def _report(session: Session, path: str, message: Message, code: int = 0) -> str | None:
    """Make a call that ends with a status; returns its report, if it has one."""
    call = session.call(path)
    await call.send(framed(message.SerializeToString()), end=True)
    answer = await call.wait()
    assert answer.code == code
    return answer.fields.get(_KEY)


async def _evaluated(session: Session) -> dict[int, float]:
    """Evaluate; returns what the report says."""
    report = await _report(session, EVALUATE, _REQUEST)
    assert report is not None
    return _fields(report)


async def _until(ask: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not await ask():  # noqa: ASYNC110 (over gRPC)
            await asyncio.sleep(0.01)


def test_a_report_tells_calls_errors_and_memory() -> None:
    """What is told rises with calls, with errors, and with what is reserved of the budget."""

    async def run() -> None:
        changes = {"orca": True, "region_quota_bytes": 32 * MIB}
        async with serving_app(Gate(), **changes) as (app, _), _connected(app.address) as session:
            first = await _evaluated(session)
            assert set(first) == {_RPS, _EPS, _UTILIZATION}
            assert 0 < first[_UTILIZATION] < 0.1

            async def has_rates() -> bool:
                await _report(session, EVALUATE, _WRONG, code=5)
                report = await _evaluated(session)
                assert report[_EPS] <= report[_RPS]
                return 0 < report[_EPS] < report[_RPS]

            await _until(has_rates)
            region = tensor_service_pb2.CreateRegionRequest(size_bytes=32 * MIB)
            await _report(session, "/losswire.v1.TensorService/CreateRegion", region)

            async def tells_of_the_region() -> bool:
                return (await _evaluated(session))[_UTILIZATION] > 0.4

            await _until(tells_of_the_region)

    asyncio.run(run())


@pytest.mark.parametrize(
    ("listen", "path", "is_on"),
    [
        ("127.0.0.1:0", EVALUATE, False),
        ("unix:", EVALUATE, True),
        ("127.0.0.1:0", EVALUATE_STREAM, True),
    ],
)
def test_where_there_is_no_report(listen: str, path: str, is_on: bool, tmp_path: Path) -> None:  # noqa: FBT001 (a case)
    """Not unless it is asked for, not over unix sockets, not at the end of streams."""
    address = f"{listen}{tmp_path / 'socket'}" if listen == "unix:" else listen
    item = loss_service_pb2.EvaluateStreamRequest(evaluation=GOLDEN)

    async def run() -> None:
        async with (
            serving_app(Gate(), orca=is_on, listen=address) as (app, _),
            _connected(app.address) as session,
        ):
            message = item if path == EVALUATE_STREAM else _REQUEST
            assert await _report(session, path, message) is None

    asyncio.run(run())


def test_the_setting_is_a_flag(tmp_path: Path) -> None:
    """Any call with one answer has a report, also one that has nothing to compute."""

    async def run(address: str) -> None:
        async with _connected(address) as session:
            request = loss_service_pb2.ListLossesRequest()
            assert await _report(session, "/losswire.v1.LossService/ListLosses", request)

    with Child(tmp_path / "log", "--orca") as child:
        asyncio.run(run(child.address))
