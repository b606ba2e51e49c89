"""A summary or a comparison as JSON has it: what `to_dict` returns."""

from collections.abc import Callable, Iterator, Mapping
from itertools import combinations
from typing import Any, TypeVar

from losswire.summaries import accuracy_of
from losswire.summaries.figures.candidates import CandidateStatistics
from losswire.summaries.figures.difference import Difference, difference_dict, pair_of
from losswire.summaries.figures.row_loss import RowLoss
from losswire.summaries.figures.slices import Table
from losswire.summaries.figures.statistics import figures
from losswire.v1 import evaluation_pb2, summary_pb2
from losswire.wire import decode_option, dtype_name, json_number

_T = TypeVar("_T")


def to_dict(message: summary_pb2.LossSummary) -> dict[str, Any]:
    """Return everything but the buckets with values that JSON has; NaN and infinities as texts.

    `message` must have been checked with `losswire.summaries.check_message`.
    """
    if not message.candidates:
        return {**facts(message), **candidate_dict(CandidateStatistics(message, 0))}
    return {
        **facts(message),
        "candidates": list(message.candidates),
        "statistics": {
            name: candidate_dict(CandidateStatistics(message, position))
            for position, name in enumerate(message.candidates)
        },
        "differences": [pair_dict(each) for each in differences(message)],
    }


def differences(message: summary_pb2.LossSummary) -> Iterator[Difference]:
    """Yield the difference of each two candidates of a comparison, in the order of the message."""
    for first, second in combinations(range(len(message.candidates)), 2):
        yield difference_of(message, first, second)


def difference_of(message: summary_pb2.LossSummary, first: int, second: int) -> Difference:
    """Return the losses of one candidate minus those of another, by their positions."""
    return Difference(message.total, pair_of(message.candidates, first, second), message.tables)


def included_rows(message: summary_pb2.LossSummary) -> dict[str, list[tuple[int, int]]]:
    """Return which rows are counted: (begin, end) ranges of row numbers, by partition."""
    return {
        each.partition: [(rows.begin, rows.end) for rows in each.ranges]
        for each in message.included
    }


def row_total(message: summary_pb2.LossSummary) -> int:
    """Return how many rows are covered, whether they take part or not."""
    return sum(rows.end - rows.begin for each in message.included for rows in each.ranges)


def facts(message: summary_pb2.LossSummary) -> dict[str, Any]:
    """Return what was computed of which rows, and how."""
    return {
        "loss": message.loss,
        "options": {name: decode_option(each) for name, each in message.options.items()},
        "rows": row_total(message),
        "accuracy": accuracy_of(message.scale),
        "clustered": message.clustered,
        "included": {
            name: [list(each) for each in ranges] for name, ranges in included_rows(message).items()
        },
        "receipts": [receipt_dict(each) for each in message.receipts],
    }


def receipt_dict(message: evaluation_pb2.Receipt) -> dict[str, str]:
    """Return the device, path and versions that computed a result."""
    return {
        "device": message.device,
        "engine": message.engine,
        "compute_dtype": dtype_name(message.compute_data_type),
        "server_version": message.server_version,
        "torch_version": message.torch_version,
    }


def candidate_dict(of: CandidateStatistics) -> dict[str, Any]:
    """Return the figures of one candidate over all rows and by slice, and its worst rows."""
    return {
        **figures(of),
        "slices": tables_dict(of.slices, figures),
        "worst": [row_dict(each) for each in of.worst],
    }


def pair_dict(of: Difference) -> dict[str, Any]:
    """Return the figures of two candidates over all rows and by slice, and what differs most."""
    return {
        **difference_dict(of),
        "verdict": of.verdict,
        "slices": tables_dict(of.slices, difference_dict),
        "worst": [row_dict(each) for each in of.worst],
    }


def row_dict(row: RowLoss) -> dict[str, Any]:
    """Return a row as JSON has it."""
    return {
        "id": row.id,
        "partition": row.partition,
        "row": row.row,
        "value": json_number(row.value),
        "values": [json_number(each) for each in row.values],
        "weight": json_number(row.weight),
        # A map of protobuf has no order of its own.
        "labels": dict(sorted(row.labels.items())),
    }


def tables_dict(
    tables: Mapping[str, Table[_T]], show: Callable[[_T], dict[str, Any]]
) -> dict[str, Any]:
    """Return all slices as JSON has them: a list for each table."""
    found: dict[str, Any] = {}
    for name, table in tables.items():
        found[name] = [{"label": label, **show(each)} for label, each in table.items()]
        if table.other is not None:
            found[name].append({"label": None, **show(table.other)})
    return found
