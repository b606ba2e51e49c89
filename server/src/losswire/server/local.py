"""The service inside of the caller's own process, for the SDK's target `local:` and `losswire ui`.

The SDK finds `local_server` by the entry point `losswire.local` of this distribution, and
`console_server` by `losswire.console`, so that it imports nothing of the service. Torch is imported
when the first call needs it.
"""

import asyncio
import atexit
import os
import secrets
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, ParamSpec, TypeVar
from urllib.parse import quote

from losswire.server import event_loop, private_folder
from losswire.server.private_folder import PrivateFolder
from losswire.server.settings import Settings, available_cpus, available_memory

if TYPE_CHECKING:
    from losswire.server.rpc.direct_summaries import DirectSummaries, DirectSummary, Listener

P = ParamSpec("P")
ResultT = TypeVar("ResultT")

_DEVICES: Final = ("auto", "cpu", "cuda")
_OPTIONS: Final = ("device", "threads")
_DRAIN_SECONDS: Final = 1.0
"""The seconds that calls may continue when the process exits."""
_STOP_SECONDS: Final = 10.0
"""The longest wait for the end of the thread when the process exits."""


class LocalServer:
    """A server on a thread of this process.

    The SDK calls it through a unix socket; data sets are handed over as they are in memory.
    """

    def __init__(self, device: str, threads: int, **settings: Any) -> None:  # noqa: ANN401 (of any setting)
        """Prepare; `start` starts it. `settings` are further ones."""
        self._device = device
        self._threads = threads
        self._settings = settings
        self._folder = private_folder.new_path()
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._started = False
        self._ready: Future[None] | None = None
        """Settled once a start is over; None: there is none under way."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._summaries: DirectSummaries | None = None
        self._http_address = ""
        self._stopping: asyncio.Event | None = None
        self._thread: threading.Thread | None = None

    @property
    def address(self) -> str:
        """The target to connect to, once it is started: `unix:PATH`."""
        return f"unix:{self._folder / 'grpc.sock'}"

    @property
    def http_address(self) -> str:
        """HOST:PORT of the HTTP door, once it is started; empty where there is none."""
        return self._http_address

    @property
    def is_ready(self) -> bool:
        """Whether it was started."""
        return self._started

    def start(self) -> None:
        """Start it and wait until it serves; nothing when it does already. Any thread may call.

        Raises RuntimeError when it cannot start, and in a forked child of its process.
        """
        if self._process != os.getpid():
            raise RuntimeError(_FORKED)
        with self._lock:
            if self._started:
                return
            # A start whose caller was interrupted goes on: the next one waits for it.
            if self._ready is None:
                self._ready = Future()
                self._thread = threading.Thread(
                    target=self._run, args=(self._ready,), name="losswire-local", daemon=True
                )
                self._thread.start()
            try:
                self._ready.result()
            except Exception as error:
                self._ready = None
                message = f"target: local: does not start: {error}"
                raise RuntimeError(message) from error
            self._started = True
            atexit.register(self.stop)

    def open_summary(self, listener: "Listener") -> "DirectSummary":
        """Begin a SummarizeLosses, once it is started; `listener` gets its answers.

        Any thread may call. Raises RuntimeError in a forked child of its process.
        """
        if self._process != os.getpid():
            raise RuntimeError(_FORKED)
        if self._loop is None or self._summaries is None:
            raise RuntimeError("target: local: is not started")
        return self._summaries.open(self._loop, listener)

    def stop(self) -> None:
        """End calls under way and the thread; nothing in a forked child."""
        if self._process != os.getpid() or self._loop is None or self._stopping is None:
            return
        with suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._stopping.set)
        if self._thread is not None:
            self._thread.join(_STOP_SECONDS)

    def _run(self, ready: "Future[None]") -> None:
        """Serve on this thread until `stop`."""
        try:
            folder = PrivateFolder(self._folder)
            try:
                event_loop.run(self._serve(ready))
            finally:
                folder.remove()
        except BaseException as error:  # noqa: BLE001 - whatever it is, a thread waits for it
            if not ready.done():
                ready.set_exception(error)

    async def _serve(self, ready: "Future[None]") -> None:
        # Imports torch, which takes seconds.
        from losswire.server.app import App  # noqa: PLC0415

        budget = max(available_memory() // 2, 1)
        app = App(
            Settings(
                listen=self.address,
                device=self._device,
                threads=self._threads,
                memory_budget_bytes=budget,
                resident_quota_bytes=budget // 4,
                region_quota_bytes=budget // 4,
                region_socket=str(self._folder / "regions.sock") if _can_share() else "",
                drain_seconds=_DRAIN_SECONDS,
                **self._settings,
            )
        )
        loop = asyncio.get_running_loop()
        loop.set_default_executor(_Executor(thread_name_prefix="losswire-local"))
        await app.start()
        self._loop, self._stopping = loop, asyncio.Event()
        self._summaries = app.summaries
        self._http_address = app.http_address
        ready.set_result(None)
        await self._stopping.wait()
        await app.stop()


class ConsoleServer:
    """A server on a thread of this process with the console, which can read one file."""

    def __init__(self, device: str, threads: int, port: int, file: Path | None) -> None:
        """Prepare; `start` starts it. Port 0 picks a free one."""
        files = {} if file is None else {secrets.token_urlsafe(32): file}
        # Imports SQLAlchemy, which the target `local:` does without.
        from losswire.server.runs.address import default_store  # noqa: PLC0415

        self._file_path = "".join(
            f"/files/{token}/{quote(each.name)}" for token, each in files.items()
        )
        self._server = LocalServer(
            device,
            threads,
            http=f"127.0.0.1:{port}",
            http_files=files,
            store=default_store(),
        )

    @property
    def http_address(self) -> str:
        """HOST:PORT of the console, once it is started."""
        return self._server.http_address

    @property
    def grpc_address(self) -> str:
        """The target of the gRPC services, once it is started."""
        return self._server.address

    @property
    def file_path(self) -> str:
        """The path at which the console reads the file; empty where there is none."""
        return self._file_path

    def start(self) -> None:
        """Start it and wait until it serves; RuntimeError when it cannot."""
        self._server.start()

    def stop(self) -> None:
        """End calls under way, then the server."""
        self._server.stop()


class _Executor(ThreadPoolExecutor):
    """Calls functions on this thread once the interpreter ends, which starts no more threads."""

    def submit(
        self, fn: Callable[P, ResultT], /, *args: P.args, **kwargs: P.kwargs
    ) -> "Future[ResultT]":
        """Call a function on another thread, or now."""
        try:
            return super().submit(fn, *args, **kwargs)
        except RuntimeError:
            done: Future[ResultT] = Future()
            try:
                done.set_result(fn(*args, **kwargs))
            except Exception as error:  # noqa: BLE001 - for the one who waits
                done.set_exception(error)
            return done


_FORKED: Final = (
    "target: local: was in use before this process was forked, and its threads are the parent's. "
    "Start processes with 'spawn' or 'forkserver', or fork before the first call"
)

_servers: dict[tuple[str, int], LocalServer] = {}
_lock = threading.Lock()
_inherited_started = False
"""Whether this process was forked from one whose server runs."""


def local_server(options: Mapping[str, str]) -> LocalServer:
    """Return this process's server with these options, one for all who ask for the same.

    `threads` is the number of threads that torch uses on the CPU, by default all that the process
    may use; `device` is `auto`, the default, `cpu` or `cuda`. Starts nothing. Raises ValueError
    for other options, RuntimeError in a forked child of a process whose server runs.
    """
    key = _device_and_threads(options)
    if _inherited_started:
        raise RuntimeError(_FORKED)
    with _lock:
        if key not in _servers:
            _servers[key] = LocalServer(*key)
        return _servers[key]


def console_server(options: Mapping[str, str], port: int, file: Path | None) -> ConsoleServer:
    """Return a server with the console at a port of 127.0.0.1, 0 being a free one.

    `options` are those of `local_server`; the console can read `file`. Starts nothing. Raises
    ValueError for other options.
    """
    return ConsoleServer(*_device_and_threads(options), port, file)


def _device_and_threads(options: Mapping[str, str]) -> tuple[str, int]:
    """Read the options of a target; ValueError for what is wrong."""
    unknown = sorted(options.keys() - set(_OPTIONS))
    if unknown:
        expected = " and ".join(_OPTIONS)
        message = f"target: local: has no option {unknown[0]!r}; it has {expected}"
        raise ValueError(message)
    device = options.get("device", "auto")
    if device not in _DEVICES:
        message = f"target: device: expected one of {', '.join(_DEVICES)}, got {device!r}"
        raise ValueError(message)
    threads = options.get("threads", str(available_cpus()))
    if not (threads.isascii() and threads.isdecimal() and int(threads) > 0):
        message = f"target: threads: expected a whole number greater than 0, got {threads!r}"
        raise ValueError(message)
    return device, int(threads)


def _can_share() -> bool:
    """Return whether this system can share memory with a caller."""
    from losswire.server.memory.regions import memory  # noqa: PLC0415 - imports torch

    try:
        if memory.HAVE_REGIONS:
            memory.check_sharing()
    except OSError:
        return False
    return memory.HAVE_REGIONS


def _forget_in_child() -> None:
    """Start anew in a forked child: threads and connections are the parent's."""
    global _lock, _inherited_started  # noqa: PLW0603 - the state of the process
    _lock = threading.Lock()
    _inherited_started = _inherited_started or any(each.is_ready for each in _servers.values())
    _servers.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_in_child)
