"""From the header of a SummarizeLosses to a plan: what is summarized, and what is kept of it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from losswire.server.catalogue.record import Kind, LossRecord, Reduction
from losswire.server.catalogue.registry import Registry
from losswire.server.errors import InvalidEvaluationError
from losswire.server.pipeline.decode import Detached
from losswire.server.pipeline.field_path import path
from losswire.summaries import (
    MAX_CANDIDATES,
    MAX_OPEN_CLUSTERS,
    MAX_SLICES,
    MAX_TABLES,
    MAX_WORST,
    OPEN_CLUSTERS,
    Settings,
    scale_for,
)
from losswire.v1 import evaluation_pb2, summary_pb2
from losswire.wire import Violation

_EVALUATION: Final = "header.evaluation"
_MAX_NAME_BYTES: Final = 128
_MAX_PARTITION_BYTES: Final = 1024
_MAX_COLUMNS: Final = 16
"""The most columns of one table."""
_ACCURACY: Final = 0.01

_UNUSED: Final = (
    "gradients_for",
    "grad_output",
    "sample_weight",
    "normalizer",
    "gradient_form",
    "gradient_data_type",
    "gradient_destinations",
)
"""The fields of an evaluation that a summary has no use for."""

_REDUCTIONS: Final = {
    evaluation_pb2.REDUCTION_UNSPECIFIED: Reduction.MEAN,
    evaluation_pb2.REDUCTION_MEAN: Reduction.MEAN,
    evaluation_pb2.REDUCTION_BATCHMEAN: Reduction.BATCHMEAN,
}
"""The reductions whose terms a summary can hold."""


@dataclass(frozen=True, slots=True)
class Shared:
    """What the evaluations of one candidate have in common, in all batches."""

    evaluation: evaluation_pb2.Evaluation
    """Of the rows' values, unreduced, with the inputs that all batches share."""
    detached: Detached
    """The elements of these inputs that were cut out of the header, by their paths."""
    origins: Mapping[str, str]
    """Where the header has each of these inputs, such as `header.candidates[0]`, by name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A SummarizeLosses whose header was accepted."""

    settings: Settings
    shared: Sequence[Shared]
    """For each candidate; one where there are none."""
    batchmean: bool
    columns: Sequence[str]
    """The columns that the tables name, each once."""
    partition: str
    first_row: int
    """The number of the first row that is to come."""
    report_every: int
    """Report after this many batches; 0: only where a batch asks for it."""
    resume_from: summary_pb2.LossSummary | None
    """The summary to continue; None: there is none, or it has no rows."""
    held_bytes: int
    """The bytes of the header that are held during the call."""


def make_plan(header: summary_pb2.SummaryHeader, detached: Detached, registry: Registry) -> Plan:
    """Return the plan of a header; `detached` are the elements of its tensors, by path.

    Raises UnknownLossError, and InvalidEvaluationError with all violations.
    """
    record = registry.find(header.evaluation.loss)
    wrong = [
        *_wrong_evaluation(header.evaluation, record),
        *_wrong_candidates(header),
        *_wrong_tables(header),
        *_wrong_limits(header),
    ]
    if wrong:
        raise InvalidEvaluationError(wrong)
    columns = dict.fromkeys(name for table in header.tables for name in table.columns)
    resumed = header.resume_from if header.resume_from.included else None
    return Plan(
        settings=_settings(header),
        shared=[_shared(header, detached, each) for each in range(max(len(header.candidates), 1))],
        batchmean=_REDUCTIONS[header.evaluation.reduction] is Reduction.BATCHMEAN,
        columns=tuple(columns),
        partition=header.partition,
        first_row=_next_row(header),
        report_every=header.report_every_batches,
        resume_from=resumed,
        held_bytes=header.ByteSize() + sum(each.nbytes for each in detached.values()),
    )


def _settings(header: summary_pb2.SummaryHeader) -> Settings:
    given = header.HasField("relative_accuracy")
    return Settings(
        loss=header.evaluation.loss,
        options=dict(header.evaluation.options),
        candidates=tuple(each.name for each in header.candidates),
        tables=tuple(tuple(each.columns) for each in header.tables),
        scale=scale_for(header.relative_accuracy if given else _ACCURACY),
        worst=header.worst,
        max_slices=header.max_slices or MAX_SLICES,
        overflow_to_other=header.slice_overflow == summary_pb2.SLICE_OVERFLOW_OTHER,
        grouped_clusters=header.cluster_order == summary_pb2.CLUSTER_ORDER_GROUPED,
        max_open_clusters=header.max_open_clusters or OPEN_CLUSTERS,
    )


def _shared(header: summary_pb2.SummaryHeader, detached: Detached, number: int) -> Shared:
    """Return what the evaluations of a candidate have in common."""
    evaluation = evaluation_pb2.Evaluation()
    evaluation.CopyFrom(header.evaluation)
    evaluation.reduction = evaluation_pb2.REDUCTION_NONE
    origins = dict.fromkeys(evaluation.inputs, _EVALUATION)
    if header.candidates:
        for name, tensor in header.candidates[number].inputs.items():
            evaluation.inputs[name].CopyFrom(tensor)
            origins[name] = f"header.candidates[{number}]"
    found: dict[str, memoryview] = {}
    for name, origin in origins.items():
        # Paths of detached tensors have the whole name, those of violations do not.
        elements = detached.get(f'{origin}.inputs["{name}"]')
        if elements is not None:
            found[f'inputs["{name}"]'] = elements
    return Shared(evaluation, found, origins)


