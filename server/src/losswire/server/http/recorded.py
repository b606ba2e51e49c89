"""Counts HTTP requests, around the guard of their path."""

import time
from collections.abc import MutableMapping
from typing import Any, Final

from losswire.server.http.body import Receive
from losswire.server.http.guard import GuardedPath, Scope
from losswire.server.http.sending import Send
from losswire.server.metrics.recorder import CURRENT_METHOD, Method, Recorder

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
        CURRENT_METHOD.set(self._methods[name])
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
