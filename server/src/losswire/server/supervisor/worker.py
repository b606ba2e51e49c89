"""A worker process: `python -m losswire.server.supervisor.worker`, started by its supervisor."""

import asyncio
import gc
import logging
import os
import signal
import socket
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING

from losswire.server import event_loop
from losswire.server.address import StartError
from losswire.server.log import name_worker, set_up_log
from losswire.server.memory.allocator import keep_large_blocks
from losswire.server.supervisor import thresholds
from losswire.server.supervisor.messages import Beat, beat_line, read_settings

if TYPE_CHECKING:
    from losswire.server.app import App

_log = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None) -> int:
    """Load everything, wait for a place, and serve there; returns the exit status.

    The arguments are the descriptor of the connection to the supervisor, the level of the log, and
    modules to import.
    """
    descriptor, log_level, *modules = sys.argv[1:] if arguments is None else arguments
    keep_large_blocks()
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    set_up_log(log_level)
    # Only the supervisor's orders count; files that change are looked at anyway.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for name in ("losswire.server.serving", *modules):
        # A module that is broken is told by the server when it starts.
        with suppress(Exception):
            import_module(name)
    # A spare has time for this now.
    gc.collect()
    gc.freeze()
    with socket.socket(fileno=int(descriptor)) as control:
        return event_loop.run(_Worker().run(control))


class _Worker:
    """One worker, from its place to its end."""

    def __init__(self) -> None:
        self._stopping = asyncio.Event()

    async def run(self, control: socket.socket) -> int:
        """Serve as the supervisor says; returns the exit status."""
        # After the allocator's policy is set: loads torch.
        from losswire.server.app import App  # noqa: PLC0415
        from losswire.server.serving import serve  # noqa: PLC0415

        reader, writer = await asyncio.open_unix_connection(sock=control)
        writer.write(beat_line(Beat()))  # everything is loaded
        line = await reader.readline()
        if not line:
            return 0  # the supervisor has ended
        settings = read_settings(line)
        if settings.place is not None:
            name_worker(settings.place.index)
        watching = asyncio.create_task(self._watch(reader))
        beating: asyncio.Task[None] | None = None

        async def start_beating(app: App) -> None:
            nonlocal beating
            beating = asyncio.create_task(self._beat(app, writer))

        try:
            return await serve(settings, start_beating, self._stopping)
        except StartError as error:
            writer.write(beat_line(Beat(failure=str(error))))
            await writer.drain()
            return 2
        finally:
            for each in (watching, beating):
                if each is not None:
                    each.cancel()

    async def _watch(self, reader: asyncio.StreamReader) -> None:
        """Stop when the supervisor has ended: nobody else would end this process."""
        with suppress(ConnectionError):
            await reader.read()
        _log.warning("the supervisor has ended")
        self._stopping.set()

    async def _beat(self, app: "App", writer: asyncio.StreamWriter) -> None:
        """Say again and again that the event loop runs, and how the engine is."""
        while not writer.transport.is_closing():
            beat = Beat(
                is_ready=app.is_ready,
                # One that drains must not be killed for what it is replaced for.
                is_live=app.is_live or self._stopping.is_set(),
                address=app.address,
            )
            # A supervisor that is stopped reads nothing.
            if not writer.transport.get_write_buffer_size():
                writer.write(beat_line(beat))
            await asyncio.sleep(thresholds.BEAT_SECONDS)


if __name__ == "__main__":
    sys.exit(main())
