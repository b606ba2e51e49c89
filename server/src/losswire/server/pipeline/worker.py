"""The engine: one thread that owns torch and computes what waits for it."""

import asyncio
import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

import torch

from losswire.server.compute.devices.cuda import is_lost
from losswire.server.compute.devices.stacking.stacks import stacks
from losswire.server.compute.dispatch import compute, compute_together
from losswire.server.compute.paths import is_small, native_form
from losswire.server.compute.work import Work
from losswire.server.errors import DeviceLostError, ExpiredError, OverloadedError
from losswire.server.memory.allocator import give_back
from losswire.server.pipeline.encode import Encoded, encode_apart

_log = logging.getLogger(__name__)

Answer = Encoded | Exception
"""What comes of one evaluation."""

ResultT = TypeVar("ResultT")

Task = Callable[[int], Any]
"""Does something on the engine's thread; takes how many nanoseconds it waited."""

_RETRY_AFTER_MS: Final = 200
_IDLE_SECONDS: Final = 10.0

_FEW: Final = 8
"""Up to so many small evaluations of one call, computing them takes about as long as it
took to check them, and less than to hand them to another thread and to wait for it."""

_MOST_DRAWN: Final = 256
"""How many jobs that wait are looked at together."""


@dataclass(slots=True, kw_only=True, eq=False)
class _Job:
    """What came together and is answered together."""

    parts: list[Work | Task]
    """Emptied when the job is cancelled, so that their memory is free at once."""
    future: asyncio.Future[list[Any]]
    deadline: float
    """On the monotonic clock."""
    queued: int
    """When it came, on the performance counter."""
    answers: list[Any] = field(init=False)
    _missing: int = field(init=False)
    """How many answers are not there yet."""

    def __post_init__(self) -> None:
        self._missing = len(self.parts)
        self.answers = [None] * self._missing

    def part(self, position: int) -> Work | Task | None:
        """Give a part; None when the job was cancelled, by another thread, at whatever moment."""
        try:
            return self.parts[position]
        except IndexError:
            return None

    def settle(self, position: int, answer: Any) -> None:  # noqa: ANN401 (a task's own)
        """Note an answer, and give all to whoever waits when it is the last."""
        self.answers[position] = answer
        self._missing -= 1
        if not self._missing:
            # While nothing else comes, this job would keep its inputs alive.
            self.parts.clear()
            self.future.get_loop().call_soon_threadsafe(_resolve, self.future, self.answers)


def _nobody() -> None:
    """Hear that the device is lost, where nobody wants to know."""


