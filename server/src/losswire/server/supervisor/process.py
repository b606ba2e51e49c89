"""One worker process, as its supervisor sees it: a spare first, then a worker with a place."""

import asyncio
import logging
import os
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from losswire.server.settings import Settings
from losswire.server.supervisor import thresholds
from losswire.server.supervisor.messages import Beat, read_beat, settings_line

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Blueprint:
    """What all worker processes of a supervisor have in common before they have a place."""

    folder: Path
    """The supervisor's private folder."""
    descriptors: Sequence[int]
    """The listening sockets that they inherit."""
    log_level: str
    modules: Sequence[str]
    """What they import beside the server itself."""


class WorkerProcess:
    """A process that has loaded everything, and serves once it gets a place."""

    def __init__(
        self, process: asyncio.subprocess.Process, control: asyncio.StreamWriter, folder: Path
    ) -> None:
        """Wrap a process that was started; see `start`."""
        self._process = process
        self._control = control
        self._folder = folder
        self._beats = 0
        """The beats since they were counted last."""
        self.beat = Beat(is_ready=False)
        """The last one."""
        self.is_told_to_stop = False
        """Whether it was told to stop, or killed."""
        self._has_loaded = False
        self._reading: asyncio.Task[None] | None = None
        self._first = asyncio.Event()
        """Set when the worker is ready, has failed, or has ended."""

    @classmethod
    async def start(cls, blueprint: Blueprint) -> Self:
        """Start a process; OSError when the system cannot."""
        with ExitStack() as undoing:
            ours, theirs = socket.socketpair()
            undoing.callback(ours.close)
            with theirs:
                # A killed worker leaves files behind: they go with its folder.
                folder = Path(tempfile.mkdtemp(dir=blueprint.folder))
                undoing.callback(shutil.rmtree, folder, ignore_errors=True)
                process = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-P", "-m", "losswire.server.supervisor.worker"),
                    *(str(theirs.fileno()), blueprint.log_level, *blueprint.modules),
                    stdin=asyncio.subprocess.DEVNULL,
                    pass_fds=(theirs.fileno(), *blueprint.descriptors),
                    env={
                        **os.environ,
                        # What the supervisor finds, its workers find: also where a program was run
                        # from its own folder.
                        "PYTHONPATH": os.pathsep.join(sys.path),
                        "TMPDIR": str(folder),
                    },
                    # Ctrl-C in a terminal reaches the supervisor only, which then drains its
                    # workers.
                    start_new_session=True,
                )
            reader, writer = await asyncio.open_unix_connection(sock=ours)
            undoing.pop_all()
        worker = cls(process, writer, folder)
        worker._reading = asyncio.create_task(worker._read(reader))
        return worker

    @property
    def pid(self) -> int:
        """The process."""
        return self._process.pid

    @property
    def has_ended(self) -> bool:
        """Whether the process has ended."""
        return self._process.returncode is not None

    @property
    def status(self) -> str:
        """How the process ended, in words."""
        code = self._process.returncode
        if code is None:
            return "runs"
        return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with {code}"

    def serve(self, settings: Settings) -> None:
        """Start serving, with settings that name its place."""
        self._control.write(settings_line(settings))

    async def started(self) -> bool:
        """Wait until it accepts calls; False when it ended before."""
        await self._first.wait()
        return bool(self.beat.address)

    async def gone(self) -> None:
        """Wait until the process has ended, and do nothing else."""
        await self._process.wait()

    async def ended(self) -> None:
        """Watch the process until it has ended; one that hangs is killed."""
        silent = 0
        ending = asyncio.ensure_future(self._process.wait())
        while not ending.done():
            await asyncio.wait([ending], timeout=thresholds.BEAT_SECONDS)
            # Counted in turns of this loop: a machine that was stopped as a whole proves nothing.
            silent = 0 if self._beats else silent + 1
            self._beats = 0
            limit = self._silent_limit()
            if not ending.done() and (silent >= limit or not self.beat.is_live):
                why = "its engine hangs" if silent < limit else "it does not answer"
                _log.critical("worker process %d is killed: %s", self.pid, why)
                self.kill()
                await ending
        if self._reading is not None:
            await self._reading
        self._control.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _silent_limit(self) -> int:
        """Return for how many beats it may be silent."""
        if self._reading is None or self._reading.done():
            return thresholds.ENDED_BEATS
        if self.beat.address:
            return thresholds.SILENT_BEATS
        return thresholds.LOADED_BEATS if self._has_loaded else thresholds.STARTING_BEATS

    def stop(self) -> None:
        """Ask it to drain and end."""
        self.is_told_to_stop = True
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it at once, also one that is stopped."""
        self.is_told_to_stop = True
        self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        if not self.has_ended:
            self._process.send_signal(number)

    async def _read(self, reader: asyncio.StreamReader) -> None:
        """Read what the worker says until it has ended."""
        try:
            while line := await reader.readline():
                if not self._has_loaded:
                    _log.info("process %d has loaded", self.pid)
                self._has_loaded = True
                self.beat = read_beat(line)
                self._beats += 1
                if self.beat.address or self.beat.failure:
                    self._first.set()
        except (ConnectionError, ValueError, TypeError):
            # Killed in mid-line, or it writes what is no message: `ended` ends it.
            return
        finally:
            self._first.set()
