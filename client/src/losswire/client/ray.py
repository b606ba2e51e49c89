"""Summaries over the files of a data set by Ray, each file a task. Needs `losswire[ray]`.

summary = losswire.client.ray.summarize("cross_entropy", "s3://bucket/run-7/", slices=["country"])
"""

import importlib
from collections.abc import Mapping, Sequence
from typing import Any, Final, Unpack, cast

from losswire.client._calls.summarize.request import Candidates
from losswire.client._data.partitions import Partition
from losswire.client._distributed.drive import PartLostError, drive
from losswire.client._distributed.fields import PartFields, job_of
from losswire.client._distributed.job import IncompleteError, Job
from losswire.client._distributed.progress import (
    DistributedProgress,
    ProgressInput,
    ProgressReport,
)
from losswire.client._distributed.states import merge_in_order
from losswire.client._distributed.tree import FAN_IN
from losswire.client._distributed.work import evaluate_partition
from losswire.client._summaries.comparison import Comparison
from losswire.client._summaries.summary import Summary
from losswire.wire import OptionScalar

__all__ = ["DistributedProgress", "IncompleteError", "RayFields", "compare", "summarize"]

_TASKS_PER_CPU: Final = 4
"""How many tasks are under way for each CPU, so that none waits for the next one."""


class RayFields(PartFields, total=False):
    """The arguments of `summarize` and `compare` beside the loss, the data and the options."""

    max_in_flight: int | None
    """How many tasks are under way, at least 1. None: 4 for each CPU of the cluster."""
    max_retries: int
    """How often a task is started again whose process was lost. Default 3."""
    cpus_per_task: int
    """The CPUs that a task takes, and its threads. Default 1."""
    progress: ProgressInput
    """True, the default: a bar on stderr, if that is a terminal; a callable gets a
    `DistributedProgress` after each task; None: nothing."""


def summarize(
    loss: str,
    data: Any,
    options: Mapping[str, OptionScalar] | None = None,
    **fields: Unpack[RayFields],
) -> Summary:
    """Summarize a loss over the files of a data set, by the tasks of a Ray cluster.

    `data` is made of files that all machines can read: paths, folders, patterns, URIs such as
    `s3://`, or a pyarrow dataset. Each file is a task, or, with `rows_per_partition`, as many row
    groups of a Parquet file as have at least so many rows. Ray starts on this machine unless the
    caller has called `ray.init`.

    The other arguments are those of `Client.summarize` and those that `RayFields` describes. A
    task evaluates in its own process by default, which needs losswire-server on all machines.

    States are merged in the order of the partitions' keys, `fan_in` at once, so the bits of the
    result depend neither on the order in which tasks end nor on processes that were lost: they are
    those of `losswire.client.distributed.merge` over the same partitions.

    Raises as `Client.summarize` does, for the first task that fails; TypeError for data that is not
    made of files; ModuleNotFoundError without Ray; IncompleteError where partitions are missing
    because processes were lost more than `max_retries` times: it has the summary of the others, to
    resume from.

    Example:
        >>> columns = {"input": "new", "target": "label"}
        >>> summary = losswire_ray.summarize("cross_entropy", folder, columns=columns)
        >>> len(summary.included), summary.rows
        (64, 39712)
    """
    return cast("Summary", _run(loss, data, options, candidates=None, fields=fields))


def compare(
    loss: str,
    data: Any,
    options: Mapping[str, OptionScalar] | None = None,
    *,
    candidates: Candidates,
    **fields: Unpack[RayFields],
) -> Comparison:
    """Compare candidates over the files of a data set, by the tasks of a Ray cluster.

    `candidates` are those of `Client.compare`; all else is as in `summarize`.

    Example:
        >>> candidates = {"new": {"input": "new"}, "old": {"input": "old"}}
        >>> comparison = losswire_ray.compare(
        ...     "cross_entropy", folder, candidates=candidates, columns={"target": "label"}
        ... )
        >>> comparison.candidates
        ('new', 'old')
    """
    return cast("Comparison", _run(loss, data, options, candidates=candidates, fields=fields))


