"""The entrance of calls to gRPC's server: once the server drains, every call is refused there.

A server that stops at once resets, without a reason, the calls that gRPC's core has accepted and
no handler has taken yet. Therefore calls are refused with a reason first, until none comes.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any

import grpc

from losswire.server import thresholds
from losswire.server.errors import DrainingError
from losswire.server.rpc.calls import Context
from losswire.server.rpc.guard import abort
from losswire.server.rpc.request_id import new_request_id

Find = Callable[[Any], Any]
"""Finds the handler of a call by its details; None: there is no such method."""


class Entrance:
    """Registers methods with a server, which refuse every call once it drains.

    Costs a call nothing before that.
    """

    def __init__(self, server: grpc.aio.Server) -> None:
        """Register with this server."""
        self._server = server
        self._doors: list[_Door] = []
        self._refused = float("-inf")
        """When a call was refused last, on the monotonic clock."""

    def add_generic_rpc_handlers(self, handlers: "Sequence[grpc.GenericRpcHandler]", /) -> None:
        """Register methods."""
        doors: Any = [_Door(each) for each in handlers]
        self._doors += doors
        self._server.add_generic_rpc_handlers(doors)

    async def close(self) -> None:
        """Refuse calls from now on; returns when callers have gone, or seem to stay for ever."""
        refusal: Any = grpc.stream_stream_rpc_method_handler(self._refuse)
        for each in self._doors:
            each.close(refusal)
        began = time.monotonic()
        while time.monotonic() - began < thresholds.REFUSING_SECONDS:
            await asyncio.sleep(thresholds.QUIET_SECONDS)
            if time.monotonic() - self._refused >= thresholds.QUIET_SECONDS:
                break

    async def _refuse(self, requests: object, context: Context) -> None:
        del requests
        self._refused = time.monotonic()
        await abort(context, DrainingError(), new_request_id())


class _Door:
    """Finds the handlers of calls, as a `grpc.GenericRpcHandler` does."""

    def __init__(self, handlers: grpc.GenericRpcHandler) -> None:
        # On the object, so that a call costs no further function.
        self.service: Find = handlers.service

    def close(self, refusal: object) -> None:
        """Find the handler that refuses for every method of this contract."""
        found = self.service
        self.service = lambda details: None if found(details) is None else refusal


def listen(
    server: grpc.aio.Server, address: str, credentials: grpc.ServerCredentials | None
) -> int:
    """Listen, with TLS if there are credentials; returns the port, RuntimeError when it fails."""
    if credentials is None:
        return server.add_insecure_port(address)
    return server.add_secure_port(address, credentials)


async def stop(server: grpc.aio.Server, seconds: float, is_idle: Callable[[], bool]) -> None:
    """Wait for calls to end, for some seconds at most, then stop.

    `is_idle` says whether no call is being answered: what gRPC waits for then, it has lost.
    """
    stopping = asyncio.create_task(server.stop(seconds))
    was_idle = False
    while not stopping.done():
        await asyncio.wait([stopping], timeout=thresholds.UNTAKEN_SECONDS)
        if was_idle and is_idle():
            await server.stop(None)
        was_idle = is_idle()
    await stopping
