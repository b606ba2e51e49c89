"""What a caller wants to be summarized, and the header that says so."""

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from numbers import Real
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
        if not (self.progress is None or self.progress is True or callable(self.progress)):
            raise TypeError(f"progress: expected None, True or a callable, got {self.progress!r}")
        for name, low in (("worst", 0), ("max_slices", 1)):
            number = getattr(self, name)
            if not isinstance(number, int) or number < low:
                raise ValueError(f"{name}: expected an integer of at least {low}, got {number!r}")
            if number > _MAX_INT32:
                raise ValueError(f"{name}: expected an integer that fits into int32, got {number}")
        if not (self.partition is None or isinstance(self.partition, str)):
            raise TypeError(f"partition: expected a text, got {self.partition!r}")
        if not isinstance(self.accuracy, Real):
            raise TypeError(f"accuracy: expected a number, got {self.accuracy!r}")
        for name, inputs in items_of(self.candidates, "", "candidates"):
            items_of(inputs, f'candidates["{name}"].', "inputs")

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


def _dtype_of(inputs: Mapping[str, Any] | None) -> np.dtype[Any] | None:
    array = (inputs or _NOTHING).get(_DECISIVE)
    return None if array is None else array.dtype
