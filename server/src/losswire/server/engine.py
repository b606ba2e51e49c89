"""The engine: one thread that owns torch and computes what waits for it."""

import asyncio
import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import torch

from losswire.server.allocator import give_back
from losswire.server.compute import compute
from losswire.server.encode import encode
from losswire.server.errors import ExpiredError, OverloadedError
from losswire.server.work import Work
from losswire.v1 import evaluation_pb2

Answer = evaluation_pb2.EvaluationResult | Exception
"""What comes of one evaluation."""

ResultT = TypeVar("ResultT")

_RETRY_AFTER_MS = 200
_IDLE_SECONDS = 10.0

_SINGLE_THREADED_BYTES = 64 << 10
"""Below this size of all inputs one thread computes. torch splits some operations over its
threads however small they are, and then waits until each of them gets a processor, which
on a busy machine takes a hundred times as long as the work."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    """Tasks that came together and are answered together."""

    tasks: list[Callable[[int], Any]]
    """Each takes how many nanoseconds it waited. Emptied when the job is cancelled, so
    that their memory is free at once."""
    future: asyncio.Future[list[Any]]
    deadline: float
    """On the monotonic clock."""
    queued: int
    """When it came, on the performance counter."""


class Engine:
    """Computes on one device; the event loop only ever waits for it."""

    def __init__(self, device: torch.device, threads: int) -> None:
        """Take the device and how many CPU threads torch may use."""
        self.device = device
        self.threads = threads
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="losswire-engine", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Finish what waits and end the thread."""
        self._jobs.put(None)
        self._thread.join()

    async def evaluate(self, works: Sequence[Work], deadline: float) -> list[Answer]:
        """Compute some evaluations, in order; a failing one does not touch the others.

        `deadline` is on the monotonic clock: what has not begun by then never
        does. When the awaiting task is cancelled, neither does what still waits.
        """
        return await self._do([partial(self._evaluate, work) for work in works], deadline)

    async def run(self, task: Callable[[int], ResultT], deadline: float) -> ResultT:
        """Do one thing on the engine's thread; it takes how many nanoseconds it waited.

        Raises what the task raises, and ExpiredError when it had not begun by the deadline.
        """
        [answer] = await self._do([task], deadline)
        if isinstance(answer, Exception):
            raise answer
        result: ResultT = answer
        return result

    async def _do(self, tasks: list[Callable[[int], Any]], deadline: float) -> list[Any]:
        future: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()
        job = _Job(tasks=tasks, future=future, deadline=deadline, queued=time.perf_counter_ns())
        future.add_done_callback(lambda done: job.tasks.clear() if done.cancelled() else None)
        self._jobs.put(job)
        return await future

    def _run(self) -> None:
        torch.set_num_threads(self.threads)
        while (job := self._next()) is not None:
            if job.future.cancelled():
                continue
            answers = [_answer(task, job) for task in job.tasks]
            # While nothing else comes, this job would keep its inputs alive.
            job.tasks.clear()
            job.future.get_loop().call_soon_threadsafe(_resolve, job.future, answers)

    def _next(self) -> _Job | None:
        """Wait for a job; give memory back to the system when none comes for a while."""
        try:
            return self._jobs.get(timeout=_IDLE_SECONDS)
        except queue.Empty:
            give_back()
            return self._jobs.get()

    def _evaluate(self, work: Work, waited: int) -> evaluation_pb2.EvaluationResult:
        small = sum(array.nbytes for array in work.inputs.values()) < _SINGLE_THREADED_BYTES
        if small:
            torch.set_num_threads(1)
        try:
            return encode(compute(work, self.device), waited)
        finally:
            if small:
                torch.set_num_threads(self.threads)


def _answer(task: Callable[[int], Any], job: _Job) -> Any:  # noqa: ANN401 (the task's own)
    if time.monotonic() >= job.deadline:
        return ExpiredError("the deadline passed before the evaluation was computed")
    try:
        return task(time.perf_counter_ns() - job.queued)
    except Exception as error:  # noqa: BLE001 (one task must not end the engine)
        if _is_out_of_memory(error):
            return OverloadedError("the server ran out of memory", _RETRY_AFTER_MS)
        return error


def _resolve(future: asyncio.Future[list[Any]], answers: list[Any]) -> None:
    if not future.cancelled():
        future.set_result(answers)


def _is_out_of_memory(error: Exception) -> bool:
    """Tell out-of-memory from other errors; torch has no class for it on a CPU."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    )
