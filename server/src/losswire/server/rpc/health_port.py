"""A port where only health is answered, in plain text: for probes without certificate or token."""

from typing import Any, Final

import grpc
from grpc_health.v1 import health_pb2_grpc

from losswire.server import thresholds
from losswire.server.address import Address, cannot_listen, why_not
from losswire.server.rpc.health import Health

_OPTION: Final = "--health"


class HealthPort:
    """Answers with the states of a server, from before it is ready until it has drained."""

    def __init__(self, text: str, health: Health, *, is_shared: bool) -> None:
        """Name the address, where port 0 picks a free one; empty: there is none.

        `is_shared`: other processes listen there, too. StartError when it is no address.
        """
        self._wanted = Address.parse_tcp(text, _OPTION) if text else None
        self._health = health
        self._is_shared = is_shared
        self._server: grpc.aio.Server | None = None
        self.address = ""
        """Where it listens, with the port that was picked; empty: nowhere."""

    async def start(self) -> None:
        """Listen; StartError when that is not possible."""
        wanted = self._wanted
        if wanted is None:
            return
        options: list[tuple[str, Any]] = [
            ("grpc.so_reuseport", int(self._is_shared)),
            ("grpc.max_receive_message_length", thresholds.SMALL_MESSAGE_BYTES),
            ("grpc.max_allowed_incoming_connections", thresholds.MAX_CONNECTIONS),
            ("grpc.server_handshake_timeout_ms", 10_000),
        ]
        server = grpc.aio.server(options=options)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        try:
            port = server.add_insecure_port(wanted.text)
        except RuntimeError as error:
            await server.stop(None)
            raise cannot_listen(_OPTION, wanted.text, why_not(wanted)) from error
        await server.start()
        self._server = server
        self.address = wanted.with_port(port)

    async def stop(self) -> None:
        """Answer no more."""
        if self._server is not None:
            await self._server.stop(None)
