"""Reflection under both of its names: the library has the older one, tools ask for the newer.

The messages of both are the same on the wire, so that one servicer answers for both.
"""

from collections.abc import Sequence
from typing import Any, Final

import grpc
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import Default, DescriptorPool
from grpc_reflection.v1alpha import reflection, reflection_pb2

OLDER: Final = "grpc.reflection.v1alpha"
NEWER: Final = "grpc.reflection.v1"
SERVICES: Final = (f"{OLDER}.ServerReflection", f"{NEWER}.ServerReflection")
"""The full names of the service."""


def add_reflection_to(server: Any, services: Sequence[str]) -> None:  # noqa: ANN401 (as generated code has it)
    """Register the service that describes some services, and itself, under both names."""
    servicer = reflection.aio.ReflectionServicer([*services, *SERVICES], _Files())
    handlers = {
        "ServerReflectionInfo": grpc.stream_stream_rpc_method_handler(
            servicer.ServerReflectionInfo,
            request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
            response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
        )
    }
    for name in SERVICES:
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, handlers),))
        server.add_registered_method_handlers(name, handlers)


class _Files:
    """The files of this process and, beside them, that of the newer name.

    It is not among those of the process: another package may bring its own.
    """

    def __init__(self) -> None:
        self._default = Default()
        self._newer = DescriptorPool()
        self._newer.AddSerializedFile(_newer_file().SerializeToString())

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 (any method of the pool)
        return getattr(self._default, name)

    def FindFileByName(self, name: str) -> Any:  # noqa: ANN401, N802 (as the pool has it)
        """Return a file by its name; KeyError when there is none."""
        try:
            return self._newer.FindFileByName(name)
        except KeyError:
            return self._default.FindFileByName(name)

    def FindFileContainingSymbol(self, symbol: str) -> Any:  # noqa: ANN401, N802 (likewise)
        """Return the file that declares a name; KeyError when there is none."""
        try:
            return self._newer.FindFileContainingSymbol(symbol)
        except KeyError:
            return self._default.FindFileContainingSymbol(symbol)


def _newer_file() -> FileDescriptorProto:
    """Return the file of the service with the newer name in the place of the older."""
    file = FileDescriptorProto()
    reflection_pb2.DESCRIPTOR.CopyToProto(file)
    file.name = file.name.replace("v1alpha", "v1")
    file.package = NEWER
    fields = [field for message in file.message_type for field in message.field]
    for field in fields:
        if field.type_name:
            field.type_name = field.type_name.replace(f".{OLDER}.", f".{NEWER}.")
    for method in file.service[0].method:
        method.input_type = method.input_type.replace(f".{OLDER}.", f".{NEWER}.")
        method.output_type = method.output_type.replace(f".{OLDER}.", f".{NEWER}.")
    file.ClearField("options")
    return file
