"""The compute worker: one thread that owns torch and computes the jobs in its queue."""

import asyncio
import logging
import queue
import threading
import time
from collections.abc import Awaitable, Callable, Generator, Sequence
from typing import Any, TypeVar

import numpy as np
import torch

from losswire.server import thresholds
from losswire.server.compute.devices.cuda import is_lost
from losswire.server.compute.dispatch import compute, compute_together
from losswire.server.compute.paths import is_small, native_form
from losswire.server.compute.stacking.stacks import stacks
from losswire.server.compute.work import Work
from losswire.server.errors import DeviceLostError, ExpiredError, OverloadedError
from losswire.server.memory.allocator import return_freed_memory
from losswire.server.metrics.recorder import Recorder
from losswire.server.pipeline.admit import step_count
from losswire.server.pipeline.encode import Encoded
from losswire.server.pipeline.jobs import Job, Stack, Turns
from losswire.server.pipeline.priority import lower_priority
from losswire.server.pipeline.waiting import Probe, Task, Waiting, counting_encode, counting_task

_log = logging.getLogger(__name__)

Answer = Encoded | Exception
"""The result of one evaluation, or its error."""

ResultT = TypeVar("ResultT")


def _ignore() -> None:
    """Ignore the loss of the device."""


class _Computed:
    """Answers that are there already: awaiting them suspends nothing."""

    __slots__ = ("_answers",)

    def __init__(self, answers: list[Answer]) -> None:
        self._answers = answers

    def __await__(self) -> Generator[Any, None, list[Answer]]:
        return self._answers
        yield  # makes it a generator


