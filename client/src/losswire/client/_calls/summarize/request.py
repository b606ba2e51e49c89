"""What a caller wants to be summarized, and the header that says so."""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from numbers import Real
from types import MappingProxyType
from typing import Any, Final, Literal, TypedDict

import numpy as np

from losswire.client._calls.summarize.watcher import ProgressInput
from losswire.client._data.batch import Batch
from losswire.client._messages.arrays import ArrayInput, as_array, encode_array
from losswire.client._messages.evaluation import DTypeInput, EngineName, Evaluation
from losswire.client._messages.request import fill_evaluation, items_of
from losswire.client._messages.resident import StoredTensor, distinct
from losswire.client._messages.weights import WEIGHTS, float_weight
from losswire.v1 import summary_pb2
from losswire.wire import OptionScalar

Overflow = Literal["refuse", "other"]
Slices = Sequence[str | tuple[str, ...]]
Candidates = Mapping[str, Mapping[str, str | ArrayInput]]

_OVERFLOWS: Final = {
    "refuse": summary_pb2.SLICE_OVERFLOW_REFUSE,
    "other": summary_pb2.SLICE_OVERFLOW_OTHER,
}
_NOTHING: Final[Mapping[str, Any]] = {}
_DECISIVE: Final = "input"
_MAX_INT32: Final = (1 << 31) - 1
"""The input whose type weights take."""


class RowFields(TypedDict, total=False):
    """What may be said about the rows; `Client.summarize` describes it."""

    shared: Mapping[str, ArrayInput] | None
    columns: Mapping[str, str] | None
    slices: Slices
    ids: str | None
    sample_weight: str | None
    cluster: str | None
    clusters_grouped: bool
    worst: int
    accuracy: float
    max_slices: int
    overflow: Overflow
    nulls: Literal["refuse", "skip"]
    reduction: Literal["mean", "batchmean"] | None
    engine: EngineName | None
    compute_dtype: DTypeInput | None


class SummaryFields(RowFields, total=False):
    """The keyword-only arguments of `Client.summarize`, which describes them."""

    partition: str | None
    progress: ProgressInput


