"""What a server serves over HTTP: the door, the page of metrics, the questions of its siblings."""

import asyncio
import socket
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial

from losswire.server.address import Address, cannot_listen, listening_socket
from losswire.server.http import metrics
from losswire.server.http.live import own_snapshot
from losswire.server.http.route import Route
from losswire.server.http.routes import ROUTES
from losswire.server.http.server import HttpServer
from losswire.server.http.services import Services


class Doors:
    """The servers at the addresses of `--http` and `--metrics`, and the socket for siblings."""

    def __init__(self, services: Services) -> None:
        """Bind the addresses; StartError when one cannot be used."""
        settings, place = services.settings, services.settings.place
        self._services = services
        self._servers: list[HttpServer] = []
        self.http_address = ""
        """Where HTTP is served; empty: nowhere."""
        self.metrics_address = ""
        """Where metrics are read; empty: nowhere."""
        with ExitStack() as bound:
            if settings.http:
                inherited = place.http_descriptor if place else None
                door = _bind(services, "--http", settings.http, inherited, ROUTES)
                bound.callback(door.close)
                self._servers.append(door)
                self.http_address = door.address
            if settings.metrics:
                inherited = place.metrics_descriptor if place else None
                routes = metrics.routes(services)
                page = _bind(services, "--metrics", settings.metrics, inherited, routes)
                self._servers.append(page)
                self.metrics_address = page.address
            bound.pop_all()

    async def start(self) -> None:
        """Serve."""
        if self._services.siblings is not None:
            await self._services.siblings.start(
                {
                    "live": partial(own_snapshot, self._services),
                    "metrics": partial(metrics.own_families, self._services),
                }
            )
        for each in self._servers:
            await each.start()

    def close(self) -> None:
        """Release the addresses of a server that was not started."""
        for each in self._servers:
            each.close()

    async def drain(self) -> None:
        """Finish requests in flight, and answer only whether the server is ready."""
        await asyncio.gather(*(each.drain() for each in self._servers))

    async def stop(self) -> None:
        """Serve no more."""
        if self._services.siblings is not None:
            self._services.siblings.stop()
        await asyncio.gather(*(each.stop() for each in self._servers))


def _bind(
    services: Services, option: str, text: str, inherited: int | None, routes: Sequence[Route]
) -> HttpServer:
    """Return a server at an address, or at the socket that this process has inherited."""
    address = Address.parse_tcp(text, option)
    address.check_allowed(option, allowed=services.settings.lets_others_call)
    try:
        listener = (
            listening_socket(address) if inherited is None else socket.socket(fileno=inherited)
        )
        return HttpServer(services, address, listener, routes)
    except OSError as error:
        raise cannot_listen(option, address.text, error) from error
