"""From the JSON of a summary or a comparison to its header, and to the columns that it reads."""

from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from losswire.server import thresholds
from losswire.server.catalogue.record import LossRecord
from losswire.server.errors import InvalidEvaluationError, MalformedMessageError
from losswire.server.http.columns import Columns, columns_of
from losswire.server.http.evaluation_json import read_evaluation
from losswire.server.http.message_json import numbers
from losswire.server.http.tensors import FindSpec
from losswire.server.pipeline.decode import Detached
from losswire.server.pipeline.field_path import path
from losswire.server.rpc.parse import parse
from losswire.v1 import summary_pb2
from losswire.wire import Violation

_EVALUATION: Final = "header.evaluation"
_EVALUATED: Final = ("loss", "options", "reduction", "engine", "compute_data_type", "inputs")
"""The fields that are those of an evaluation."""

_WORST: Final = 20
"""How many of the worst rows are kept unless the request says so, as in the SDK."""

_INT32, _INT64 = 1 << 31, 1 << 63


@dataclass(frozen=True, slots=True)
class SummaryRequest:
    """A summary or a comparison that was asked for; what it says is judged later."""

    header: summary_pb2.SummaryHeader
    detached: Detached
    """The elements of the header's tensors, by path."""
    columns: Columns
    """Where the data has what a batch needs."""


@dataclass(slots=True)
class _Draft:
    """A request while it is read."""

    header: summary_pb2.SummaryHeader = field(default_factory=summary_pb2.SummaryHeader)
    inputs: dict[str, str] = field(default_factory=dict)
    candidates: dict[str, dict[str, str]] = field(default_factory=dict)
    roles: dict[str, str] = field(default_factory=dict)
    wrong: list[Violation] = field(default_factory=list)

    def add(self, where: str, text: str) -> None:
        """Note a violation."""
        self.wrong.append(Violation(where, text))


def read_request(
    content: Mapping[str, Any],
    record: LossRecord | None,
    find_spec: FindSpec,
    *,
    compares: bool,
) -> SummaryRequest:
    """Read a request, on any thread; `compares`: whether candidates are compared.

    Judges the form only, as `read_evaluation` does. Raises InvalidEvaluationError with all
    violations, whose paths are those of the contract.
    """
    draft = _Draft()
    draft.header.worst = _WORST
    detached: dict[str, memoryview] = {}
    try:
        own = {name: content[name] for name in _EVALUATED if name in content}
        read = read_evaluation(own, record, find_spec)
    except InvalidEvaluationError as error:
        draft.wrong += [_in_header(each) for each in error.violations]
    else:
        draft.header.evaluation.CopyFrom(read.evaluation)
        detached = {f"{_EVALUATION}.{name}": each for name, each in read.detached.items()}
    for name, value in content.items():
        reader = _FIELDS.get(name)
        if name in _EVALUATED or value is None:
            continue
        if reader is None:
            draft.add(name[:64], "is no field of this request")
        else:
            reader(draft, name, value)
    if compares != bool(draft.candidates):
        text = "is missing: 2 to 8 are compared" if compares else "belongs to /v1/compare"
        draft.add("candidates", text)
    if draft.wrong:
        raise InvalidEvaluationError(draft.wrong)
    columns = columns_of(
        record,
        shared=draft.header.evaluation.inputs,
        inputs=draft.inputs,
        candidates=draft.candidates,
        tables=[tuple(each.columns) for each in draft.header.tables],
        roles=draft.roles,
        wide=content.get("compute_data_type") == "float64",
    )
    return SummaryRequest(draft.header, detached, columns)


def _in_header(violation: Violation) -> Violation:
    return Violation(f"{_EVALUATION}.{violation.field}", violation.description)


def _read_columns(draft: _Draft, name: str, value: object) -> None:
    found = _texts(draft, name, value, "the columns of inputs, by input")
    draft.inputs.update(found)


