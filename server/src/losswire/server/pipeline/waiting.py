"""The jobs that wait for the worker, and since when; and what is counted once they do not."""

import time
from collections.abc import Callable
from typing import Any

from losswire.server.compute.dispatch import Outcome
from losswire.server.metrics.recorder import Recorder
from losswire.server.pipeline.encode import Encoded, encode_detached

Encode = Callable[[Outcome, int], Encoded]
"""Encodes an outcome; the number is how long it waited, in nanoseconds."""

Task = Callable[[int], Any]
"""A function to run on the worker's thread; its argument is the nanoseconds it waited."""


class Probe:
    """A task that nobody's call needs: it is not counted."""

    def __init__(self, task: Task) -> None:
        """Wrap a task."""
        self._task = task

    def __call__(self, waited: int) -> Any:  # noqa: ANN401 (the task's own)
        """Run it."""
        return self._task(waited)


class Waiting:
    """When each job that waits arrived. For any thread."""

    def __init__(self) -> None:
        """Begin without any."""
        self._since: dict[int, int] = {}
        """Nanoseconds on the performance counter, by the job's id; no reference to the job."""

    def __len__(self) -> int:
        """Return how many jobs wait."""
        return len(self._since)

    @property
    def seconds(self) -> float:
        """How long the oldest job has been waiting; 0 when none waits."""
        # A copy, made at once: another thread adds or removes jobs at any moment.
        arrived = min(tuple(self._since.values()), default=None)
        return 0.0 if arrived is None else max(time.perf_counter_ns() - arrived, 0) / 1e9

    def add(self, job: object, arrived: int) -> None:
        """Add a job that was queued."""
        self._since[id(job)] = arrived

    def remove(self, job: object) -> None:
        """Remove a job that begins or was cancelled; nothing when it is not there."""
        self._since.pop(id(job), None)


def counting_encode(recorder: Recorder | None) -> Encode:
    """Return what encodes outcomes, and counts their stages where somebody reads the counts."""
    if recorder is None:
        return encode_detached
    timed = recorder.timed("encode", encode_detached)

    def encode(outcome: Outcome, waited: int) -> Encoded:
        recorder.stage("queue", waited)
        recorder.stage("compute", outcome.compute_nanoseconds)
        return timed(outcome, waited)

    return encode


def counting_task(recorder: Recorder | None, task: Task) -> Task:
    """Return a task that is counted where somebody reads the counts: all of it as computing."""
    if recorder is None or isinstance(task, Probe):
        return task
    timed = recorder.timed("compute", task)

    def run(waited: int) -> Any:  # noqa: ANN401 (the task's own)
        recorder.stage("queue", waited)
        return timed(waited)

    return run
