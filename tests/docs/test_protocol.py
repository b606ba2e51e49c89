"""docs/protocol.md says what the server does: its tables, its bytes and its command lines."""

import json
import re
import shlex
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
from google.protobuf import json_format
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health_pb2

from losswire.server.rpc.status import ERROR_CODES
from losswire.v1 import (
    loss_service_pb2,
    loss_service_pb2_grpc,
    server_info_pb2,
    tensor_pb2,
    tensor_service_pb2,
)
from losswire.wire import DATA_TYPES
from tests.docs.pages import WRITTEN_ADDRESS, blocks, read, rows
from tests.docs.wire_dump import dump, example_request, undump

PAGE = "docs/protocol.md"
SERVED = (loss_service_pb2, health_pb2)
"""The modules whose services the command lines call."""

CHANGING = {
    "computeNanoseconds",
    "limits",
    "queueNanoseconds",
    "receipt",
    "regionSocket",
    "serverVersion",
    "threads",
    "torchVersion",
    "workerId",
}
"""What differs between servers and calls."""


@pytest.fixture
def channel(server: str) -> Iterator[grpc.Channel]:
    """Connect to the server, without the SDK."""
    with grpc.insecure_channel(server) as channel:
        yield channel


def test_data_types_are_those_of_the_codec() -> None:
    """The table has every data type, with its number and size."""
    listed = [(name.strip("`"), int(number), int(size)) for name, number, size, _ in _data_types()]
    assert listed == [
        (tensor_pb2.DataType.Name(each.data_type), each.data_type, each.numpy.itemsize)
        for each in DATA_TYPES.values()
    ]


def _data_types() -> list[list[str]]:
    return rows(PAGE, "`data_type`")


def test_reasons_are_those_of_the_table_of_errors() -> None:
    """The page lists every reason that a server gives, with its code, and no other."""
    listed = [(reason.strip("`"), code) for reason, code, *_ in rows(PAGE, "`reason`")]
    assert listed == [(each.reason, each.code.name) for each in ERROR_CODES.values()]


def test_limits_are_those_of_the_contract() -> None:
    """The page explains every field of Limits."""
    text = read(PAGE)
    fields = [field.name for field in server_info_pb2.Limits.DESCRIPTOR.fields]
    assert [name for name in fields if f"`{name}`" not in text] == []


def test_what_is_not_served_says_so(channel: grpc.Channel) -> None:
    """The methods that the page calls unserved answer UNIMPLEMENTED, and no others do."""
    section = read(PAGE).partition("## Not served yet")[2].partition("\n## ")[0]
    items = re.findall(r"^- .*(?:\n  .*)*", section, re.MULTILINE)
    named = set(re.findall(r"`(\w+)`", "".join(items)))
    methods = {
        method.name: method
        for service in ("LossService", "TensorService")
        for method in _methods(service)
    }
    unserved = {name for name, method in methods.items() if _is_unimplemented(channel, method)}
    assert unserved == named & set(methods)


_SERVICES = {
    "LossService": loss_service_pb2.DESCRIPTOR.services_by_name["LossService"],
    "TensorService": tensor_service_pb2.DESCRIPTOR.services_by_name["TensorService"],
}


def _methods(service: str) -> list[MethodDescriptor]:
    methods: list[MethodDescriptor] = list(_SERVICES[service].methods)
    return methods


def _is_unimplemented(channel: grpc.Channel, method: MethodDescriptor) -> bool:
    """Call a method with one empty message."""
    path = f"/{method.containing_service.full_name}/{method.name}"
    connect: grpc.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(path, None, None)
    call = connect(iter([b""]), timeout=60)
    with suppress(grpc.RpcError):
        list(call)
    return call.code() is grpc.StatusCode.UNIMPLEMENTED


def test_the_request_has_the_bytes_shown() -> None:
    """The dump of the request is what protobuf writes, byte by byte, and is explained rightly."""
    [shown, _] = blocks(PAGE, "hex")
    data = example_request().SerializeToString(deterministic=True)
    assert undump(shown.text) == data
    assert shown.text == dump(data, loss_service_pb2.EvaluateRequest.DESCRIPTOR)
    assert f"The request, {len(data)} bytes:" in read(PAGE)


def test_the_answer_has_the_bytes_shown(channel: grpc.Channel) -> None:
    """The answer equals the one shown in all but times and receipt, and that one is explained."""
    [_, shown] = blocks(PAGE, "hex")
    data = undump(shown.text)
    assert shown.text == dump(data, loss_service_pb2.EvaluateResponse.DESCRIPTOR)
    expected = loss_service_pb2.EvaluateResponse.FromString(data)
    stub = loss_service_pb2_grpc.LossServiceStub(channel)
    answer = stub.Evaluate(example_request(), timeout=60)
    for each in (expected, answer):
        each.result.ClearField("queue_nanoseconds")
        each.result.ClearField("compute_nanoseconds")
        each.result.ClearField("receipt")
    assert answer == expected


@dataclass(frozen=True)
class Command:
    """A call with grpcurl, and the JSON shown as its output."""

    method: str
    request: str
    shown: str


def _commands() -> list[Command]:
    """Read the command lines; each is followed by its output."""
    found = blocks(PAGE, "sh", "json")
    commands = []
    for call, output in zip(found[::2], found[1::2], strict=True):
        assert (call.language, output.language) == ("sh", "json")
        program, plaintext, *rest = shlex.split(call.text)
        request = rest[1] if rest[0] == "-d" else "{}"
        assert (program, plaintext) == ("grpcurl", "-plaintext")
        assert rest[-2] == WRITTEN_ADDRESS
        commands.append(Command(rest[-1], request, output.text))
    return commands


@pytest.mark.parametrize("command", _commands(), ids=lambda command: command.method)
def test_command_lines_print_what_is_shown(channel: grpc.Channel, command: Command) -> None:
    """The JSON of a command line, read by protobuf and sent, gives the JSON shown below it."""
    service, _, name = command.method.partition("/")
    [method] = [
        each.services_by_name[service.rpartition(".")[2]].methods_by_name[name]
        for each in (module.DESCRIPTOR for module in SERVED)
        if service.startswith(each.package)
    ]
    request = json_format.Parse(command.request, GetMessageClass(method.input_type)())
    call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(
        f"/{command.method}", None, None
    )
    data = call(request.SerializeToString(), timeout=60)
    answer = GetMessageClass(method.output_type).FromString(data)
    assert _lasting(json_format.MessageToDict(answer)) == _lasting(json.loads(command.shown))


def _lasting(value: Any) -> Any:  # noqa: ANN401 (any JSON)
    """Leave out what differs between servers and calls, but not that it is there."""
    if isinstance(value, dict):
        return {key: None if key in CHANGING else _lasting(member) for key, member in value.items()}
    return [_lasting(each) for each in value] if isinstance(value, list) else value
