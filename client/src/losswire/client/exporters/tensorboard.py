"""Writes a summary or a comparison for TensorBoard.

Needs `losswire[tensorboard]`, neither torch nor TensorFlow. A SummaryWriter of torch or of
tensorboardX does as well.
"""

import os
import time
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from losswire.client.exporters._content import Content, Evaluated, content_of, histogram

try:
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import HistogramProto, Summary
    from tensorboard.compat.tensorflow_stub import dtypes
    from tensorboard.plugins.text.metadata import create_summary_metadata
    from tensorboard.summary.writer.event_file_writer import EventFileWriter
    from tensorboard.util.tensor_util import make_tensor_proto
except ImportError as error:
    raise ImportError(
        "losswire.client.exporters.tensorboard needs TensorBoard: "
        "pip install 'losswire[tensorboard]'"
    ) from error


class Writer(Protocol):
    """The methods of a SummaryWriter of torch or tensorboardX that are called."""

    def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> object:
        """Write a number."""
        ...

    def add_text(self, tag: str, text_string: str, global_step: int) -> object:
        """Write a text in Markdown."""
        ...

    def add_histogram_raw(  # noqa: PLR0917 - torch's signature
        self,
        tag: str,
        min: float,  # noqa: A002 - the names of torch's parameters
        max: float,  # noqa: A002
        num: float,
        sum: float,  # noqa: A002
        sum_squares: float,
        bucket_limits: Sequence[float],
        bucket_counts: Sequence[float],
        global_step: int,
    ) -> object:
        """Write a histogram."""
        ...


def log_summary(
    summary: Evaluated,
    writer: "Writer | str | os.PathLike[str]",
    *,
    step: int = 0,
    prefix: str = "",
    slices: int = 50,
) -> None:
    """Write a `Summary` or a `Comparison` as scalars, a histogram and a text.

    The scalars have the names that `losswire.client.exporters.mlflow.log_summary` lists, and are
    float32, as TensorBoard has them. `distribution` is a histogram with all buckets and weights of
    the summary, `summary` the answer in words.

    `writer`: a folder, in which a file of events is made, or a SummaryWriter of torch or
    tensorboardX. `step` is their step, `prefix` begins every name. Tables with more than `slices`
    slices are left out.

    Raises TypeError for other objects, ValueError for a negative `slices`, OSError where the folder
    cannot be written.

    Example:
        >>> import tempfile
        >>> from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
        >>> from losswire.client.exporters.tensorboard import log_summary
        >>> summary = client.summarize("mse_loss", [{"input": [1.0, 3.0], "target": [0.0, 0.0]}])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     log_summary(summary, folder, step=7)
        ...     [event] = EventAccumulator(folder).Reload().Scalars("mean")
        >>> event.step, event.value
        (7, 5.0)
    """
    content = content_of(summary, prefix, slices)
    if isinstance(writer, str | os.PathLike):
        own = _EventWriter(writer)
        try:
            _write(own, content, step, prefix)
        finally:
            own.close()
    else:
        _write(writer, content, step, prefix)


def _write(writer: Writer, content: Content, step: int, prefix: str) -> None:
    """Write everything to a writer."""
    for name, value in content.metrics.items():
        writer.add_scalar(name, value, step)
    for name, each in content.distributions.items():
        found = histogram(each)
        if not len(found.weights):
            continue
        mean = each.sum / each.weight_sum
        writer.add_histogram_raw(
            name,
            each.minimum,
            each.maximum,
            each.weight_sum,
            each.sum,
            each.values.products[0] + each.weight_sum * mean**2,
            found.edges[1:].tolist(),
            found.weights.tolist(),
            step,
        )
    facts = "\n".join(f"- {name}: `{text}`" for name, text in content.tags.items())
    writer.add_text(f"{prefix}summary", f"{content.sentence}\n\n{facts}", step)


class _EventWriter:
    """Writes events to a file in a folder, by TensorBoard's own writer."""

    def __init__(self, folder: "str | os.PathLike[str]") -> None:
        self._file = EventFileWriter(os.fspath(folder))

    def close(self) -> None:
        """Write what is left."""
        self._file.close()

    def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> None:
        """Write a number."""
        self._add(Summary.Value(tag=tag, simple_value=scalar_value), global_step)

    def add_text(self, tag: str, text_string: str, global_step: int) -> None:
        """Write a text in Markdown."""
        value = Summary.Value(
            tag=tag,
            metadata=create_summary_metadata(display_name=tag, description=""),
            tensor=make_tensor_proto(np.array(text_string.encode(), object), dtype=dtypes.string),
        )
        self._add(value, global_step)

    def add_histogram_raw(  # noqa: PLR0917 - torch's signature
        self,
        tag: str,
        min: float,  # noqa: A002 - the names of torch's parameters
        max: float,  # noqa: A002
        num: float,
        sum: float,  # noqa: A002
        sum_squares: float,
        bucket_limits: Sequence[float],
        bucket_counts: Sequence[float],
        global_step: int,
    ) -> None:
        """Write a histogram."""
        found = HistogramProto(
            min=min,
            max=max,
            num=num,
            sum=sum,
            sum_squares=sum_squares,
            bucket_limit=bucket_limits,
            bucket=bucket_counts,
        )
        self._add(Summary.Value(tag=tag, histo=found), global_step)

    def _add(self, value: Summary.Value, step: int) -> None:
        """Write one value."""
        self._file.add_event(
            Event(wall_time=time.time(), step=step, summary=Summary(value=[value]))
        )


__all__ = ["Writer", "log_summary"]