class ComputeWorker:
    """Computes on one device; the event loop only ever waits for it, or computes what is small."""

    def __init__(self, device: torch.device, threads: int) -> None:
        """Take the device and how many CPU threads torch may use."""
        self.device = device
        self.threads = threads
        self.device_lost = False
        """Whether the device does not compute any more. Then nothing is tried there."""
        self._on_lost: Callable[[], object] = _nobody
        self._given = 0
        self._finished = 0
        """How many jobs the thread was given, and how many of them it has left behind."""
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="losswire-engine", daemon=True)

    def start(self, on_lost: Callable[[], object] = _nobody) -> None:
        """Start the thread; tells, from whatever thread, when the device is lost."""
        self._on_lost = on_lost
        self._thread.start()

    def stop(self) -> None:
        """Finish what waits and end the thread."""
        self._jobs.put(None)
        self._thread.join()

    @property
    def is_idle(self) -> bool:
        """Whether nothing waits for the thread and it computes nothing."""
        return self._given == self._finished

    async def evaluate(self, works: Sequence[Work], deadline: float) -> list[Answer]:
        """Compute some evaluations, in order; a failing one does not touch the others.

        `deadline` is on the monotonic clock: what has not begun by then never
        does. When the awaiting task is cancelled, neither does what still waits.
        """
        if len(works) <= _FEW and self.device.type == "cpu" and all(map(self._is_at_once, works)):
            if time.monotonic() >= deadline:
                return [_expired() for _ in works]
            return [self._answer(work, 0) for work in works]
        return await self._give(list(works), deadline)

    async def run(self, task: Callable[[int], ResultT], deadline: float) -> ResultT:
        """Do one thing on the engine's thread; it takes how many nanoseconds it waited.

        Raises what the task raises, and ExpiredError when it had not begun by the deadline.
        """
        return await self.answer_of(self.start_task(task, deadline))

    def start_task(
        self, task: Callable[[int], ResultT], deadline: float
    ) -> asyncio.Future[list[ResultT]]:
        """Have something done on the engine's thread, after what was started before.

        `answer_of` awaits it. When it is cancelled before it began, it never does.
        """
        return self._give([task], deadline)

    async def answer_of(self, started: asyncio.Future[list[ResultT]]) -> ResultT:
        """Wait for a task; gives what it gave and raises what it raised."""
        [answer] = await started
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _give(self, parts: list[Work | Task], deadline: float) -> asyncio.Future[list[Any]]:
        future: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()
        job = _Job(parts=parts, future=future, deadline=deadline, queued=time.perf_counter_ns())
        future.add_done_callback(lambda done: job.parts.clear() if done.cancelled() else None)
        self._given += 1
        self._jobs.put(job)
        return future

    def _run(self) -> None:
        torch.set_num_threads(self.threads)
        while (job := self._next()) is not None:
            jobs = [job, *self._waiting()]
            # The last reference to a job is its own: what is cancelled is free at once.
            del job
            for entries in self._stacks(jobs):
                self._settle(entries)
            self._finished += len(jobs)
            del jobs, entries

    def _next(self) -> _Job | None:
        """Wait for a job; give memory back to the system when none comes for a while."""
        try:
            return self._jobs.get(timeout=_IDLE_SECONDS)
        except queue.Empty:
            give_back()
            return self._jobs.get()

    def _is_at_once(self, work: Work) -> bool:
        """Tell whether an evaluation is computed where it arrives, before those that wait."""
        # A caller who gave up an evaluation may name the same memory in the next one, and must
        # not find the gradient of the first written over that of the second.
        return _takes_a_moment(work) and (not work.destinations or self.is_idle)

    def _waiting(self) -> list[_Job]:
        """Take what else waits by now."""
        found: list[_Job] = []
        while len(found) < _MOST_DRAWN:
            try:
                job = self._jobs.get_nowait()
            except queue.Empty:
                break
            if job is None:
                self._jobs.put(None)
                break
            found.append(job)
        return found

    def _stacks(self, jobs: Sequence[_Job]) -> list[list[tuple[_Job, int]]]:
        """Cut all parts of some jobs into what is computed together."""
        entries = [(job, position) for job in jobs for position in range(len(job.answers))]
        works = [part if isinstance(part := job.part(i), Work) else None for job, i in entries]
        return [[entries[each] for each in stack] for stack in stacks(works, self.device.type)]

    def _settle(self, entries: Sequence[tuple[_Job, int]]) -> None:
        """Compute together what was not cancelled and has not expired meanwhile."""
        live = []
        for job, position in entries:
            part = job.part(position)
            if part is None:
                continue
            if time.monotonic() >= job.deadline:
                job.settle(position, _expired())
            else:
                live.append((job, position, part))
        now = time.perf_counter_ns()
        waited = [now - job.queued for job, _, _ in live]
        works: list[Work] = []
        answers: list[Any] = []
        for (_, _, part), wait in zip(live, waited, strict=True):
            if isinstance(part, Work):
                works.append(part)
            else:
                answers.append(self._attempt(part, wait))
        if works:
            answers = self._handlers(works, waited)
        for (job, position, _), answer in zip(live, answers, strict=True):
            job.settle(position, answer)

    def _handlers(self, works: Sequence[Work], waited: Sequence[int]) -> list[Answer]:
        """Compute works of one form."""
        if len(works) > 1 and not self.device_lost:
            try:
                outcomes = compute_together(works, self.device)
                return [
                    encode_apart(each, wait) for each, wait in zip(outcomes, waited, strict=True)
                ]
            except Exception as error:  # noqa: BLE001 (each by itself tells whose error it is)
                _log.warning("evaluations failed together and are computed one by one")
                self._meaning(error)
        return [self._answer(work, wait) for work, wait in zip(works, waited, strict=True)]

    def _answer(self, work: Work, waited: int) -> Answer:
        """Compute one evaluation."""

        def task(waited: int) -> Answer:
            return encode_apart(compute(work, self.device), waited)

        answer: Answer = self._attempt(task, waited)
        return answer

    def _attempt(self, task: Task, waited: int) -> Any:  # noqa: ANN401 (the task's own)
        """Do one thing, if anything can be done at all."""
        if self.device_lost:
            return DeviceLostError()
        try:
            return task(waited)
        except Exception as error:  # noqa: BLE001 (one task must not end the engine)
            return self._meaning(error)

    def _meaning(self, error: Exception) -> Exception:
        """Give what an error is to the caller; the end of the device is noted and told."""
        if not is_lost(error):
            return _meaning(error)
        if not self.device_lost:
            self.device_lost = True
            _log.critical("the device is lost", exc_info=error)
            self._on_lost()
        return DeviceLostError()


def _takes_a_moment(work: Work) -> bool:
    return native_form(work) is not None and is_small(work)


def _expired() -> ExpiredError:
    return ExpiredError("the deadline passed before the evaluation was computed")


def _meaning(error: Exception) -> Exception:
    """Tell out-of-memory from other errors; torch has no class for it on a CPU."""
    out_of_memory = isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    )
    if out_of_memory:
        return OverloadedError("the server ran out of memory", _RETRY_AFTER_MS)
    return error


def _resolve(future: asyncio.Future[list[Any]], answers: list[Any]) -> None:
    if not future.cancelled():
        future.set_result(answers)
