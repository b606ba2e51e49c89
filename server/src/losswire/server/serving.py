"""Serves until it is told to stop: what a process alone and each of several workers do."""

import asyncio
import gc
import os
import signal
from collections.abc import Awaitable, Callable

from losswire.server.app import App
from losswire.server.log import log_settings
from losswire.server.rpc.quiet import quiet_cancelled_calls
from losswire.server.settings import Settings

INTERRUPTED = 128 + signal.SIGINT
"""The exit status of a process that was interrupted a second time."""


async def serve(
    settings: Settings,
    on_start: Callable[[App], Awaitable[None]],
    stopping: asyncio.Event | None = None,
) -> int:
    """Serve until a signal comes, the device is lost or `stopping` is set; returns the exit status.

    `on_start` is awaited when the server listens. Raises StartError when it cannot.
    """
    stopping = stopping or asyncio.Event()
    log_settings(settings)
    app = App(settings, on_lost=stopping.set)
    _stop_by_signals(stopping)
    quiet_cancelled_calls()
    await app.start()
    # Everything created until now stays; collecting it again and again would delay calls.
    gc.collect()
    gc.freeze()
    await on_start(app)
    await stopping.wait()
    await app.stop()
    return 1 if app.device_lost else 0


def _stop_by_signals(stopping: asyncio.Event) -> None:
    """Set an event at SIGTERM and SIGINT; a second SIGINT ends the process at once.

    SIGHUP ends nothing, also where there are no files to read again.
    """
    loop = asyncio.get_running_loop()

    def interrupt() -> None:
        if stopping.is_set():
            os._exit(INTERRUPTED)
        stopping.set()

    loop.add_signal_handler(signal.SIGTERM, stopping.set)
    loop.add_signal_handler(signal.SIGINT, interrupt)
    loop.add_signal_handler(signal.SIGHUP, lambda: None)
