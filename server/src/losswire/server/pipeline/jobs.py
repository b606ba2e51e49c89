"""The jobs of the compute worker, and whose turn it is."""

import asyncio
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from losswire.server import thresholds
from losswire.server.compute.work import Work
from losswire.server.pipeline.waiting import Task


@dataclass(slots=True, kw_only=True, eq=False)
class Job:
    """Evaluations or tasks that arrived together and are answered together."""

    parts: list[Work | Task]
    """Cleared when the job is cancelled, which frees their memory at once."""
    future: asyncio.Future[list[Any]]
    deadline: float
    """On the monotonic clock."""
    queued: int
    """When it arrived, on the performance counter."""
    is_brief: bool = False
    """Whether all parts take a moment only and may be computed before others."""
    answers: list[Any] = field(init=False)
    _missing: int = field(init=False)
    """The number of answers that are still missing."""

    def __post_init__(self) -> None:
        self._missing = len(self.parts)
        self.answers = [None] * self._missing

    def part(self, position: int) -> Work | Task | None:
        """Return a part; None after a cancellation, which comes on another thread at any moment."""
        try:
            return self.parts[position]
        except IndexError:
            return None

    def settle(self, position: int, answer: Any) -> None:  # noqa: ANN401 (a task's own)
        """Store an answer; the last one resolves the future."""
        self.answers[position] = answer
        self._missing -= 1
        if not self._missing:
            # Until the next job comes, this one would keep its inputs alive.
            self.parts.clear()
            self.future.get_loop().call_soon_threadsafe(_resolve, self.future, self.answers)


Stack = list[tuple[Job, int]]
"""Parts that are computed together, each with its position in its job."""


class Turns:
    """What was taken from the queue and is not computed yet. Belongs to the worker's thread.

    Each keeps its turn by its age, but brief ones may pass the others: in one go for some time, and
    beyond that for no more time than the others take. Neither can hold up the other for ever.
    """

    def __init__(self) -> None:
        """Begin without any."""
        self._long: deque[Stack] = deque()
        self._brief: deque[Stack] = deque()
        self._lead = self._most_lead = round(thresholds.PASSING_SECONDS * 1e9)
        """The nanoseconds that brief ones may take before others."""
        self._began = 0
        """When a long one began or went on, on the performance counter."""

    def __bool__(self) -> bool:
        """Return whether there is any."""
        return bool(self._long or self._brief)

    @property
    def brief_waits(self) -> bool:
        """Whether a brief one waits."""
        return bool(self._brief)

    def begin_with(self, oldest: Stack) -> None:
        """Append the oldest one, when there are no others: nobody passes it."""
        self._long.append(oldest)

    def add(self, stacks: Iterable[Stack]) -> None:
        """Append some, the oldest first."""
        for each in stacks:
            is_brief = all(job.is_brief for job, _ in each)
            (self._brief if is_brief else self._long).append(each)

    def next(self) -> Stack:
        """Remove and return the next one."""
        return (self._long or self._brief).popleft()

    def begin(self) -> None:
        """Note that a long one begins or goes on."""
        self._began = time.perf_counter_ns()

    def end(self) -> None:
        """Note that a long one ends or stops for a moment."""
        took = time.perf_counter_ns() - self._began
        self._lead = min(self._lead + took, self._most_lead)

    def next_brief(self) -> Stack | None:
        """Remove and return a brief one that may pass; None: there is none, or others go on."""
        return self._brief.popleft() if self._brief and self._lead > 0 else None

    def passed(self, nanoseconds: int) -> None:
        """Note how long one took that passed."""
        self._lead -= nanoseconds


def _resolve(future: asyncio.Future[list[Any]], answers: list[Any]) -> None:
    if not future.cancelled():
        future.set_result(answers)
