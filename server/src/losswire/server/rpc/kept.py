"""Services of others, such as reflection: the gatekeeper is asked before they see a call."""

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import grpc

from losswire.server.errors import UnauthenticatedError
from losswire.server.identity.gatekeeper import Gatekeeper
from losswire.server.rpc.calls import Context, admit
from losswire.server.rpc.guard import Registry, abort
from losswire.server.rpc.reflection import add_reflection_to
from losswire.server.rpc.request_id import new_request_id


class KeptServer:
    """The server that the generated functions of such a service register with."""

    def __init__(self, server: Registry, keeper: Gatekeeper) -> None:
        """Register with a server what a gatekeeper lets call."""
        self._server = server
        self._keeper = keeper

    def add_generic_rpc_handlers(self, handlers: Any) -> None:  # noqa: ANN401 (unused)
        """Ignore the handlers; the generated code registers the same ones below."""

    def add_registered_method_handlers(
        self, service: str, handlers: "Mapping[str, grpc.RpcMethodHandler[Any, Any]]"
    ) -> None:
        """Register all methods of a service, which have streams only."""
        kept = {name: self._keep(handler) for name, handler in handlers.items()}
        generic = grpc.method_handlers_generic_handler(service, kept)
        self._server.add_generic_rpc_handlers((generic,))

    def _keep(
        self, handler: "grpc.RpcMethodHandler[Any, Any]"
    ) -> "grpc.RpcMethodHandler[Any, Any]":
        answer: Any = handler.stream_stream

        async def behavior(requests: object, context: Context) -> AsyncIterator[Any]:
            try:
                admit(self._keeper, context)
            except UnauthenticatedError as error:
                await abort(context, error, new_request_id())
            async for each in answer(requests, context):
                yield each

        return grpc.stream_stream_rpc_method_handler(
            behavior, handler.request_deserializer, handler.response_serializer
        )


def add_reflection(
    services: Sequence[str], server: grpc.aio.Server, keeper: Gatekeeper | None
) -> None:
    """Register the service that describes some services and itself, kept if there is a keeper."""
    add_reflection_to(server if keeper is None else KeptServer(server, keeper), services)
