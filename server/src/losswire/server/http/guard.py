"""The guard around every route: deadlines, disconnects, problems and what every answer says.

The only place of the HTTP door where exceptions become answers.
"""

import asyncio
import logging
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Mapping,
    MutableMapping,
    Sequence,
)
from contextlib import aclosing
from typing import Any, Final

from losswire.server import thresholds
from losswire.server.errors import (
    ExpiredError,
    UnknownPathError,
    WrongMediaTypeError,
    WrongMethodError,
)
from losswire.server.http.answer import Answer, Buffer
from losswire.server.http.body import CallerGoneError, Receive
from losswire.server.http.call import Call
from losswire.server.http.problems import problem_answer
from losswire.server.http.route import Route
from losswire.server.http.services import Services
from losswire.server.rpc.request_id import new_request_id

_log = logging.getLogger(__name__)

Scope = MutableMapping[str, Any]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_ALWAYS: Final[Mapping[str, str]] = {
    "x-content-type-options": "nosniff",
    "cache-control": "no-store",
}
"""Header fields of every answer that does not set them itself."""


class GuardedPath:
    """The methods of one path, as an ASGI application."""

    def __init__(self, services: Services, routes: Sequence[Route]) -> None:
        """Serve these routes, all of one path; none: every call fails with UnknownPathError."""
        self._services = services
        self._routes = {each.method: each for each in routes}
        if "GET" in self._routes:
            self._routes.setdefault("HEAD", self._routes["GET"])

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one call."""
        if scope["type"] != "http":
            return
        request_id = new_request_id()
        call: Call | None = None
        try:
            try:
                call = Call(self._services, scope, receive, request_id)
                answer = await self._answer(call, scope)
            except CallerGoneError:
                return
            except Exception as error:  # noqa: BLE001 (the table decides)
                answer = problem_answer(error, request_id)
            await _send_answer(answer, send, request_id)
        finally:
            if call is not None:
                call.close()

    async def _answer(self, call: Call, scope: Scope) -> Answer:
        """Let the handler answer before the deadline, unless the caller goes away."""
        route = self._route_of(call, scope)
        authorize(call)
        handling = asyncio.ensure_future(route.handler(call))
        gone = asyncio.ensure_future(call.body.wait_gone())
        try:
            async with asyncio.timeout_at(None if call.deadline == float("inf") else call.deadline):
                await asyncio.wait((handling, gone), return_when=asyncio.FIRST_COMPLETED)
        except TimeoutError:
            text = "the deadline passed before the answer was ready"
            raise ExpiredError(text) from None
        else:
            if not handling.done():
                raise CallerGoneError
            return handling.result()
        finally:
            for each in (handling, gone):
                each.cancel()
            await asyncio.wait((handling, gone))

    def _route_of(self, call: Call, scope: Scope) -> Route:
        """Return the route of a call; raises the error of a wrong path, method or media type."""
        if not self._routes:
            raise UnknownPathError(scope["path"])
        route = self._routes.get(call.method)
        if route is None:
            raise WrongMethodError(call.method, sorted(self._routes))
        if call.headers.get("content-encoding", "identity").lower() != "identity":
            raise WrongMediaTypeError(
                f"Content-Encoding: {call.headers['content-encoding']}", ["no content encoding"]
            )
        if route.accepts is not None and call.media_type not in route.accepts:
            raise WrongMediaTypeError(call.media_type, list(route.accepts))
        return route


def authorize(call: Call) -> None:
    """Check who calls: everybody may. The one place where callers will be told apart."""
    del call


async def _send_answer(answer: Answer, send: Send, request_id: str) -> None:
    """Send an answer; a caller who does not read it is cut."""
    headers = {**_ALWAYS, **answer.headers, "content-type": answer.media_type}
    headers["x-request-id"] = request_id
    if answer.size_bytes is not None:
        headers["content-length"] = str(answer.size_bytes)
    encoded = [(name.encode("latin-1"), text.encode("latin-1")) for name, text in headers.items()]
    await send({"type": "http.response.start", "status": answer.status, "headers": encoded})
    async with aclosing(_slices(answer.body)) as slices:
        async for each in slices:
            async with asyncio.timeout(thresholds.HTTP_SEND_SECONDS):
                await send({"type": "http.response.body", "body": each, "more_body": True})
    await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _slices(
    body: Sequence[Buffer] | AsyncIterator[Buffer],
) -> AsyncGenerator[memoryview]:
    """Yield a body in slices, each of which has to be read before the next is written."""
    if isinstance(body, AsyncIterator):
        async for part in body:
            yield memoryview(part)
        return
    size = thresholds.HTTP_SEND_BYTES
    for part in body:
        view = memoryview(part).cast("B")
        for start in range(0, len(view), size):
            yield view[start : start + size]
