"""Counts HTTP requests, around the guard of their path."""

import time
from collections.abc import MutableMapping
from http import HTTPStatus
from typing import Any, Final

from losswire.server.http.body import Receive
from losswire.server.http.guard import GuardedPath, Scope
from losswire.server.http.sending import Send
from losswire.server.metrics.notes import CallNotes
from losswire.server.metrics.recorder import CURRENT_METHOD, Method, Recorder
from losswire.server.rpc.request_id import current_request_id

_METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
_OTHER: Final = "_OTHER"
"""Any further method, as OpenTelemetry's conventions have it: the labels stay few."""
UNKNOWN: Final = "unknown"
"""Stands for the template of all paths that there are not."""
_CUT: Final = 499
"""The status of a request whose caller went away before it was answered."""


class RecordedPath:
    """A path that counts its requests, as an ASGI application."""

    def __init__(self, path: GuardedPath, template: str, recorder: Recorder) -> None:
        """Count the requests of a path under its template."""
        self._path = path
        self._template = template
        self._recorder = recorder
        # Not the recorder's own, which are of gRPC: they only name what refused.
        self._methods = {
            name: Method(f"{name} {template}", recorder) for name in (*_METHODS, _OTHER)
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request and count it."""
        if scope["type"] != "http":
            return
        began = time.perf_counter()
        name = scope["method"] if scope["method"] in _METHODS else _OTHER
        method = self._methods[name]
        CURRENT_METHOD.set(method)
        notes = method.note(lambda: scope["headers"])
        if notes is not None:
            receive, send = _counting(notes, receive, send)
        status = _CUT

        async def send_and_look(message: MutableMapping[str, Any]) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._path(scope, receive, send_and_look)
        finally:
            seconds = time.perf_counter() - began
            self._recorder.request(name, self._template, status, seconds)
            if notes is not None:
                notes.request_id = current_request_id()
                notes.http_status, notes.nanoseconds = status, int(seconds * 1e9)
                notes.status = _status_of(notes)
                self._recorder.observed(notes)


def _counting(notes: CallNotes, receive: Receive, send: Send) -> tuple[Receive, Send]:
    """Return what receives and sends, and counts the bytes of the bodies."""

    async def receive_and_count() -> Any:  # noqa: ANN401 (ASGI's)
        message = await receive()
        notes.received_bytes += len(message.get("body", b""))
        return message

    async def send_and_count(message: MutableMapping[str, Any]) -> None:
        notes.sent_bytes += memoryview(message.get("body", b"")).nbytes
        await send(message)

    return receive_and_count, send_and_count


def _status_of(notes: CallNotes) -> str:
    """Return the status of a request, as gRPC names it."""
    if notes.http_status == _CUT:
        return "CANCELLED"
    if notes.http_status < HTTPStatus.BAD_REQUEST:
        return "OK"
    return notes.refusal_code or "UNKNOWN"
