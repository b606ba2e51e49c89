"""Health as gRPC has it: whether the server is ready for calls, and whether its process lives."""

import asyncio
from collections.abc import Collection
from typing import Any, Final

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

LIVE: Final = "losswire.live"
"""The name under which health says whether the process should go on: one that is not alive has to
be replaced, one that is not ready must only be given no calls."""

Context = grpc.aio.ServicerContext[Any, Any]
_Status = health_pb2.HealthCheckResponse


class Health(health_pb2_grpc.HealthServicer):  # type: ignore[misc] # it has no types
    """Answers whether the server is ready, under its services' names, and whether it is alive."""

    def __init__(self, services: Collection[str]) -> None:
        """Begin alive and not ready; the empty name is that of all services together."""
        self._ready = dict.fromkeys(("", *services), False)
        self._is_live = True
        self._has_ended = False
        self._changed = asyncio.Event()

    def set(self, *, ready: bool, live: bool = True) -> None:
        """Store the state, and tell those who watch."""
        self._ready = dict.fromkeys(self._ready, ready)
        self._is_live = live
        self._tell()

    def end(self) -> None:
        """End the calls that watch."""
        self._has_ended = True
        self._tell()

    async def Check(self, request: Any, context: Context) -> Any:  # noqa: ANN401, N802
        """Return the state of a service; NOT_FOUND for a name that is none."""
        status = self._status(request.service)
        if status == _Status.SERVICE_UNKNOWN:
            await context.abort(grpc.StatusCode.NOT_FOUND)
        return _Status(status=status)

    async def Watch(self, request: Any, context: Context) -> None:  # noqa: ANN401, N802
        """Send the state of a service now, and when it changes, until the server ends."""
        sent = None
        while True:
            changed, status = self._changed, self._status(request.service)
            if status != sent:
                await context.write(_Status(status=status))
                sent = status
            if self._has_ended:
                await context.abort(grpc.StatusCode.UNAVAILABLE, "the server shuts down")
            await changed.wait()

    def _status(self, service: str) -> Any:  # noqa: ANN401 (a number of an untyped enum)
        is_serving = self._is_live if service == LIVE else self._ready.get(service)
        if is_serving is None:
            return _Status.SERVICE_UNKNOWN
        return _Status.SERVING if is_serving else _Status.NOT_SERVING

    def _tell(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
