"""The guard around every gRPC method: parses requests and maps exceptions to statuses.

gRPC would answer a message that does not parse, or an exception, with UNKNOWN
and the exception's text. Here every method receives bytes, parses them inside of
the guard, and an exception becomes the status in the table of `status.py`.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from functools import partial
from typing import Any, Final, Protocol

import grpc
from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from losswire.server.errors import OverLimitError
from losswire.server.metrics.recorder import Method, Recorder
from losswire.server.rpc.calls import Begin, Call, Context, Gate
from losswire.server.rpc.parse import parse
from losswire.server.rpc.recorded import recorded_response, recorded_stream
from losswire.server.rpc.request_id import current_request_id
from losswire.server.rpc.status import call_status, error_code_of, forget_frames, forget_frames_soon
from losswire.server.telemetry.orca import Load
from losswire.v1 import loss_service_pb2, run_service_pb2
from losswire.wire import ROWS

Answer = Callable[[Call], Awaitable[Any]]
"""Answers a call with one message; raises its error."""

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


class Registry(Protocol):
    """What methods are registered with: a server, or its entrance."""

    def add_generic_rpc_handlers(self, handlers: "Sequence[grpc.GenericRpcHandler]", /) -> None:
        """Register methods."""


class GuardedServer:
    """The server that the generated `add_...Servicer_to_server` functions register with.

    Registers every handler with the real server, guarded.
    """

    def __init__(
        self,
        server: Registry,
        services: Sequence[ServiceDescriptor],
        gate: Gate,
        recorder: Recorder | None = None,
        load: Load | None = None,
    ) -> None:
        """Wrap a server, for these services.

        Calls are counted if there is a recorder, and end with a report if there is a load.
        """
        self._server = server
        self._gate = gate
        self._recorder = recorder
        self._load = load
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
            name: _guard(
                handler,
                self._requests[service, name],
                self._gate,
                self._method(service, name),
                self._load,
            )
            for name, handler in handlers.items()
        }
        generic = grpc.method_handlers_generic_handler(service, guarded)
        self._server.add_generic_rpc_handlers((generic,))

    def _method(self, service: str, name: str) -> Method | None:
        return self._recorder.method(f"{service}/{name}") if self._recorder else None


def _guard(
    handler: "grpc.RpcMethodHandler[Any, Any]",
    request_type: type[Message],
    gate: Gate,
    method: Method | None,
    load: Load | None,
) -> "grpc.RpcMethodHandler[Any, Any]":
    """Wrap one method, unary or streaming; `method` counts its calls.

    To gRPC, all requests are streams, which look the same to callers: a method then begins with
    the header of its call, and reads under our limits.
    """
    serialize = partial(_serialize, handler.response_serializer)
    reader = _READERS.get(request_type) or partial(parse, request_type)
    begin: Begin = partial(Call, gate=gate)
    read = Call.items if request_type is loss_service_pb2.EvaluateStreamRequest else Call.messages
    guarded_begin = begin if method is None else _same
    if handler.stream_stream:
        behavior = _guard_stream(
            handler.stream_stream, partial(read, reader=reader), serialize, guarded_begin
        )
        if method is not None:
            behavior = recorded_stream(behavior, begin, method)
        return grpc.stream_stream_rpc_method_handler(behavior)
    answer = (
        _upload(handler.stream_unary, reader)
        if handler.stream_unary
        else _unary(handler.unary_unary, reader)
    )
    behavior = _guard_response(answer, serialize, guarded_begin)
    if method is not None:
        behavior = recorded_response(behavior, begin, method)
    if load is not None:
        behavior = _reported(behavior, load)
    return grpc.stream_unary_rpc_method_handler(behavior)


def _reported(behavior: Callable[..., Any], load: Load) -> Callable[..., Any]:
    """Return a guarded method with one response whose calls end with a report of the load."""

    async def report(unused: object, context: Context) -> bytes:
        response: bytes = await behavior(unused, context)
        load.report_to(context)
        return response

    return report


def _same(call: Any) -> Any:  # noqa: ANN401 (a call that the recorder has begun)
    return call


def _serialize(serializer: Callable[[Any], bytes] | None, response: Any) -> bytes:  # noqa: ANN401 (any message)
    """Return the bytes of a response, which may be bytes already."""
    return response if serializer is None or isinstance(response, bytes) else serializer(response)


def _unary(method: Any, reader: Callable[[Any], Any]) -> Answer:  # noqa: ANN401 (a servicer's method)
    """Return what answers a call with one message by a method."""

    async def answer(call: Call) -> Any:  # noqa: ANN401 (any message)
        return await method(reader(await call.message()), call)

    return answer


def _upload(method: Any, reader: Callable[[Any], Any]) -> Answer:  # noqa: ANN401 (as above)
    """Return what answers a call with many messages by a method."""

    async def answer(call: Call) -> Any:  # noqa: ANN401 (any message)
        async with aclosing(call.messages(reader)) as messages:
            return await method(messages, call)

    return answer


def _guard_response(
    answer: Answer, serialize: Callable[[Any], bytes], begin: Begin
) -> Callable[..., Any]:
    async def behavior(unused: object, context: Context) -> Any:  # noqa: ANN401 (bytes, or nothing after an error)
        del unused
        call = begin(context)
        try:
            call.enter()
            data = serialize(await answer(call))
            call.sends(len(data))
        except Exception as error:  # noqa: BLE001 (the table decides)
            await abort(call.context, error, current_request_id())
        else:
            return data

    return behavior


def _guard_stream(
    method: Any,  # noqa: ANN401 (a servicer's method)
    read: Callable[[Call], AsyncGenerator[Any]],
    serialize: Callable[[Any], bytes],
    begin: Begin,
) -> Callable[..., Any]:
    async def behavior(unused: object, context: Context) -> AsyncIterator[bytes]:
        del unused
        call = begin(context)
        request_id = current_request_id()
        try:
            call.enter()
            # Closed at once when the caller cancels, not when it is garbage-collected.
            async with (
                aclosing(read(call)) as messages,
                aclosing(method(messages, call)) as responses,
            ):
                async for response in responses:
                    data = serialize(response)
                    call.waits(len(data))
                    yield data
                    call.taken()
        except Exception as error:  # noqa: BLE001 (the table decides)
            await abort(call.context, error, request_id)

    return behavior


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
    try:
        await context.abort(error_code_of(error).code, status.message, tuple(metadata))
    except BaseException as aborted:
        # gRPC keeps this error with the call, which the error's frames would keep in turn.
        forget_frames_soon(aborted)
        raise
