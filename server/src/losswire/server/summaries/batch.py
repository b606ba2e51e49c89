"""The evaluations of a batch, one for each candidate, and the paths of what is wrong with them."""

from collections.abc import Iterator
from typing import Final

from losswire.server.errors import (
    InvalidEvaluationError,
    MissingRegionError,
    MissingResidentError,
)
from losswire.server.pipeline.decode import Detached
from losswire.server.pipeline.field_path import path
from losswire.server.summaries.header import Plan, Shared
from losswire.v1 import evaluation_pb2, summary_pb2
from losswire.wire import Violation

_Pathed = InvalidEvaluationError | MissingResidentError | MissingRegionError

PATHED: Final = (InvalidEvaluationError, MissingResidentError, MissingRegionError)
"""The errors whose violations have paths inside of an evaluation."""

Origins = dict[str, str]
"""Where each input of an evaluation comes from, such as `batches[3].candidates[1]`, by name."""


def where(number: int) -> str:
    """Return the path of a batch, by its number in the call."""
    return f"batches[{number}]"


def check_shape(plan: Plan, batch: summary_pb2.SummaryBatch, number: int) -> None:
    """Raise InvalidEvaluationError when a batch has other candidates than the header."""
    expected, found = len(plan.settings.candidates), len(batch.candidates)
    if found != expected:
        text = f"has {found}; the header has {expected}"
        raise InvalidEvaluationError([Violation(f"{where(number)}.candidates", text)])


def is_in_regions(batch: summary_pb2.SummaryBatch) -> bool:
    """Return whether any tensor of a batch is in a region."""
    columns = (*batch.columns.values(), batch.clusters, batch.ids)
    tensors = [*batch.inputs.values(), batch.sample_weight, *(each.codes for each in columns)]
    for candidate in batch.candidates:
        tensors += candidate.inputs.values()
    return any(each.HasField("region") for each in tensors)


def evaluations(
    plan: Plan, batch: summary_pb2.SummaryBatch, detached: Detached, number: int
) -> Iterator[tuple[evaluation_pb2.Evaluation, Detached, Origins]]:
    """Yield the evaluation of each candidate, its detached elements, and the inputs' origins.

    `detached` are those of the batch. Raises InvalidEvaluationError for an input that comes twice.
    """
    for candidate, shared in enumerate(plan.shared):
        yield _evaluation(shared, batch, detached, number, candidate)


def _evaluation(
    shared: Shared,
    batch: summary_pb2.SummaryBatch,
    detached: Detached,
    number: int,
    candidate: int,
) -> tuple[evaluation_pb2.Evaluation, Detached, Origins]:
    evaluation = evaluation_pb2.Evaluation()
    evaluation.CopyFrom(shared.evaluation)
    elements = dict(shared.detached)
    origins = dict(shared.origins)
    own = f"candidates[{candidate}]"
    parts = [("", batch.inputs)]
    if batch.candidates:
        parts.append((f"{own}.", batch.candidates[candidate].inputs))
    twice = []
    for prefix, inputs in parts:
        origin = f"{where(number)}.{prefix}".removesuffix(".")
        for name, tensor in inputs.items():
            field = f'inputs["{name}"]'
            if name in origins:
                text = f"is in {origins[name]}, too"
                twice.append(Violation(f"{origin}.{path('inputs', name)}", text))
                continue
            origins[name] = origin
            evaluation.inputs[name].CopyFrom(tensor)
            if prefix + field in detached:
                elements[field] = detached[prefix + field]
    if twice:
        raise InvalidEvaluationError(twice)
    return evaluation, elements, origins


def with_paths(error: _Pathed, origins: Origins, number: int, candidate: str) -> _Pathed:
    """Return an error of an evaluation with the paths that its fields have in the call.

    `candidate` is its name; empty: there are none.
    """
    # Inputs of all candidates may be wrong beside those of one.
    whose = f' (candidate "{candidate}")' if candidate else ""
    return type(error)(
        [
            Violation(_renamed(each.field, origins, number), each.description + whose)
            for each in error.violations
        ]
    )


def _renamed(field: str, origins: Origins, number: int) -> str:
    """Return the path of a field of an evaluation in the call."""
    if not field.startswith("inputs"):
        return f"header.evaluation.{field}"
    for name, origin in origins.items():
        if field.startswith(path("inputs", name)):
            return f"{origin}.{field}"
    # An input that is missing belongs into the batch, unless all batches share it.
    return f"{where(number)}.{field}"
