"""Summaries over the files of a data set by Spark, each file a task. Needs `losswire[spark]`.

summary = losswire.client.spark.summarize(spark, "cross_entropy", "s3://bucket/run-7/")
"""

import importlib
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Final, Unpack, cast

from losswire.client._calls.summarize.request import Candidates
from losswire.client._distributed.fields import PartFields, job_of
from losswire.client._distributed.job import IncompleteError, Part
from losswire.client._distributed.plan import Plan
from losswire.client._distributed.states import StateFolder, merge_in_order
from losswire.client._distributed.tree import FAN_IN, check_fan_in
from losswire.client._distributed.work import evaluate_partition
from losswire.client._summaries.comparison import Comparison
from losswire.client._summaries.summary import Summary
from losswire.summaries.columns.arrow import pyarrow
from losswire.wire import OptionScalar

__all__ = ["IncompleteError", "PartFields", "compare", "summarize"]

_SCHEMA: Final = "part long, state binary, empty array<long>"
"""The number of a part or group, its state, and the numbers of parts that have no rows."""


def summarize(
    spark: Any,
    loss: str,
    data: Any,
    options: Mapping[str, OptionScalar] | None = None,
    **fields: Unpack[PartFields],
) -> Summary:
    """Summarize a loss over the files of a data set, by the tasks of a Spark session.

    `spark` is a `pyspark.sql.SparkSession`; its workers need the packages of this process
    (`PYSPARK_PYTHON` says by which Python they run, before the session is made). `data` is made of
    files that all machines can read: paths, folders, patterns, URIs such as `s3://`, or a pyarrow
    dataset. Each file is a task, or, with `rows_per_partition`, as many row groups of a Parquet
    file as have at least so many rows.

    The other arguments are those of `Client.summarize` and those that `PartFields` describes. A
    task evaluates in its own process by default, which needs losswire-server on all machines, with
    as many threads as `spark.task.cpus` says.

    States are merged in the order of the partitions' keys, `fan_in` at once, so the bits of the
    result depend neither on the order in which tasks end nor on tasks that were repeated: they are
    those of `losswire.client.distributed.merge` over the same partitions.

    Raises what Spark raises when a task has failed as often as `spark.task.maxFailures` allows (a
    master `local[N]` allows no failure at all, `local[N,4]` does); TypeError for data that is not
    made of files; ModuleNotFoundError without pyspark.

    Example:
        >>> columns = {"input": "new", "target": "label"}
        >>> summary = losswire_spark.summarize(spark, "cross_entropy", files[:2], columns=columns)
        >>> len(summary.included), summary.rows
        (2, 807)
    """
    return cast("Summary", _run(spark, loss, data, options, candidates=None, fields=fields))


def compare(
    spark: Any,
    loss: str,
    data: Any,
    options: Mapping[str, OptionScalar] | None = None,
    *,
    candidates: Candidates,
    **fields: Unpack[PartFields],
) -> Comparison:
    """Compare candidates over the files of a data set, by the tasks of a Spark session.

    `candidates` are those of `Client.compare`; all else is as in `summarize`.

    Example:
        >>> models = {"new": {"input": "new"}, "old": {"input": "old"}}
        >>> columns = {"target": "label"}
        >>> comparison = losswire_spark.compare(
        ...     spark, "cross_entropy", files[:2], candidates=models, columns=columns
        ... )
        >>> comparison.candidates
        ('new', 'old')
    """
    return cast(
        "Comparison", _run(spark, loss, data, options, candidates=candidates, fields=fields)
    )


def _run(
    spark: Any,
    loss: str,
    data: Any,
    options: Mapping[str, OptionScalar] | None,
    *,
    candidates: Candidates | None,
    fields: PartFields,
) -> Summary | Comparison:
    _check_installed()
    threads = int(spark.conf.get("spark.task.cpus", "1"))
    job = job_of(loss, data, options, candidates=candidates, fields=fields, threads=threads)
    count, fan_in = len(job.parts), check_fan_in(fields.get("fan_in", FAN_IN))
    if not count:
        return job.result(None)
    states = spark.range(0, count, 1, numPartitions=count).mapInArrow(
        partial(_evaluate, job.plan, job.folder, job.parts), _SCHEMA
    )
    # Each level is a stage of the one job that `collect` starts; the last group is merged here.
    size = count
    while size > fan_in:
        grouped = states.selectExpr(f"part div {fan_in} as group", "part", "state", "empty")
        states = grouped.groupBy("group").applyInArrow(_merge_group, _SCHEMA)
        size = -(-size // fan_in)
    found = sorted(states.collect(), key=lambda row: int(row["part"]))
    merged = _merged([bytes(row["state"]) for row in found])
    empty = {part for row in found for part in row["empty"]}
    return job.result(merged, [p for i in sorted(empty) if (p := job.parts[i].partition)])


def _check_installed() -> None:
    try:
        importlib.import_module("pyspark")
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "losswire.client.spark needs pyspark: pip install 'losswire[spark]'"
        ) from error


def _evaluate(
    plan: Plan, folder: StateFolder | None, parts: Sequence[Part], batches: Iterator[Any]
) -> Iterator[Any]:
    """Evaluate the parts with some numbers, on a worker; yields record batches of one row each."""
    for batch in batches:
        for number in batch.column(0).to_pylist():
            part = parts[number]
            if part.partition is None:
                yield _row(number, part.state, [])
            else:
                state, rows = evaluate_partition(part.partition, plan, folder)
                yield _row(number, state, [] if rows else [number])


def _merge_group(table: Any) -> Any:
    """Merge the states of one group in the order of their numbers, on a worker."""
    rows = sorted(table.to_pylist(), key=lambda row: int(row["part"]))
    merged = _merged([row["state"] for row in rows])
    empty = [part for row in rows for part in row["empty"]]
    return pyarrow().Table.from_batches([_row(rows[0]["group"], merged, empty)])


def _merged(states: Sequence[bytes]) -> bytes:
    return states[0] if len(states) == 1 else merge_in_order(states)


def _row(part: int, state: bytes | None, empty: Sequence[int]) -> Any:
    arrow = pyarrow()
    return arrow.RecordBatch.from_pydict(
        {
            "part": arrow.array([part], arrow.int64()),
            "state": arrow.array([state], arrow.binary()),
            "empty": arrow.array([empty], arrow.list_(arrow.int64())),
        }
    )