class ComputeWorker:
    """Computes on one device; the event loop waits for it, or computes small evaluations itself."""

    def __init__(
        self, device: torch.device, threads: int, recorder: Recorder | None = None
    ) -> None:
        """Use a device, and on a CPU this many threads of torch; count for the recorder."""
        self.device = device
        self.threads = threads
        self.device_lost = False
        """Whether the device failed for good; then nothing more is computed."""
        self._on_lost: Callable[[], object] = _ignore
        self._recorder = recorder
        self._encode = counting_encode(recorder)
        self.waiting = Waiting()
        """The jobs in the queue."""
        self._submitted = 0
        self._finished = 0
        """The number of parts that were submitted to the thread, and that it has finished."""
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._turns = Turns()
        """What was taken from the queue and not computed yet."""
        self._current: tuple[Job, int] | None = None
        """The part whose computation may be paused. Both belong to the thread."""
        self._thread = threading.Thread(target=self._run, name="losswire-worker", daemon=True)

    def start(self, on_lost: Callable[[], object] = _ignore) -> None:
        """Start the thread. `on_lost` is called, on any thread, when the device is lost."""
        self._on_lost = on_lost
        self._thread.start()

    def stop(self) -> None:
        """Finish the jobs in the queue and end the thread."""
        self._jobs.put(None)
        self._thread.join()

    @property
    def copies_inputs(self) -> bool:
        """Whether inputs are copied to a device with memory of its own."""
        return self.device.type != "cpu"

    @property
    def is_idle(self) -> bool:
        """Whether the queue is empty and the thread computes nothing."""
        return self._submitted == self._finished

    def is_inline(self, *, small: bool, writes_regions: bool) -> bool:
        """Return whether an evaluation is computed on the event loop, before queued ones."""
        # A caller who cancelled an evaluation may use the same destination in the next one, and
        # the gradient of the first must not overwrite that of the second.
        return small and not self.copies_inputs and (not writes_regions or self.is_idle)

    def submit(self, works: Sequence[Work], deadline: float) -> Awaitable[list[Answer]]:
        """Compute a few small evaluations now, or append them to the queue.

        They are computed in order, and a failing one does not affect the others. `deadline` is
        on the monotonic clock: an evaluation that has not begun by then, or when the future is
        cancelled, never begins.
        """
        if len(works) <= thresholds.MAX_INLINE_EVALUATIONS and all(
            self.is_inline(small=_is_small(each), writes_regions=bool(each.destinations))
            for each in works
        ):
            if time.monotonic() >= deadline:
                return _Computed([_expired() for _ in works])
            return _Computed([self._answer(work, 0) for work in works])
        return self._submit(list(works), deadline, is_brief=_are_brief(works))

    async def run(
        self, task: Callable[[int], ResultT], deadline: float, *, is_brief: bool = False
    ) -> ResultT:
        """Run a function on the worker's thread, with the nanoseconds that it waited.

        `is_brief` is that of `start_task`. Raises the errors of the function, and ExpiredError when
        it had not begun by the deadline.
        """
        return await self.answer_of(self.start_task(task, deadline, is_brief=is_brief))

    def start_task(
        self, task: Callable[[int], ResultT], deadline: float, *, is_brief: bool = False
    ) -> asyncio.Future[list[ResultT]]:
        """Queue a function for the worker's thread; `answer_of` awaits its result.

        A future that is cancelled before the function began prevents it from running. One that
        `is_brief` may run between two slices of a long evaluation.
        """
        return self._submit([task], deadline, is_brief=is_brief)

    async def answer_of(self, started: asyncio.Future[list[ResultT]]) -> ResultT:
        """Return the result of a queued function; raises its error."""
        [answer] = await started
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _submit(
        self, parts: list[Work | Task], deadline: float, *, is_brief: bool
    ) -> asyncio.Future[list[Any]]:
        future: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()
        job = Job(
            parts=parts,
            future=future,
            deadline=deadline,
            queued=time.perf_counter_ns(),
            is_brief=is_brief,
        )
        self.waiting.add(job, job.queued)

        def forget_cancelled(done: asyncio.Future[list[Any]]) -> None:
            if done.cancelled():
                job.parts.clear()
                self.waiting.remove(job)

        future.add_done_callback(forget_cancelled)
        self._submitted += len(parts)
        self._jobs.put(job)
        return future

    def _run(self) -> None:
        if not self.copies_inputs:
            lower_priority()
        torch.set_num_threads(self.threads)
        while self._turns or self._draw_next():
            self._settle(self._turns.next())
            if self._turns:
                self._let_pass()

    def _draw_next(self) -> bool:
        """Wait for a job and draw all that are in the queue; False: the thread ends."""
        job = self._next()
        if job is None:
            return False
        # No other reference to a job is kept, so that cancelling it frees its memory at once.
        oldest, *others = self._stacks([job, *self._waiting()])
        self._turns.begin_with(oldest)
        self._turns.add(others)
        return True

    def _let_pass(self) -> None:
        """Compute brief parts before others that are older."""
        if not self._jobs.empty():
            self._turns.add(self._stacks(self._waiting()))
        while entries := self._turns.next_brief():
            began = time.perf_counter_ns()
            self._settle(entries, is_pausable=False)
            self._turns.passed(time.perf_counter_ns() - began)

    def pause(self) -> None:
        """Compute waiting brief evaluations, on the thread, between two slices of a long one.

        Raises ExpiredError when nobody waits for its result any more.
        """
        if self._current is None:
            return
        job, position = self._current
        if job.part(position) is None or time.monotonic() >= job.deadline:
            raise _expired()
        # On a GPU, evaluations take less long, and the copies of two must not overlap.
        if self.copies_inputs or (self._jobs.empty() and not self._turns.brief_waits):
            return
        self._turns.end()
        threads = torch.get_num_threads()
        torch.set_num_threads(self.threads)
        try:
            # As if they were not called out of another evaluation.
            with torch.enable_grad(), np.errstate(all="warn"):
                self._let_pass()
        finally:
            torch.set_num_threads(threads)
        self._current = job, position
        self._turns.begin()

    def _next(self) -> Job | None:
        """Wait for a job; freed memory returns to the system when none comes for a while."""
        try:
            return self._jobs.get(timeout=thresholds.IDLE_SECONDS)
        except queue.Empty:
            return_freed_memory()
            return self._jobs.get()

    def _waiting(self) -> list[Job]:
        """Return the other jobs that are in the queue by now."""
        found: list[Job] = []
        while len(found) < thresholds.MAX_DRAWN_JOBS:
            try:
                job = self._jobs.get_nowait()
            except queue.Empty:
                break
            if job is None:
                self._jobs.put(None)
                break
            found.append(job)
        return found

    def _stacks(self, jobs: Sequence[Job]) -> list[Stack]:
        """Group all parts of some jobs, each group to be computed together."""
        entries = [(job, position) for job in jobs for position in range(len(job.answers))]
        works = [part if isinstance(part := job.part(i), Work) else None for job, i in entries]
        return [[entries[each] for each in stack] for stack in stacks(works, self.device.type)]

    def _settle(self, entries: Stack, *, is_pausable: bool = True) -> None:
        """Compute together the parts that were not cancelled and have not expired."""
        live = self._live(entries)
        self._current = _pausable(live) if is_pausable else None
        if is_pausable:
            self._turns.begin()
        now = time.perf_counter_ns()
        waited = [now - job.queued for job, _, _ in live]
        if self._recorder is not None:
            counted = sum(not isinstance(part, Probe) for _, _, part in live)
            if counted:
                self._recorder.batch(counted)
        works: list[Work] = []
        answers: list[Any] = []
        for (_, _, part), wait in zip(live, waited, strict=True):
            if isinstance(part, Work):
                works.append(part)
            else:
                answers.append(self._attempt(counting_task(self._recorder, part), wait))
        if works:
            answers = self._compute_together(works, waited)
        for (job, position, _), answer in zip(live, answers, strict=True):
            job.settle(position, answer)
        self._current = None
        self._finished += len(entries)
        if is_pausable:
            self._turns.end()

    def _live(self, entries: Stack) -> list[tuple[Job, int, Work | Task]]:
        """Return the parts that were not cancelled and have not expired; answers the latter."""
        live = []
        for job, position in entries:
            self.waiting.remove(job)
            part = job.part(position)
            if part is None:
                continue
            if time.monotonic() >= job.deadline:
                job.settle(position, _expired())
            else:
                live.append((job, position, part))
        return live

    def _compute_together(self, works: Sequence[Work], waited: Sequence[int]) -> list[Answer]:
        """Compute evaluations that differ in their elements only."""
        if len(works) > 1 and not self.device_lost:
            try:
                outcomes = compute_together(works, self.device)
                return [
                    self._encode(each, wait) for each, wait in zip(outcomes, waited, strict=True)
                ]
            except Exception as error:  # noqa: BLE001 (computed alone, the faulty one fails)
                _log.warning("evaluations failed together and are computed one by one")
                self._reported(error)
        return [self._answer(work, wait) for work, wait in zip(works, waited, strict=True)]

    def _answer(self, work: Work, waited: int) -> Answer:
        """Compute one evaluation."""

        def task(waited: int) -> Answer:
            return self._encode(compute(work, self.device, self.pause), waited)

        answer: Answer = self._attempt(task, waited)
        return answer

    def _attempt(self, task: Task, waited: int) -> Any:  # noqa: ANN401 (the task's own)
        """Run one function, unless the device is lost."""
        if self.device_lost:
            return DeviceLostError()
        try:
            return task(waited)
        except Exception as error:  # noqa: BLE001 (one task must not end the thread)
            return self._reported(error)

    def _reported(self, error: Exception) -> Exception:
        """Return the error to report; when the device is lost, calls `on_lost` once."""
        if not is_lost(error):
            return _translated(error)
        if not self.device_lost:
            self.device_lost = True
            _log.critical("the device is lost", exc_info=error)
            self._on_lost()
        return DeviceLostError()


