"""The arguments that all engines have in common."""

import os
from collections.abc import Iterable, Mapping
from typing import Any, Final, cast

from losswire.client._calls.summarize.request import Candidates, RowFields
from losswire.client._distributed.job import Job
from losswire.client._distributed.plan import Plan
from losswire.client._summaries.comparison import Comparison
from losswire.client._summaries.summary import Summary
from losswire.wire import OptionScalar


class PartFields(RowFields, total=False):
    """What may be said about the parts of an evaluation, beside all that is said about its rows."""

    target: str
    """Where a part is evaluated, as in `Client`. Default `local:`, in the process that has it."""
    timeout: float | None
    """The seconds without progress of one part. None: the client's default."""
    rows_per_partition: int | None
    """Row groups of Parquet files with at least this many rows are a part. None: each file is."""
    fan_in: int
    """How many states are merged at once, at least 2. Default 16."""
    resume_from: Iterable[Summary | Comparison | bytes]
    """States of whole parts, which are not evaluated again."""
    state_dir: str | os.PathLike[str] | None
    """A folder that all machines share, in which the states of parts are kept. None: nowhere."""


_LOCAL: Final = "local:"
_JOB_FIELDS: Final = ("rows_per_partition", "resume_from", "state_dir")
_PLAN_FIELDS: Final = (*RowFields.__annotations__, "timeout")


def job_of(
    loss: str,
    data: Any,
    options: Mapping[str, OptionScalar] | None,
    *,
    candidates: Candidates | None,
    fields: Mapping[str, Any],
    threads: int,
) -> Job:
    """Return the job of some arguments; a part that is evaluated in its process has some threads.

    Raises TypeError and ValueError with the argument's name.
    """
    unknown = sorted(fields.keys() - {*PartFields.__annotations__})
    if unknown:
        raise TypeError(f"{unknown[0]}: there is no such argument")
    target = fields.get("target", _LOCAL)
    plan = Plan.of(
        loss,
        options,
        candidates=candidates,
        target=f"{_LOCAL}?threads={threads}" if target == _LOCAL else target,
        **cast("Any", {name: fields[name] for name in _PLAN_FIELDS if name in fields}),
    )
    return Job(plan, data, **{name: fields[name] for name in _JOB_FIELDS if name in fields})
