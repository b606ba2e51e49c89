"""The HTTP server: uvicorn in the event loop of the gRPC server, without signal handlers."""

import asyncio
import socket
import ssl
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

import uvicorn

from losswire.server.address import Address
from losswire.server.http import limits
from losswire.server.http.hosts import OwnHosts
from losswire.server.http.listener import Listener
from losswire.server.http.protocol import Connection
from losswire.server.http.route import Route
from losswire.server.http.routes import ROUTES, make_application
from losswire.server.http.services import Services


class HttpServer:
    """Serves HTTP at one address."""

    def __init__(
        self,
        services: Services,
        address: Address,
        listener: socket.socket,
        routes: Sequence[Route] = ROUTES,
    ) -> None:
        """Serve at an address, at which the socket listens already, perhaps with a port picked."""
        self._socket = Listener.of(listener)
        self.address = address.with_port(self._socket.getsockname()[1])
        config = uvicorn.Config(
            OwnHosts(
                make_application(services, routes),
                address,
                services.settings.http_cors,
                services.evaluator,
            ),
            http=Connection,
            ws="none",
            loop="none",
            # Else a request behind a large one on its connection is a bulk transfer, too.
            reset_contextvars=True,
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            backlog=limits.HTTP_ACCEPTED_IN_A_ROUND,
            h11_max_incomplete_event_size=limits.HTTP_HEADER_BYTES,
            log_level="error",
            timeout_keep_alive=limits.HTTP_KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=limits.HTTP_CLOSE_SECONDS,
        )
        self._is_shared = services.settings.place is not None
        self._drain_seconds = services.settings.drain_seconds
        self._server = _Server(config, services.tls)
        self._serving: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Listen; from now on the event loop takes its turn among threads sooner."""
        sys.setswitchinterval(min(sys.getswitchinterval(), limits.HTTP_SWITCH_SECONDS))
        self._serving = asyncio.create_task(self._server.serve([self._socket]))
        await self._server.listens.wait()

    def close(self) -> None:
        """Release the address of a server that was not started."""
        self._socket.close()

    async def drain(self) -> None:
        """End idle connections and let requests in flight end, but still say who is not ready.

        Those that do not end in time are cut.
        """
        if self._is_shared:
            # Others accept connections there, who are ready.
            for listener in self._server.servers:
                listener.close()
        state = self._server.server_state
        for each in tuple(state.connections):
            each.shutdown()
        with suppress(TimeoutError):
            async with asyncio.timeout(self._drain_seconds):
                while state.tasks:
                    await asyncio.wait(tuple(state.tasks))
        for task in tuple(state.tasks):
            task.cancel()

    async def stop(self) -> None:
        """Accept no further connections, and end those that there are."""
        if self._serving is None:
            self.close()
            return
        self._server.should_exit = True
        await self._serving


class _Server(uvicorn.Server):
    """uvicorn's server, which leaves signals to the process that it runs in."""

    def __init__(self, config: uvicorn.Config, tls: ssl.SSLContext | None) -> None:
        super().__init__(config)
        self._tls = tls
        self.listens = asyncio.Event()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and say so."""
        self.config.ssl = self._tls
        await super().startup(sockets)
        for each in sockets or ():
            # asyncio takes the same number for this, and for those that it accepts in a round.
            each.listen(limits.HTTP_LISTEN)
        self.listens.set()
