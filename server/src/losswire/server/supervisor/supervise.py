"""The supervisor: keeps a number of workers, and replaces those that end or hang."""

import asyncio
import logging
import signal
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Final

from losswire.server.address import StartError
from losswire.server.private_folder import PrivateFolder, new_path
from losswire.server.settings import Place, Settings
from losswire.server.supervisor import thresholds
from losswire.server.supervisor.addresses import Addresses
from losswire.server.supervisor.process import Blueprint, WorkerProcess
from losswire.server.supervisor.shares import check_shares, share_of

_log = logging.getLogger(__name__)

_INTERRUPTED: Final = 128 + signal.SIGINT
_HTTP_MODULES: Final = ("losswire.server.http.bind", "losswire.server.http.services")

Announce = Callable[[str, str, str, str], object]
"""Receives the addresses of gRPC, HTTP, metrics and health, which may be empty, once all serve."""


async def supervise(settings: Settings, count: int, log_level: str, announce: Announce) -> int:
    """Serve with some workers until SIGTERM or SIGINT; returns the exit status.

    Raises StartError when no worker can start, or could hold a message.
    """
    check_shares(settings, count)
    addresses = Addresses(settings)
    settings = replace(settings, health=addresses.health)
    try:
        supervisor = _Supervisor(settings, count, log_level, addresses)
        return await supervisor.run(
            lambda: announce(addresses.grpc, addresses.http, addresses.metrics, addresses.health)
        )
    finally:
        addresses.close()


