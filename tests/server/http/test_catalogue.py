"""The catalogue and the server's description over HTTP say what they say over gRPC."""

import subprocess
import sys

import grpc
from google.protobuf import json_format
from google.protobuf.message import Message

from losswire.v1 import loss_service_pb2, loss_service_pb2_grpc
from losswire.wire import decode_option
from tests.support.http_door import Door


def _as_listed(message: Message) -> object:
    """Return a message as protobuf's own JSON has it, with the names of its fields."""
    return json_format.MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )


def test_the_catalogue_is_that_of_grpc(door: Door) -> None:
    """Every loss, with every text, list, layout and default."""
    listed = door.stub.ListLosses(loss_service_pb2.ListLossesRequest()).losses
    found = door.client.get("/v1/losses").json()["losses"]
    assert [each["name"] for each in found] == [each.name for each in listed]
    for info, message in zip(found, listed, strict=True):
        for key in ("summary", "description", "mean_denominator", "separable", "source"):
            assert info[key] == getattr(message, key)
        assert info["engine_differences"] == [
            _as_listed(each) for each in message.engine_differences
        ]
        for layout, expected in zip(info["layouts"], message.layouts, strict=True):
            assert (layout["inputs"], layout["values"]) == (dict(expected.inputs), expected.values)
            assert {name: len(types) for name, types in layout["data_types"].items()} == {
                name: len(types.data_types) for name, types in expected.data_types.items()
            }
        for option, shown in zip(info["options"], message.options, strict=True):
            assert option["range"] == shown.range
            assert option["choices"] == list(shown.choices)
            if shown.HasField("default_value"):
                expected_value = decode_option(shown.default_value)
                assert option["default_value"] == (
                    expected_value if expected_value != float("inf") else "Infinity"
                )
            else:
                assert "default_value" not in option


def test_enums_are_short_and_lower_case(door: Door) -> None:
    """Names of the contract without their prefix, in lower case."""
    info = door.client.get("/v1/losses/cross_entropy").json()
    assert info["kind"] == "loss"
    assert info["reductions"] == ["none", "mean", "sum"]
    assert info["default_reduction"] == "mean"
    [target] = [each for each in info["inputs"] if each["name"] == "target"]
    assert "int64" in target["data_types"]
    [smoothing] = [each for each in info["options"] if each["name"] == "label_smoothing"]
    assert (smoothing["type"], smoothing["default_value"]) == ("double", 0.0)
    activation = door.client.get("/v1/losses/softmax").json()
    assert (activation["kind"], activation["default_reduction"]) == ("activation", "none")


def test_the_server_is_described_as_over_grpc(door: Door) -> None:
    """Versions, device, limits and transports are those of GetServerInfo."""
    message = door.stub.GetServerInfo(loss_service_pb2.GetServerInfoRequest())
    info = door.client.get("/v1/server").json()
    for key in ("server_version", "torch_version", "device", "threads", "worker_id"):
        assert info[key] == getattr(message, key)
    for field in message.limits.DESCRIPTOR.fields:
        assert info["limits"][field.name] == getattr(message.limits, field.name)
    assert info["transports"]["chunked"]
    assert info["runs"] is False
    with grpc.insecure_channel(info["grpc"]["address"]) as channel:
        stub = loss_service_pb2_grpc.LossServiceStub(channel)
        again = stub.GetServerInfo(loss_service_pb2.GetServerInfoRequest())
    assert again.worker_id == message.worker_id
    assert info["http"]["max_body_bytes"] == message.limits.memory_budget_bytes // 4


def test_health_is_text(door: Door) -> None:
    """A probe reads one word."""
    for path, text in {"/healthz": "ok\n", "/readyz": "ready\n"}.items():
        response = door.client.get(path)
        assert (response.status_code, response.text) == (200, text)
        assert door.client.head(path).text == ""


def test_without_http_nothing_of_it_is_imported() -> None:
    """A server without an HTTP door starts as quickly as before."""
    code = (
        "import sys, losswire.server.cli\n"
        "found = {each.partition('.')[0] for each in sys.modules}\n"
        "print(sorted(found & {'starlette', 'uvicorn', 'h11', 'anyio', 'orjson'}))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    )
    assert result.stdout == "[]\n"
