"""The HTTP server: uvicorn in the event loop of the gRPC server, without signal handlers."""

import asyncio
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import uvicorn

from losswire.server.address import Address
from losswire.server.http import limits
from losswire.server.http.hosts import OwnHosts
from losswire.server.http.protocol import Connection
from losswire.server.http.route import Route
from losswire.server.http.routes import ROUTES, make_application
from losswire.server.http.services import Services


class HttpServer:
    """Serves HTTP at one address."""

    def __init__(
        self, services: Services, address: Address, routes: Sequence[Route] = ROUTES
    ) -> None:
        """Bind the address, where port 0 picks a free one; OSError when that fails."""
        self._socket = _bound(address.host, address.port)
        self.address = address.with_port(self._socket.getsockname()[1])
        config = uvicorn.Config(
            OwnHosts(make_application(services, routes), address, services.settings.http_cors),
            http=Connection,
            ws="none",
            loop="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            h11_max_incomplete_event_size=limits.HTTP_HEADER_BYTES,
            log_level="error",
            timeout_keep_alive=limits.HTTP_KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=services.settings.drain_seconds,  # type: ignore[arg-type]
        )
        self._server = _Server(config)
        self._serving: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Listen; from now on the event loop takes its turn among threads sooner."""
        sys.setswitchinterval(min(sys.getswitchinterval(), limits.HTTP_SWITCH_SECONDS))
        self._serving = asyncio.create_task(self._server.serve([self._socket]))
        await self._server.listens.wait()

    def close(self) -> None:
        """Release the address of a server that was not started."""
        self._socket.close()

    async def stop(self) -> None:
        """Accept no further requests, let those in flight end, then cut the rest."""
        if self._serving is None:
            self.close()
            return
        self._server.should_exit = True
        await self._serving


class _Server(uvicorn.Server):
    """uvicorn's server, which leaves signals to the process that it runs in."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listens = asyncio.Event()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and say so."""
        await super().startup(sockets)
        self.listens.set()


def _bound(host: str, port: int) -> socket.socket:
    """Return a socket that is bound to an address."""
    [found, *_] = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, kind, protocol, _, address = found
    bound = socket.socket(family, kind, protocol)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
        # Now, so that an address in use is seen before anything else starts.
        bound.listen()
    except OSError:
        bound.close()
        raise
    return bound
