"""A run that a server keeps."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property

from google.protobuf.timestamp_pb2 import Timestamp

from losswire.client._runs.contents import Contents, contents_of
from losswire.v1 import run_service_pb2

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFigures:
    """The most important figures of a run, of each candidate where there are any."""

    candidate: str
    """The candidate's name; empty for a summary of one."""
    count: int
    """How many rows took part."""
    mean: float
    """The mean; NaN or infinite if a row's loss is."""
    standard_error: float
    """The mean's standard error, clustered where rows have clusters; NaN where it is unknown."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """An evaluation that a server keeps: a summary with a name, labels and times.

    Example:
        >>> run = client.runs.save(summary, name="nightly", labels={"commit": "3f2c1"})
        >>> run.name, dict(run.labels), run.loss, run.figures[0].count
        ('nightly', {'commit': '3f2c1'}, 'mse_loss', 3)
    """

    run_id: str
    """Its id, 1 to 128 letters, digits, `.`, `_` and `-`."""
    name: str
    """The name that a person gave it, at most 256 bytes; several may have the same."""
    labels: Mapping[str, str]
    """What it belongs to, such as model, data set, commit; at most 64."""
    loss: str
    """The loss's name."""
    started: datetime | None
    """When the evaluation began, in UTC; None when nobody said."""
    ended: datetime | None
    """When it ended, in UTC; None when nobody said."""
    saved: datetime
    """When the server kept it, in UTC."""
    creator: str
    """Who saved it; empty where callers have no names."""
    figures: tuple[RunFigures, ...]
    """Count, mean and standard error, of each candidate where there are any."""
    message: run_service_pb2.Run = field(repr=False)
    """All of it, as it came from the server."""

    @cached_property
    def summary(self) -> Contents:
        """The summary; a comparison where there are candidates.

        Raises ValueError for a run of a list, which has figures only: `client.runs.get` has it.
        """
        if not self.message.HasField("summary"):
            raise ValueError(
                f'summary: lists have figures only; client.runs.get("{self.run_id}") has it'
            )
        return contents_of(self.message)

    def _repr_html_(self) -> str:
        from losswire.client._report.notebook import run_fragment  # noqa: PLC0415 - for notebooks

        return run_fragment(self, self.summary if self.message.HasField("summary") else None)


def read_run(message: run_service_pb2.Run) -> Run:
    """Return the run of a message."""
    return Run(
        run_id=message.run_id,
        name=message.name,
        labels=dict(message.labels),
        loss=message.loss,
        started=_time(message.started) if message.HasField("started") else None,
        ended=_time(message.ended) if message.HasField("ended") else None,
        saved=_time(message.saved),
        creator=message.creator,
        figures=tuple(
            RunFigures(
                candidate=each.candidate,
                count=each.count,
                mean=each.mean,
                standard_error=each.standard_error,
            )
            for each in message.figures
        ),
        message=message,
    )


def timestamp_of(time: datetime, name: str) -> Timestamp:
    """Return the message of a moment; TypeError and ValueError name the argument."""
    if not isinstance(time, datetime):
        raise TypeError(f"{name}: expected a datetime, got {type(time).__name__}")
    if time.utcoffset() is None:
        raise ValueError(f"{name}: expected a datetime with a time zone, such as datetime.now(UTC)")
    stamp = Timestamp()
    stamp.FromMicroseconds((time - _EPOCH) // timedelta(microseconds=1))
    return stamp


def _time(stamp: Timestamp) -> datetime:
    return _EPOCH + timedelta(microseconds=stamp.ToMicroseconds())
