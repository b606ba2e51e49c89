"""The guard around every route: deadlines, callers who leave, and problems.

The only place of the HTTP door where exceptions become answers.
"""

import asyncio
import math
import time
from collections.abc import MutableMapping, Sequence
from contextlib import AsyncExitStack
from typing import Any

from losswire.server import thresholds
from losswire.server.errors import (
    DrainingError,
    ExpiredError,
    UnknownPathError,
    WrongMediaTypeError,
    WrongMethodError,
)
from losswire.server.http import limits
from losswire.server.http.answer import Answer
from losswire.server.http.body import Body, CallerGoneError, Receive, headers_of
from losswire.server.http.call import Call
from losswire.server.http.problems import problem_answer
from losswire.server.http.protocol import SOURCE, Connection
from losswire.server.http.route import Route
from losswire.server.http.sending import Reader, Send, send_answer, unsent_bytes
from losswire.server.http.services import Services
from losswire.server.http.turns import Turns
from losswire.server.identity.gatekeeper import Gatekeeper
from losswire.server.memory.budget import Kind
from losswire.server.rpc.request_id import new_request_id

Scope = MutableMapping[str, Any]


class GuardedPath:
    """The methods of one path, as an ASGI application."""

    def __init__(self, services: Services, routes: Sequence[Route], turns: Turns) -> None:
        """Serve these routes, all of one path; none: every call fails with UnknownPathError."""
        self._services = services
        self._turns = turns
        self._routes = {each.method: each for each in routes}
        self._is_open = bool(routes) and all(each.is_open for each in routes)
        if "GET" in self._routes:
            self._routes.setdefault("HEAD", self._routes["GET"])

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one call, as long as its caller is there.

        Raises CutError when nothing further can be sent over this connection.
        """
        request_id = new_request_id()
        evaluator = self._services.evaluator
        with evaluator.budget.reservation() as reservation:
            # However little there is: who asks for health holds no more.
            reservation.change_to(limits.HTTP_CALL_BYTES, Kind.RECEIVE)
            headers, source = headers_of(scope["headers"]), scope[SOURCE]
            body = Body(receive, headers, source, evaluator.patience, reservation)
            answering = asyncio.ensure_future(self._answer(body, scope, send, request_id))
            gone = asyncio.ensure_future(body.wait_gone())
            try:
                await asyncio.wait((answering, gone), return_when=asyncio.FIRST_COMPLETED)
                if answering.done():
                    answering.result()
            finally:
                for each in (answering, gone):
                    each.cancel()
                await asyncio.gather(answering, gone, return_exceptions=True)

    async def _answer(self, body: Body, scope: Scope, send: Send, request_id: str) -> None:
        """Answer one call, also if that is a problem."""
        if not body.ended:
            await self._turns.wait()
        async with AsyncExitStack() as held:
            try:
                call = Call(self._services, scope, body, request_id, held)
                keeper = self._services.gatekeeper
                if keeper is not None and not self._is_open:
                    authorize(call, keeper, scope[SOURCE])
                answer = await self._handle(call, scope["path"])
            except CallerGoneError:
                return
            except Exception as error:  # noqa: BLE001 (the table decides)
                answer = problem_answer(error, request_id)
            if (size := answer.size_bytes) is not None:
                # What it was made of is gone.
                body.reservation.change_to(limits.HTTP_CALL_BYTES + unsent_bytes(size), Kind.ANSWER)
                await body.discard()
            # A server that drains closes the connection: its caller shall not try it again.
            keeps_alive = body.ended and self._services.is_ready()
            reader = Reader(self._services.evaluator.patience, body.reservation)
            # What makes a streamed answer may read the body meanwhile: the rest is dropped after.
            await send_answer(
                answer, send, request_id, reader, keeps_alive=keeps_alive, before_end=body.linger
            )

    async def _handle(self, call: Call, path: str) -> Answer:
        """Return the handler's answer, if it comes before the deadline."""
        route = self._route_of(call, path)
        if route.accepts is not None and self._services.is_draining():
            raise DrainingError
        text = "the deadline passed before the answer was ready"
        if call.deadline == math.inf and not route.lasts:
            call.deadline = time.monotonic() + thresholds.MAX_CALL_SECONDS
        if call.deadline <= asyncio.get_running_loop().time():
            raise ExpiredError(text)
        try:
            async with asyncio.timeout_at(None if call.deadline == math.inf else call.deadline):
                return await route.handler(call)
        except TimeoutError:
            raise ExpiredError(text) from None

    def _route_of(self, call: Call, path: str) -> Route:
        """Return the route of a call; raises the error of a wrong path, method or media type."""
        if not self._routes:
            raise UnknownPathError(path)
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


def authorize(call: Call, keeper: Gatekeeper, connection: Connection) -> None:
    """Store who calls; UnauthenticatedError for nobody who is known."""
    authorization = call.headers.get("authorization", "")
    call.principal = keeper.admit(authorization, lambda: connection.common_name)
