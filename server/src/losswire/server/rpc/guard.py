"""The guard around every gRPC method: parses requests and maps exceptions to statuses.

gRPC would answer a message that does not parse, or an exception, with UNKNOWN
and the exception's text. Here every method receives bytes, parses them inside of
the guard, and an exception becomes the status in the table of `status.py`.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing
from functools import partial
from typing import Any, Final

import grpc
from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from losswire.server.errors import OverLimitError
from losswire.server.metrics.recorder import Method, Recorder
from losswire.server.rpc.parse import parse
from losswire.server.rpc.recorded import recorded_response, recorded_stream
from losswire.server.rpc.request_id import current_request_id, new_request_id
from losswire.server.rpc.status import call_status, error_code_of, forget_frames
from losswire.v1 import loss_service_pb2, run_service_pb2
from losswire.wire import ROWS

Context = grpc.aio.ServicerContext[Any, Any]


_READERS: Final[Mapping[type[Message], Callable[[bytes], Any]]] = {
    loss_service_pb2.EvaluateRequest: bytes,
    loss_service_pb2.EvaluateManyRequest: bytes,
    loss_service_pb2.EvaluateStreamRequest: bytes,
    loss_service_pb2.SummarizeLossesRequest: bytes,
    loss_service_pb2.EvaluateChunkedRequest: partial(
        parse, loss_service_pb2.EvaluateChunkedRequest, reader=ROWS.decode
    ),
    run_service_pb2.SaveRunRequest: bytes,
}
"""How to read the requests that are not simply parsed. Those left as bytes are parsed by their
methods: runs off the event loop, SummarizeLossesRequest without copies of its tensors, the others
only if they are not found by their bytes in the cache of prepared evaluations."""


class GuardedServer:
    """The server that the generated `add_...Servicer_to_server` functions register with.

    Registers every handler with the real server, guarded.
    """

    def __init__(
        self,
        server: grpc.aio.Server,
        services: Sequence[ServiceDescriptor],
        recorder: Recorder | None = None,
    ) -> None:
        """Wrap a server, for these services; calls are counted if there is a recorder."""
        self._server = server
        self._recorder = recorder
        self._requests = {
            (service.full_name, method.name): GetMessageClass(method.input_type)
            for service in services
            for method in service.methods
        }

    def add_generic_rpc_handlers(self, handlers: Any) -> None:  # noqa: ANN401 (unused)
        """Ignore the unguarded handlers; the generated code registers the same ones below."""

    def add_registered_method_handlers(
        self, service: str, handlers: "Mapping[str, grpc.RpcMethodHandler[Any, Any]]"
    ) -> None:
        """Register all methods of a service, guarded."""
        guarded = {
            name: _guard(handler, self._requests[service, name], self._method(service, name))
            for name, handler in handlers.items()
        }
        generic = grpc.method_handlers_generic_handler(service, guarded)
        self._server.add_generic_rpc_handlers((generic,))

    def _method(self, service: str, name: str) -> Method | None:
        return self._recorder.method(f"{service}/{name}") if self._recorder else None


def _guard(
    handler: "grpc.RpcMethodHandler[Any, Any]",
    request_type: type[Message],
    method: Method | None,
) -> "grpc.RpcMethodHandler[Any, Any]":
    """Wrap one method, unary or streaming; `method` counts its calls."""
    serialize = partial(_serialize, handler.response_serializer)
    record: Callable[..., Any] = recorded_response
    reader = _READERS.get(request_type) or partial(parse, request_type)
    if handler.stream_stream:
        behavior = _guard_response_stream(handler.stream_stream, reader)
        make = grpc.stream_stream_rpc_method_handler
        record = recorded_stream
    elif handler.stream_unary:
        behavior = _guard_response(handler.stream_unary, partial(_read_each, reader))
        make = grpc.stream_unary_rpc_method_handler
    else:
        behavior = _guard_response(handler.unary_unary, reader)
        make = grpc.unary_unary_rpc_method_handler
    if method is not None:
        behavior = record(behavior, serialize, method)
    return make(behavior, response_serializer=serialize)


def _serialize(serializer: Callable[[Any], bytes] | None, response: Any) -> bytes:  # noqa: ANN401 (any message)
    """Return the bytes of a response, which may be bytes already."""
    return response if serializer is None or isinstance(response, bytes) else serializer(response)


def _guard_response(
    method: Any,  # noqa: ANN401 (a servicer's method)
    reader: Callable[[Any], Any],
) -> Callable[..., Any]:
    async def behavior(request: Any, context: Context) -> Any:  # noqa: ANN401 (any message)
        try:
            return await method(reader(request), context)
        except Exception as error:  # noqa: BLE001 (the table decides)
            await abort(context, error, current_request_id())

    return behavior


def _guard_response_stream(
    method: Any,  # noqa: ANN401 (a servicer's method)
    reader: Callable[[bytes], Any],
) -> Callable[..., Any]:
    async def behavior(requests: Any, context: Context) -> AsyncIterator[Any]:  # noqa: ANN401
        request_id = new_request_id()
        try:
            # Closed at once when the caller cancels, not when it is garbage-collected.
            async with aclosing(method(_read_each(reader, requests), context)) as responses:
                async for response in responses:
                    yield response
        except Exception as error:  # noqa: BLE001 (the table decides)
            await abort(context, error, request_id)

    return behavior


async def _read_each(
    reader: Callable[[bytes], Any], requests: AsyncIterator[bytes]
) -> AsyncGenerator[Any]:
    async for data in requests:
        yield reader(data)


async def abort(context: Context, error: Exception, request_id: str) -> None:
    """End the call with the error's status."""
    status = call_status(error, request_id)
    forget_frames(error)
    metadata: list[tuple[str, str | bytes]] = [
        ("grpc-status-details-bin", status.SerializeToString()),
        ("x-request-id", request_id),
    ]
    retry_after_ms = getattr(error, "retry_after_ms", None)
    if isinstance(error, OverLimitError):
        retry_after_ms = -1
    if retry_after_ms is not None:
        metadata.append(("grpc-retry-pushback-ms", str(retry_after_ms)))
    await context.abort(error_code_of(error).code, status.message, tuple(metadata))