def _run(
    loss: str,
    data: Any,
    options: Mapping[str, OptionScalar] | None,
    *,
    candidates: Candidates | None,
    fields: RayFields,
) -> Summary | Comparison:
    rest: dict[str, Any] = {**fields}
    cpus = _at_least("cpus_per_task", rest.pop("cpus_per_task", 1), 1)
    retries = _at_least("max_retries", rest.pop("max_retries", 3), 0)
    in_flight = rest.pop("max_in_flight", None)
    progress: ProgressInput = rest.pop("progress", True)
    job = job_of(loss, data, options, candidates=candidates, fields=rest, threads=cpus)
    done = sum(part.state is not None for part in job.parts)
    report = ProgressReport(progress, len(job.parts), done)
    ray = _ray()
    if not ray.is_initialized():
        ray.init(log_to_driver=False)
    if in_flight is None:
        in_flight = _TASKS_PER_CPU * max(1, int(ray.cluster_resources().get("CPU", 1)) // cpus)
    return drive(
        _RayEngine(ray, job, cpus=cpus, max_retries=retries),
        job,
        fan_in=rest.get("fan_in", FAN_IN),
        max_in_flight=_at_least("max_in_flight", in_flight, 1),
        report=report,
    )


def _at_least(name: str, value: Any, low: int) -> int:
    if not isinstance(value, int) or value < low:
        raise ValueError(f"{name}: expected an integer of at least {low}, got {value!r}")
    return value


def _ray() -> Any:
    try:
        return importlib.import_module("ray")
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "losswire.client.ray needs Ray: pip install 'losswire[ray]'"
        ) from error


class _RayEngine:
    """Evaluates parts as tasks of Ray; handles are references to objects in its store."""

    def __init__(self, ray: Any, job: Job, *, cpus: int, max_retries: int) -> None:
        self._ray = ray
        lost = ray.exceptions
        self._lost = (
            lost.WorkerCrashedError,
            lost.NodeDiedError,
            lost.OutOfMemoryError,
            lost.ObjectLostError,
            lost.LocalRayletDiedError,
        )
        # Once for all tasks: it has the arrays that they share.
        self._plan, self._folder = ray.put(job.plan), job.folder
        self._evaluate = ray.remote(evaluate_partition).options(
            num_returns=2, num_cpus=cpus, max_retries=max_retries
        )
        # With the CPUs of the others, so that it gets one of their processes.
        self._merge = ray.remote(_merge).options(num_cpus=cpus, max_retries=max_retries)

    def start(self, partition: Partition) -> tuple[Any, Any]:
        """Begin to evaluate a partition; returns the references of its state and its rows."""
        state, rows = self._evaluate.remote(partition, self._plan, self._folder)
        return state, rows

    def put(self, state: bytes) -> Any:
        """Return the reference of a state."""
        return self._ray.put(state)

    def wait(self, ends: Sequence[Any]) -> Sequence[Any]:
        """Wait until a task has ended; returns the references of those that have."""
        first, _ = self._ray.wait(list(ends), num_returns=1)
        ended, _ = self._ray.wait(list(ends), num_returns=len(ends), timeout=0)
        found: Sequence[Any] = ended or first
        return found

    def rows(self, end: Any) -> int:
        """Return how many rows a task had; PartLostError and the errors of the evaluation."""
        try:
            rows: int = self._ray.get(end)
        except self._lost as error:
            raise PartLostError(str(error)) from error
        except self._ray.exceptions.RayTaskError as error:
            raise error.cause from None
        return rows

    def merge(self, states: Sequence[Any]) -> Any:
        """Begin to merge states in order."""
        return self._merge.remote(*states)

    def result(self, state: Any) -> bytes:
        """Wait for a state; raises the errors of merging."""
        try:
            found: bytes = self._ray.get(state)
        except self._ray.exceptions.RayTaskError as error:
            raise error.cause from None
        return found

    def cancel(self, ends: Sequence[Any]) -> None:
        """Stop tasks; those that have ended are left."""
        for each in ends:
            self._ray.cancel(each, force=False)


def _merge(*states: bytes) -> bytes:
    return merge_in_order(states)
