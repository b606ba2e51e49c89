"""Binds the addresses of HTTP and of metrics; their servers are started later."""

import socket
from collections.abc import Sequence

from losswire.server.address import Address, StartError, listening_socket
from losswire.server.http import metrics
from losswire.server.http.route import Route
from losswire.server.http.routes import ROUTES
from losswire.server.http.server import HttpServer
from losswire.server.http.services import Services


def bind_http(services: Services) -> HttpServer:
    """Return the HTTP server of `--http`; StartError when its address cannot be used."""
    settings = services.settings
    inherited = settings.place.http_descriptor if settings.place else None
    return _bind(services, "--http", settings.http, inherited, ROUTES)


def bind_metrics(services: Services) -> HttpServer:
    """Return the HTTP server of `--metrics`; StartError as above."""
    settings = services.settings
    inherited = settings.place.metrics_descriptor if settings.place else None
    return _bind(services, "--metrics", settings.metrics, inherited, metrics.routes(services))


def _bind(
    services: Services, option: str, text: str, inherited: int | None, routes: Sequence[Route]
) -> HttpServer:
    """Return a server at an address, or at the socket that this process has inherited."""
    address = Address.parse_tcp(text, option)
    address.check_allowed(option, allow_insecure=services.settings.allow_insecure)
    try:
        listener = (
            listening_socket(address) if inherited is None else socket.socket(fileno=inherited)
        )
        return HttpServer(services, address, listener, routes)
    except OSError as error:
        message = f"{option} {address.text}: {error}"
        raise StartError(message) from error
