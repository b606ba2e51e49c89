"""Connections of the HTTP door: uvicorn's, with the limits that it lacks."""

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from losswire.server import thresholds


class Connection(H11Protocol):
    """One connection: the header has a deadline, and who does not read is cut."""

    def __init__(self, *arguments: Any, **keywords: Any) -> None:  # noqa: ANN401 (uvicorn's)
        """Begin without a timer."""
        super().__init__(*arguments, **keywords)
        self._header_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Refuse a connection beyond the most; wait for the header of the first request."""
        if len(self.connections) >= thresholds.HTTP_MAX_CONNECTIONS:
            transport.abort()
            return
        super().connection_made(transport)
        self._start_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the timer."""
        self._stop_timer()
        if self.transport is not None:
            super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Wait no longer than the deadline for the rest of a header that has begun."""
        super().data_received(data)
        if self.conn.their_state is not h11.IDLE:
            self._stop_timer()
        elif self._header_timer is None and not self.transport.is_closing():
            self._start_timer()

    def _start_timer(self) -> None:
        self._header_timer = self.loop.call_later(
            thresholds.HTTP_HEADER_SECONDS, self._header_is_late
        )

    def _stop_timer(self) -> None:
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None

    def _header_is_late(self) -> None:
        self._header_timer = None
        self.transport.abort()
