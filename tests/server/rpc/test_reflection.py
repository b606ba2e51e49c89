"""Reflection, under the name that older tools ask for and under that of newer ones."""

from typing import Any

import grpc
import pytest
from google.protobuf.descriptor_database import DescriptorDatabase
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_reflection.v1alpha import reflection_pb2

from tests.support.requests import TIMEOUT

_NAMES = ("grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection")


def _ask(channel: grpc.Channel, service: str, **question: Any) -> Any:  # noqa: ANN401 (a message)
    """Ask one question by a call that is made by hand."""
    ask: Any = channel.stream_stream(f"/{service}/ServerReflectionInfo")
    request = reflection_pb2.ServerReflectionRequest(**question).SerializeToString()
    [answer] = ask(iter([request]), timeout=TIMEOUT)
    return reflection_pb2.ServerReflectionResponse.FromString(answer)


@pytest.mark.parametrize("service", _NAMES)
def test_both_names_answer_and_are_listed(channel: grpc.Channel, service: str) -> None:
    """Every service is listed, whichever name was asked."""
    answer = _ask(channel, service, list_services="")
    names = {each.name for each in answer.list_services_response.service}
    assert names == {
        *_NAMES,
        "grpc.health.v1.Health",
        "losswire.v1.LossService",
        "losswire.v1.RunService",
        "losswire.v1.TensorService",
    }


@pytest.mark.parametrize("service", _NAMES)
@pytest.mark.parametrize("symbol", [*_NAMES, "losswire.v1.LossService", "grpc.health.v1.Health"])
def test_every_service_is_described(channel: grpc.Channel, service: str, symbol: str) -> None:
    """The files that come are whole: a tool can build its messages from them."""
    answer = _ask(channel, service, file_containing_symbol=symbol)
    database = DescriptorDatabase()
    for each in answer.file_descriptor_response.file_descriptor_proto:
        database.Add(FileDescriptorProto.FromString(each))
    service_found = DescriptorPool(database).FindServiceByName(symbol)
    assert service_found.file.package == symbol.rpartition(".")[0]
    assert service_found.methods


@pytest.mark.parametrize("service", _NAMES)
def test_what_there_is_not_is_not_found(channel: grpc.Channel, service: str) -> None:
    """An unknown name, and a question that is none, have an error each."""
    unknown = _ask(channel, service, file_containing_symbol="no.such.Service")
    assert unknown.error_response.error_code == grpc.StatusCode.NOT_FOUND.value[0]
    nothing = _ask(channel, service)
    assert nothing.error_response.error_code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