def _read_candidates(draft: _Draft, name: str, value: object) -> None:
    if not isinstance(value, dict):
        draft.add(name, "must be an object of candidates, each with the columns of its inputs")
        return
    for candidate, inputs in value.items():
        where = path(name, candidate)
        draft.candidates[candidate] = _texts(draft, where, inputs, "columns, by input")
        draft.header.candidates.add(name=candidate)


def _texts(draft: _Draft, where: str, value: object, what: str) -> dict[str, str]:
    """Return an object of texts; an empty one after noting that it is none."""
    if isinstance(value, dict) and all(isinstance(each, str) for each in value.values()):
        return value
    draft.add(where, f"must be an object of {what}")
    return {}


def _read_slices(draft: _Draft, name: str, value: object) -> None:
    tables = value if isinstance(value, list) else [None]
    for place, each in enumerate(tables):
        columns = [each] if isinstance(each, str) else each
        if not isinstance(columns, list) or not all(isinstance(c, str) for c in columns):
            text = 'must be a list of columns, such as ["country", ["country", "age"]]'
            draft.add(f"{name}[{place}]" if isinstance(value, list) else name, text)
            return
        draft.header.tables.add(columns=columns)


def _read_role(draft: _Draft, name: str, value: object) -> None:
    if not isinstance(value, str):
        draft.add(name, "must be the name of a column")
        return
    draft.roles[name] = value


def _read_partition(draft: _Draft, name: str, value: object) -> None:
    if not isinstance(value, str):
        draft.add(f"header.{name}", "must be a text")
        return
    draft.header.partition = value


def _whole(limit: int) -> "_Reader":
    """Return the reader of an integer of the header."""

    def read(draft: _Draft, name: str, value: object) -> None:
        if isinstance(value, bool) or not isinstance(value, int) or abs(value) >= limit:
            draft.add(f"header.{name}", "must be a whole number")
            return
        setattr(draft.header, name, value)

    return read


def _read_accuracy(draft: _Draft, name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > 1:
        draft.add(f"header.{name}", "must be a number in [0.0014, 0.5]")
        return
    draft.header.relative_accuracy = value


def _choice(known: Mapping[str, int]) -> "_Reader":
    """Return the reader of a field of the header whose values have short names."""

    def read(draft: _Draft, name: str, value: object) -> None:
        if not isinstance(value, str) or value not in known:
            draft.add(f"header.{name}", f"must be one of {', '.join(known)}")
            return
        setattr(draft.header, name, known[value])

    return read


def _read_resume(draft: _Draft, name: str, value: object) -> None:
    try:
        draft.header.resume_from.CopyFrom(read_state(value, f"header.{name}"))
    except InvalidEvaluationError as error:
        draft.wrong += error.violations


def read_state(value: object, where: str) -> summary_pb2.LossSummary:
    """Return the message of a state in base64; InvalidEvaluationError, with its path."""
    try:
        data = b64decode(value if isinstance(value, str) else b"*", validate=True)
        message: summary_pb2.LossSummary = parse(
            summary_pb2.LossSummary, data, max_parsed_bytes=thresholds.MAX_SUMMARY_PARSED_BYTES
        )
    except (Base64Error, ValueError, MalformedMessageError):
        text = "is not the base64 of a state"
        raise InvalidEvaluationError([Violation(where, text)]) from None
    return message


_Reader = Callable[[_Draft, str, Any], None]

_FIELDS: Final[Mapping[str, _Reader]] = {
    "columns": _read_columns,
    "candidates": _read_candidates,
    "slices": _read_slices,
    "sample_weight": _read_role,
    "clusters": _read_role,
    "ids": _read_role,
    "worst": _whole(_INT32),
    "relative_accuracy": _read_accuracy,
    "partition": _read_partition,
    "first_row": _whole(_INT64),
    "max_slices": _whole(_INT32),
    "slice_overflow": _choice(numbers(summary_pb2.SliceOverflow.DESCRIPTOR)),
    "cluster_order": _choice(numbers(summary_pb2.ClusterOrder.DESCRIPTOR)),
    "max_open_clusters": _whole(_INT32),
    "report_every_batches": _whole(_INT32),
    "resume_from": _read_resume,
}
"""The fields of a request beside those of an evaluation, and how each is read."""
