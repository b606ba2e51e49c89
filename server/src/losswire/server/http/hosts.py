"""Whom a server that only its own machine can reach answers for.

A page of another site can make a browser look up the page's own name as 127.0.0.1, and then read
what this server answers. Such requests name that host; those of honest callers name this machine.
"""

import ipaddress
from collections.abc import Awaitable, Callable, Iterable
from typing import Any
from urllib.parse import urlsplit

from losswire.server.address import Address
from losswire.server.errors import WrongHostError
from losswire.server.http.body import Receive, headers_of
from losswire.server.http.problems import problem_answer
from losswire.server.http.sending import Reader, Send, send_answer
from losswire.server.pipeline.evaluator import Evaluator
from losswire.server.rpc.request_id import new_request_id

Application = Callable[[Any, Receive, Send], Awaitable[None]]
"""An ASGI application."""


class OwnHosts:
    """An application that refuses requests for other hosts, where only this machine can call."""

    def __init__(
        self,
        application: Application,
        address: Address,
        origins: Iterable[str],
        evaluator: Evaluator,
    ) -> None:
        """Serve an application at an address; the hosts of `origins` are welcome too."""
        self._application = application
        self._evaluator = evaluator
        self._is_local = address.local
        named = {urlsplit(each).hostname or "" for each in origins}
        self._hosts = frozenset({"localhost", address.host.lower(), *named})

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:  # noqa: ANN401 (ASGI's)
        """Answer one request, or refuse it."""
        host = _host_of(scope) if self._is_local else ""
        if not host or host in self._hosts or _is_address(host):
            await self._application(scope, receive, send)
            return
        request_id = new_request_id()
        answer = problem_answer(WrongHostError(host), request_id)
        with self._evaluator.budget.reservation() as reservation:
            reader = Reader(self._evaluator.patience, reservation)
            await send_answer(answer, send, request_id, reader, keeps_alive=False)


def _host_of(scope: Any) -> str:  # noqa: ANN401 (ASGI's)
    """Return the host that a request names, in lower case and without port; empty: none."""
    text = headers_of(scope["headers"]).get("host", "")
    try:
        return urlsplit(f"//{text}").hostname or ""
    except ValueError:
        return text


def _is_address(host: str) -> bool:
    """Return whether a host is an address, which nobody looks up, or below `localhost`."""
    try:
        return bool(ipaddress.ip_address(host))
    except ValueError:
        return host.endswith(".localhost")