class _Supervisor:
    """Keeps one worker at each place, and a spare process that can take any of them."""

    def __init__(
        self, settings: Settings, count: int, log_level: str, addresses: Addresses
    ) -> None:
        self._settings = settings
        self._count = count
        self._addresses = addresses
        self._folder = PrivateFolder(new_path())
        has_http = settings.http or settings.metrics
        self._blueprint = Blueprint(
            folder=self._folder.path,
            descriptors=addresses.descriptors,
            log_level=log_level,
            modules=(*(_HTTP_MODULES if has_http else ()), *settings.losses),
        )
        self._stopping = asyncio.Event()
        self._workers: dict[int, WorkerProcess] = {}
        """By place."""
        self._spare: WorkerProcess | None = None
        self._spare_pause = thresholds.START_AGAIN_SECONDS
        self._watching: asyncio.Task[None] | None = None
        self._making_spare = asyncio.Lock()
        self._was_ready: set[int] = set()
        """The places that had a worker once."""
        self._is_interrupted = False

    async def run(self, announce: Callable[[], object]) -> int:
        """Keep the workers until a signal comes; returns the exit status."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._stopping.set)
        loop.add_signal_handler(signal.SIGINT, self._interrupt)
        loop.add_signal_handler(signal.SIGHUP, _ignore)
        keeping = [asyncio.create_task(self._keep(place, announce)) for place in range(self._count)]
        stopping = asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait([stopping, *keeping], return_when=asyncio.FIRST_COMPLETED)
            # Ends of its own accord only by an error: see `_keep`.
            failed = [each for each in keeping if each.done()]
            await self._stop(keeping)
            for each in failed:
                each.result()
        finally:
            stopping.cancel()
            self._folder.remove()
        _log.info("stopped")
        return _INTERRUPTED if self._is_interrupted else 0

    async def _keep(self, place: int, announce: Callable[[], object]) -> None:
        """Have a worker at a place until the end; StartError when none has ever started."""
        failures = 0
        while not self._stopping.is_set():
            worker = await self._next_process()
            if worker is None:
                return
            self._workers[place] = worker
            worker.serve(share_of(self._settings, self._place(place)))
            ending = asyncio.create_task(worker.ended())
            has_started = await worker.started()
            began = time.monotonic()
            if has_started and not self._stopping.is_set():
                _log.info("worker %d serves as process %d", place, worker.pid)
                self._was_ready.add(place)
                if len(self._was_ready) == self._count:
                    announce()
                    announce = _ignore
                    await self._make_spare()
            await ending
            if self._stopping.is_set():
                return
            has_lasted = has_started and time.monotonic() - began >= thresholds.LASTING_SECONDS
            failures = 0 if has_lasted else failures + 1
            if place not in self._was_ready:
                if worker.beat.failure:
                    raise StartError(worker.beat.failure)
                if failures >= thresholds.MAX_FAILED_STARTS:
                    message = f"no worker starts: the last one {worker.status}; the log says more"
                    raise StartError(message)
            _log.error("worker %d %s and is replaced", place, worker.status)
            if failures:
                await self._pause(thresholds.REPLACE_SECONDS * 2 ** min(failures - 1, 7))

    def _place(self, index: int) -> Place:
        return Place(
            index=index,
            count=self._count,
            listen=self._addresses.grpc,
            folder=str(self._folder.path),
            http_descriptor=self._addresses.http_descriptor,
            metrics_descriptor=self._addresses.metrics_descriptor,
        )

    async def _next_process(self) -> WorkerProcess | None:
        """Return the spare process, or a new one where there is none; None at the end.

        Raises StartError when none can be started and no worker serves yet.
        """
        spare, self._spare = self._spare, None
        if spare is not None and not spare.has_ended:
            self._spare_pause = thresholds.START_AGAIN_SECONDS
            return spare
        while not self._stopping.is_set():
            try:
                return await self._start()
            except OSError as error:
                if not self._was_ready:
                    message = f"no worker starts: {error}"
                    raise StartError(message) from error
                # The system may have too many processes now, or too little memory.
                _log.error("no process can be started, which is tried again: %s", error)
            await self._pause(thresholds.START_AGAIN_SECONDS)
        return None

    async def _make_spare(self) -> None:
        """Start a process that takes the place of the next worker that ends."""
        async with self._making_spare:
            if self._spare is None or self._spare.has_ended:
                try:
                    self._spare = await self._start()
                except OSError as error:
                    _log.warning("there is no spare process: %s", error)
                else:
                    self._watching = asyncio.create_task(self._watch_spare(self._spare))

    async def _watch_spare(self, spare: WorkerProcess) -> None:
        """Make another spare process when this one ends without a place."""
        await spare.gone()
        if self._spare is not spare or self._stopping.is_set():
            return
        self._spare = None
        await spare.ended()
        _log.warning("the spare process %s and is replaced", spare.status)
        await self._pause(self._spare_pause)
        self._spare_pause = min(2 * self._spare_pause, thresholds.MAX_SPARE_PAUSE_SECONDS)
        if not self._stopping.is_set():
            await self._make_spare()

    async def _start(self) -> WorkerProcess:
        """Start a process; OSError when the system cannot."""
        self._folder.restore()
        started = await WorkerProcess.start(self._blueprint)
        if self._stopping.is_set():  # since then: `_stop` has not seen it
            started.stop()
        return started

    async def _pause(self, seconds: float) -> None:
        """Wait, but not longer than until the end."""
        try:
            await asyncio.wait_for(self._stopping.wait(), seconds)
        except TimeoutError:
            return

    def _interrupt(self) -> None:
        """Drain; at the second time, end everything at once."""
        if self._stopping.is_set():
            self._is_interrupted = True
            self._kill(self._workers.values())
        self._stopping.set()

    async def _stop(self, keeping: Iterable[asyncio.Task[None]]) -> None:
        """Drain all workers, and end those that do not."""
        self._stopping.set()
        # Nobody may wait for a worker to accept a connection when none does any more.
        self._addresses.close()
        if self._spare is not None:
            self._spare.kill()
            await self._spare.ended()
        for worker in self._workers.values():
            worker.stop()
        longest = self._settings.notice_seconds + self._settings.drain_seconds
        _, late = await asyncio.wait(keeping, timeout=longest + thresholds.ENDING_SECONDS)
        if late:
            _log.error("workers that did not drain are killed")
            self._kill(self._workers.values())
            await asyncio.wait(late)
        if self._watching is not None:
            await self._watching

    def _kill(self, workers: Iterable[WorkerProcess]) -> None:
        for each in workers:
            each.kill()


def _ignore() -> None:
    """Ignore a signal, or an announcement that was made already."""
