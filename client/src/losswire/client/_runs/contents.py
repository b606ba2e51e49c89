"""What a run keeps: from a summary or comparison to the message, and back."""

from typing import Any, TypeAlias

from losswire.client._summaries.comparison import Comparison
from losswire.client._summaries.summary import Summary
from losswire.v1 import run_service_pb2, summary_pb2

Contents: TypeAlias = Summary | Comparison
"""What a run has: a summary, or a comparison where there are candidates."""


def to_message(value: Any) -> summary_pb2.LossSummary:
    """Return the message of a summary or a comparison; TypeError for anything else."""
    message = getattr(value, "message", value)
    if not isinstance(message, summary_pb2.LossSummary):
        raise TypeError(f"summary: expected a Summary or a Comparison, got {type(value).__name__}")
    return message


def contents_of(run: run_service_pb2.Run) -> Contents:
    """Return the summary or comparison of a run."""
    kind = Comparison if run.summary.candidates else Summary
    found = kind(run.summary)
    found.header = run.header if run.HasField("header") else None
    return found