@dataclass(frozen=True, slots=True)
class SummaryRequest:
    """All arguments of a summary or a comparison but the data. TypeError and ValueError."""

    loss: str
    options: Mapping[str, OptionScalar]
    _: KW_ONLY
    candidates: Candidates = field(default_factory=dict)
    shared: Mapping[str, ArrayInput] | None = None
    columns: Mapping[str, str] | None = None
    slices: Slices = ()
    ids: str | None = None
    sample_weight: str | None = None
    cluster: str | None = None
    clusters_grouped: bool = False
    worst: int = 20
    accuracy: float = 0.01
    max_slices: int = 4096
    overflow: Overflow = "refuse"
    nulls: Literal["refuse", "skip"] = "refuse"
    reduction: Literal["mean", "batchmean"] | None = None
    engine: EngineName | None = None
    compute_dtype: DTypeInput | None = None
    partition: str | None = None
    progress: ProgressInput = None

    def __post_init__(self) -> None:
        if isinstance(self.slices, str) or not isinstance(self.slices, Sequence):
            raise TypeError(
                f'slices: expected a list of columns, such as ["country"], got {self.slices!r}'
            )
        if self.overflow not in _OVERFLOWS:
            raise ValueError(f'overflow: expected "refuse" or "other", got {self.overflow!r}')
        if not (
            self.progress is None or isinstance(self.progress, bool) or callable(self.progress)
        ):
            raise TypeError(f"progress: expected a bool, None or a callable, got {self.progress!r}")
        if not (self.partition is None or isinstance(self.partition, str)):
            raise TypeError(f"partition: expected a text, got {self.partition!r}")
        self._check_numbers()
        self._check_columns()
        for name, inputs in items_of(self.candidates, "", "candidates"):
            items_of(inputs, f'candidates["{name}"].', "inputs")

    def _check_numbers(self) -> None:
        """Raise TypeError and ValueError for numbers that the header cannot have."""
        if isinstance(self.accuracy, bool) or not isinstance(self.accuracy, Real):
            raise TypeError(f"accuracy: expected a number, such as 0.01, got {self.accuracy!r}")
        for name, low in (("worst", 0), ("max_slices", 1)):
            number = getattr(self, name)
            if not isinstance(number, int) or number < low:
                raise ValueError(f"{name}: expected an integer of at least {low}, got {number!r}")
            if number > _MAX_INT32:
                raise ValueError(f"{name}: expected an integer that fits into int32, got {number}")

    def _check_columns(self) -> None:
        """Raise TypeError where something else is given than the name of a column."""
        named = {name: getattr(self, name) for name in ("ids", "sample_weight", "cluster")}
        found = [(name, column) for name, column in named.items() if column is not None]
        for name, column in items_of(self.columns or {}, "", "columns"):
            found.append((f'columns["{name}"]', column))
        for index, each in enumerate(self.slices):
            names = each if isinstance(each, tuple) else (each,)
            found += [(f"slices[{index}]", column) for column in names]
        for path, column in found:
            if not isinstance(column, str):
                raise TypeError(
                    f"{path}: expected the name of a column of batches, got {_shown(column)}"
                )

    @property
    def tables(self) -> list[tuple[str, ...]]:
        """The columns of each table of slices."""
        return [(each,) if isinstance(each, str) else tuple(each) for each in self.slices]

    @property
    def candidate_columns(self) -> dict[str, dict[str, str]]:
        """The columns of each candidate's own inputs."""
        return {
            name: {key: value for key, value in inputs.items() if isinstance(value, str)}
            for name, inputs in self.candidates.items()
        }

    @property
    def residents(self) -> tuple[StoredTensor, ...]:
        """The resident tensors among the shared inputs."""
        own = (value for inputs in self.candidates.values() for value in inputs.values())
        values = (*(self.shared or _NOTHING).values(), *own)
        return distinct(each for each in values if isinstance(each, StoredTensor))

    def header(self, first: Batch | None) -> summary_pb2.SummaryHeader:
        """Return the header; `first` is the first batch, whose types decide that of weights."""
        message = summary_pb2.SummaryHeader(
            max_slices=self.max_slices,
            slice_overflow=_OVERFLOWS[self.overflow],
            worst=self.worst,
            relative_accuracy=self.accuracy,
        )
        if self.clusters_grouped:
            message.cluster_order = summary_pb2.CLUSTER_ORDER_GROUPED
        decisive = _dtype_of(None if first is None else first.inputs)
        evaluation = Evaluation(
            self.loss,
            self._arrays(self.shared or _NOTHING, "shared", decisive),
            self.options,
            reduction=self.reduction,
            engine=self.engine or "auto",
            compute_dtype=self.compute_dtype,
        )
        fill_evaluation(message.evaluation, evaluation)
        message.evaluation.ClearField("gradient_form")
        for position, (name, inputs) in enumerate(self.candidates.items()):
            candidate = message.candidates.add(name=name)
            own = {key: value for key, value in inputs.items() if not isinstance(value, str)}
            path = f'candidates["{name}"]'
            dtype = decisive or _dtype_of(None if first is None else first.candidates[position])
            for key, value in self._arrays(own, path, dtype).items():
                candidate.inputs[key].CopyFrom(encode_array(value, f'{path}["{key}"]'))
        for columns in self.tables:
            message.tables.add(columns=columns)
        return message

    def header_without_elements(self, first: Batch | None) -> summary_pb2.SummaryHeader:
        """Return the header with types and shapes of its tensors only, for a run that is kept."""
        message = self.header(first)
        every = [message.evaluation.inputs, *(each.inputs for each in message.candidates)]
        for tensor in (each for inputs in every for each in inputs.values()):
            tensor.ClearField("source")
        return message

    def _arrays(
        self, inputs: Mapping[str, Any], path: str, decisive: np.dtype[Any] | None
    ) -> dict[str, ArrayInput]:
        """Convert inputs that all batches share; weights become floats, as in an evaluation."""
        found: dict[str, ArrayInput] = {}
        for name, value in items_of(inputs, "", path):
            where = f'{path}["{name}"]'
            if isinstance(value, StoredTensor):
                found[name] = value
            elif name in WEIGHTS:
                found[name] = float_weight(value, where, self.loss, decisive)
            else:
                found[name] = as_array(value, where)
        return found


def request_of(
    loss: str,
    options: Mapping[str, OptionScalar] | None,
    fields: Mapping[str, Any],
    candidates: Candidates = MappingProxyType({}),
) -> SummaryRequest:
    """Return the request of a call; TypeError for an unknown argument, with the nearest ones."""
    known = SummaryFields.__annotations__
    for name in fields:
        if name not in known:
            near = difflib.get_close_matches(name, [*known, "timeout", "on_report"], cutoff=0.5)
            hint = f"; nearest: {', '.join(near)}" if near else ""
            raise TypeError(f"there is no argument {name!r}{hint}")
    return SummaryRequest(loss, options or {}, candidates=candidates, **fields)


def some_candidates(candidates: Candidates) -> Candidates:
    """Return the candidates of a comparison; TypeError and ValueError where there are none."""
    if not items_of(candidates, "", "candidates"):
        raise ValueError("candidates: a comparison is of 2 to 8, got none")
    return candidates


def _shown(value: object) -> str:
    """Return what an error says of a wrong argument: no arrays."""
    return repr(value) if isinstance(value, (list, int, float)) else type(value).__name__


def _dtype_of(inputs: Mapping[str, Any] | None) -> np.dtype[Any] | None:
    array = (inputs or _NOTHING).get(_DECISIVE)
    return None if array is None else array.dtype