def _pausable(live: Sequence[tuple[Job, int, Work | Task]]) -> tuple[Job, int] | None:
    """Return the part that may make room for others while it is computed; None: none may."""
    if len(live) != 1:
        return None
    [(job, position, part)] = live
    # The next of brief tasks that belong together must not be computed in its pauses.
    return (job, position) if isinstance(part, Work) or not job.is_brief else None


def _is_small(work: Work) -> bool:
    """Return whether an evaluation takes microseconds."""
    return native_form(work) is not None and is_small(work)


def _are_brief(works: Sequence[Work]) -> bool:
    """Return whether evaluations that were sent together may pass others."""
    return (
        len(works) <= thresholds.BRIEF_EVALUATIONS
        and sum([each.input_bytes for each in works]) <= thresholds.BRIEF_BYTES
        and all(map(is_brief, works))
    )


def is_brief(work: Work) -> bool:
    """Return whether an evaluation may be computed between two slices of another.

    Those with destinations keep their turns: a gradient must not be overwritten by an earlier one.
    """
    return (
        not work.destinations
        and work.input_bytes <= thresholds.BRIEF_BYTES
        and step_count(work) <= thresholds.BRIEF_STEPS
    )


def _expired() -> ExpiredError:
    return ExpiredError("the deadline passed before the evaluation was computed")


def _translated(error: Exception) -> Exception:
    """Return OverloadedError for lack of memory; torch has no class for it on a CPU."""
    out_of_memory = isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    )
    if out_of_memory:
        return OverloadedError("the server ran out of memory", thresholds.MEMORY_RETRY_MS)
    return error