def _next_row(header: summary_pb2.SummaryHeader) -> int:
    """Return the number of the first row: where the summary that is continued ends, if it began."""
    for each in header.resume_from.included:
        if each.partition == header.partition:
            for span in each.ranges:
                if span.begin <= header.first_row < span.end:
                    return span.end
    return header.first_row


def _wrong_evaluation(
    evaluation: evaluation_pb2.Evaluation, record: LossRecord
) -> Iterator[Violation]:
    """Refuse what a summary cannot have, and what has no meaning for it."""
    if record.kind is Kind.ACTIVATION:
        text = f"{record.name} is an activation: it has no losses to summarize"
        yield Violation(f"{_EVALUATION}.loss", text)
        return
    accepted = [each for each in _REDUCTIONS.values() if each in record.reductions]
    if _REDUCTIONS.get(evaluation.reduction) not in accepted:
        names = " or ".join(dict.fromkeys(each.value for each in accepted))
        text = f"is {_name_of_reduction(evaluation.reduction)}; a summary is of the {names}"
        yield Violation(f"{_EVALUATION}.reduction", text)
    present = {field.name for field, _ in evaluation.ListFields()}
    for name in _UNUSED:
        if name in present:
            yield Violation(f"{_EVALUATION}.{name}", "has no meaning in a summary")


def _name_of_reduction(number: int) -> str:
    known = evaluation_pb2.Reduction.DESCRIPTOR.values_by_number.get(number)
    return str(number) if known is None else known.name.removeprefix("REDUCTION_").lower()


def _wrong_candidates(header: summary_pb2.SummaryHeader) -> Iterator[Violation]:
    """Check the candidates: their number, their names, and that no input is given twice."""
    count = len(header.candidates)
    if count == 1 or count > MAX_CANDIDATES:
        text = f"has {count}; a comparison is of 2 to {MAX_CANDIDATES}"
        yield Violation("header.candidates", text)
        return
    names: dict[str, int] = {}
    for number, each in enumerate(header.candidates):
        where = f"header.candidates[{number}]"
        size = len(each.name.encode())
        if not 1 <= size <= _MAX_NAME_BYTES:
            yield Violation(f"{where}.name", f"has {size} bytes; expected 1 to {_MAX_NAME_BYTES}")
        elif names.setdefault(each.name, number) != number:
            text = f"is also that of candidate {names[each.name]}"
            yield Violation(f"{where}.name", text)
        for name in each.inputs:
            if name in header.evaluation.inputs:
                text = "is among the inputs of all candidates, too"
                yield Violation(f"{where}.{path('inputs', name)}", text)


def _wrong_tables(header: summary_pb2.SummaryHeader) -> Iterator[Violation]:
    """Check the tables of slices."""
    if len(header.tables) > MAX_TABLES:
        yield Violation("header.tables", f"has {len(header.tables)}; at most {MAX_TABLES}")
        return
    seen: dict[tuple[str, ...], int] = {}
    for number, table in enumerate(header.tables):
        where = f"header.tables[{number}]"
        columns = tuple(table.columns)
        if not 1 <= len(columns) <= _MAX_COLUMNS:
            text = f"has {len(columns)}; expected 1 to {_MAX_COLUMNS}"
            yield Violation(f"{where}.columns", text)
            continue
        for place, name in enumerate(columns):
            size = len(name.encode())
            if not 1 <= size <= _MAX_NAME_BYTES:
                text = f"has {size} bytes; expected 1 to {_MAX_NAME_BYTES}"
                yield Violation(f"{where}.columns[{place}]", text)
            elif name in columns[:place]:
                yield Violation(f"{where}.columns[{place}]", "is named twice")
        if seen.setdefault(tuple(sorted(columns)), number) != number:
            text = f"are those of table {seen[tuple(sorted(columns))]}"
            yield Violation(f"{where}.columns", text)


def _wrong_limits(header: summary_pb2.SummaryHeader) -> Iterator[Violation]:
    """Check the numbers of the header, and the key of the partition."""
    ranges = (
        ("max_slices", header.max_slices, 0, MAX_SLICES),
        ("max_open_clusters", header.max_open_clusters, 0, MAX_OPEN_CLUSTERS),
        ("worst", header.worst, 0, MAX_WORST),
    )
    for name, value, low, high in ranges:
        if not low <= value <= high:
            yield Violation(f"header.{name}", f"is {value}; expected {low} to {high}")
    for name, value in (
        ("first_row", header.first_row),
        ("report_every_batches", header.report_every_batches),
    ):
        if value < 0:
            yield Violation(f"header.{name}", f"is {value}; expected 0 or more")
    for name, value, known in (
        ("slice_overflow", header.slice_overflow, summary_pb2.SliceOverflow),
        ("cluster_order", header.cluster_order, summary_pb2.ClusterOrder),
    ):
        if value not in known.values():
            names = " or ".join(known.keys()[1:])
            yield Violation(f"header.{name}", f"is {value}; expected {names}")
    if header.HasField("relative_accuracy"):
        try:
            scale_for(header.relative_accuracy)
        except ValueError:
            text = f"is {header.relative_accuracy:g}; expected a number in [0.0014, 0.5]"
            yield Violation("header.relative_accuracy", text)
    size = len(header.partition.encode())
    if size > _MAX_PARTITION_BYTES:
        yield Violation("header.partition", f"has {size} bytes; at most {_MAX_PARTITION_BYTES}")
