"""Binds the addresses of HTTP and of metrics; their servers are started later."""

from collections.abc import Callable

from losswire.server.address import Address, StartError
from losswire.server.http import metrics
from losswire.server.http.server import HttpServer
from losswire.server.http.services import Services


def bind_http(services: Services) -> HttpServer:
    """Return the HTTP server of `--http`; StartError when its address cannot be used."""
    return _bind(services, "--http", services.settings.http, HttpServer)


def bind_metrics(services: Services) -> HttpServer:
    """Return the HTTP server of `--metrics`; StartError as above."""

    def make(services: Services, address: Address) -> HttpServer:
        return HttpServer(services, address, metrics.routes(services))

    return _bind(services, "--metrics", services.settings.metrics, make)


def _bind(
    services: Services,
    option: str,
    text: str,
    make: Callable[[Services, Address], HttpServer],
) -> HttpServer:
    address = Address.parse_tcp(text, option)
    address.check_allowed(option, allow_insecure=services.settings.allow_insecure)
    try:
        return make(services, address)
    except OSError as error:
        message = f"{option} {address.text}: {error}"
        raise StartError(message) from error
