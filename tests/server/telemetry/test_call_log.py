"""The log of calls: one line for each that has ended, over every door, and no data in it."""

import asyncio
import json
import logging
import struct
import urllib.error
import urllib.request
from typing import Any

import grpc
import pytest

from losswire.server.address import StartError
from losswire.server.app import App
from losswire.server.log import JsonFormatter
from losswire.server.metrics.notes import CallNotes
from losswire.server.settings import MIB, Settings
from losswire.server.telemetry import thresholds
from losswire.server.telemetry.call_log import make_call_log
from losswire.v1 import loss_service_pb2, loss_service_pb2_grpc
from tests.support.inside import Gate, serving_app, until
from tests.support.regions import receive, region
from tests.support.requests import GOLDEN, TIMEOUT, Stub, evaluation, f32, item_status

_CALLS = "losswire.calls"
_SHAPES = {name: list(each.shape) for name, each in GOLDEN.inputs.items()}
_WRONG_NAME = 'no such\n{"loss": 1}' + 80 * "x"
_WRONG = evaluation(_WRONG_NAME, {"in\nput": f32(1.0, 2.0)})
_TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture(autouse=True)
def _info(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger=_CALLS)


def _lines(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    """Return the log of calls, each of which is one line."""
    lines = [JsonFormatter().format(each) for each in caplog.records if each.name == _CALLS]
    assert all(len(each.splitlines()) == 1 for each in lines)
    return [json.loads(each) for each in lines]


def _grpc_calls(address: str) -> list[str]:
    """Make calls that succeed and that fail; returns the request ids of the errors."""
    with grpc.insecure_channel(address) as channel:
        stub: Stub = loss_service_pb2_grpc.LossServiceStub(channel)
        request = loss_service_pb2.EvaluateRequest(evaluation=GOLDEN)
        for _ in range(2):  # the second is prepared
            stub.Evaluate(request, timeout=TIMEOUT, metadata=(("traceparent", _TRACE),))
        many = loss_service_pb2.EvaluateManyRequest(evaluations=[GOLDEN, _WRONG, _WRONG])
        stub.EvaluateMany(many, timeout=TIMEOUT, metadata=(("traceparent", _TRACE[:-1]),))
        item = loss_service_pb2.EvaluateStreamRequest(evaluation=GOLDEN)
        list(stub.EvaluateStream(iter([item, item]), timeout=TIMEOUT))
        ids: list[str] = []
        for call in (
            lambda: stub.Evaluate(loss_service_pb2.EvaluateRequest(evaluation=_WRONG)),
            lambda: list(stub.SummarizeLosses(iter(()))),
        ):
            with pytest.raises(grpc.RpcError) as raised:
                call()
            assert item_status(raised.value).reason
            ids.append(_id_of(raised.value))
        return ids


def _id_of(error: Any) -> str:  # noqa: ANN401 (also a call)
    """Return the request id that came with an error."""
    found: dict[str, str] = dict(error.trailing_metadata())
    return found["x-request-id"]


def _lease_call(address: str) -> None:
    """Make a call over a lease."""
    request = loss_service_pb2.EvaluateRequest(evaluation=GOLDEN).SerializeToString()
    header = struct.Struct("<II")
    with grpc.insecure_channel(address) as channel, region(channel) as held:
        held.lease.sendall(header.pack(len(request), 0) + request)
        size, code = header.unpack(receive(held.lease, header.size))
        receive(held.lease, size)
    assert code == 0


def _http_calls(address: str) -> list[str]:
    """Make calls over HTTP, one of which fails; returns their request ids."""
    ids = []
    for loss in ("mse_loss", "mse"):
        content = {"loss": loss, "inputs": {"input": [1.0, 2.0], "target": [2.0, 2.0]}}
        request = urllib.request.Request(
            f"http://{address}/v1/evaluate",
            data=json.dumps(content).encode(),
            headers={"Content-Type": "application/json", "traceparent": _TRACE},
        )
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:  # noqa: S310
                ids.append(answer.headers["x-request-id"])
        except urllib.error.HTTPError as error:
            with error:
                ids.append(error.headers["x-request-id"])
    return ids


def test_every_call_over_grpc_has_a_line(caplog: pytest.LogCaptureFixture) -> None:
    """What was called, how it ended, how much it moved and how long it took; no values."""

    async def run() -> list[str]:
        async with serving_app(Gate(), call_log="all") as (app, _):
            ids = await asyncio.to_thread(_grpc_calls, app.address)
            await until(lambda: len(_lines(caplog)) >= 6)
            return ids

    ids = asyncio.run(run())
    one, prepared, many, stream, wrong, summary = _lines(caplog)
    service = "losswire.v1.LossService/"
    for each in (one, prepared):
        assert (each["message"], each["level"]) == ("call", "info")
        assert (each["method"], each["code"]) == (service + "Evaluate", "OK")
        assert (each["loss"], each["shapes"]) == (GOLDEN.loss, _SHAPES)
        assert each["traceparent"] == _TRACE
        assert each["received_bytes"] > GOLDEN.ByteSize()
        assert each["sent_bytes"] > 0
        assert each["milliseconds"] > 0
        assert "reason" not in each
        assert each["request_id"]
    assert set(one["stages"]) >= {"decode", "queue", "compute"}
    assert "compute" in prepared["stages"]
    assert one["request_id"] != prepared["request_id"]
    assert (many["method"], many["code"]) == (service + "EvaluateMany", "OK")
    assert (many["reason"], many["failed_items"]) == ("UNKNOWN_LOSS", 2)
    assert "traceparent" not in many
    assert (stream["method"], stream["loss"]) == (service + "EvaluateStream", GOLDEN.loss)
    assert (wrong["code"], wrong["reason"]) == ("NOT_FOUND", "UNKNOWN_LOSS")
    assert wrong["loss"] == _WRONG_NAME[:64]
    assert wrong["shapes"] == {"in\nput": [2]}
    assert "failed_items" not in wrong
    assert (summary["method"], summary["code"]) == (service + "SummarizeLosses", "INVALID_ARGUMENT")
    assert ids == [wrong["request_id"], summary["request_id"]]


def test_calls_over_leases_and_http_have_lines(caplog: pytest.LogCaptureFixture) -> None:
    """The same line, with the status of HTTP beside that of gRPC."""

    async def run() -> list[str]:
        changes = {"call_log": "all", "http": "127.0.0.1:0", "region_quota_bytes": MIB}
        async with serving_app(Gate(), **changes) as (app, _):
            await asyncio.to_thread(_lease_call, app.address)
            ids = await asyncio.to_thread(_http_calls, app.http_address)
            await until(lambda: len(_lines(caplog)) >= 4)
            return ids

    ids = asyncio.run(run())
    region_made, lease, good, bad = _lines(caplog)
    assert region_made["method"] == "losswire.v1.TensorService/CreateRegion"
    assert (lease["method"], lease["code"]) == ("losswire.v1.LossService/Evaluate", "OK")
    assert (lease["loss"], lease["shapes"]) == (GOLDEN.loss, _SHAPES)
    assert lease["request_id"]
    for each in (good, bad):
        assert each["method"] == "POST /v1/evaluate"
        assert each["traceparent"] == _TRACE
        assert each["received_bytes"] > 0
        assert each["sent_bytes"] > 0
    assert (good["code"], good["http_status"]) == ("OK", 200)
    assert (good["loss"], good["shapes"]) == ("mse_loss", {"input": [2], "target": [2]})
    assert (bad["code"], bad["http_status"]) == ("NOT_FOUND", 404)
    assert bad["reason"] == "UNKNOWN_LOSS"
    assert ids == [good["request_id"], bad["request_id"]]


@pytest.mark.parametrize(("setting", "expected"), [("none", 0), ("errors", 3), ("0", 3)])
def test_fewer_lines_where_they_are_asked_for(
    setting: str, expected: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Errors are always among them; those of an item, too."""

    async def run() -> None:
        async with serving_app(Gate(), call_log=setting, metrics="127.0.0.1:0") as (app, _):
            await asyncio.to_thread(_grpc_calls, app.address)
            await until(lambda: len(_lines(caplog)) >= expected)

    asyncio.run(run())
    lines = _lines(caplog)
    assert len(lines) == expected
    assert all(each["reason"] for each in lines)


def test_the_lines_of_a_second_are_bounded(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A flood of errors does not become a flood of lines; how many are missing is told."""
    monkeypatch.setattr(thresholds, "LINES_PER_SECOND", 10)
    notes = CallNotes("a/b", tuple)
    notes.status = "INTERNAL"

    async def run() -> None:
        log = make_call_log("errors")
        assert log is not None
        for _ in range(1000):
            log.ended(notes)
        await until(lambda: any("left_out" in each for each in _lines(caplog)))

    asyncio.run(run())
    *written, told = _lines(caplog)
    assert len(written) + told["left_out"] == 1000
    assert told["level"] == "warning"


@pytest.mark.parametrize("setting", ["", "some", "-0.1", "1.5", "nan"])
def test_a_wrong_setting_is_told(setting: str) -> None:
    """The server does not start with it."""
    settings = Settings(threads=1, memory_budget_bytes=64 * MIB, device="cpu", call_log=setting)
    with pytest.raises(StartError, match="--call-log"):
        App(settings)
