"""Which tensors of an evaluation are in shared memory, and which are copied through it."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from losswire.client._calls.batch import Batch
from losswire.client._calls.lease import Lease
from losswire.client._calls.operations import EVALUATE, Operation
from losswire.client._memory.mapping import SharedMemory
from losswire.client._messages import thresholds
from losswire.client._messages.fit import Fit
from losswire.client._messages.outputs import Spec
from losswire.client._messages.placed_array import PlacedArray, aligned
from losswire.client._messages.request import fill_evaluation, serialize
from losswire.client._messages.response import EvaluationResult, read_result
from losswire.v1 import loss_service_pb2
from losswire.wire import MAX_RANK, wire_type_of

Array = npt.NDArray[Any]
Place = Callable[[Array], PlacedArray | None]
"""Returns an array with its place in shared memory; None when it is not there."""

_GRAD_OUTPUT: Final = ".grad_output"
_SAMPLE_WEIGHT: Final = ".sample_weight"
"""The names of tensors that are not inputs; no input has such a name."""


class Placement:
    """One evaluation, and which of its tensors are in shared memory."""

    def __init__(self, batch: Batch, place: Place) -> None:
        """Find the arrays that are in the caller's regions already."""
        self._batch = batch
        self._tensors = dict(_tensors(batch))
        self.inputs = {
            name: placed
            for name, array in self._tensors.items()
            if (placed := place(array)) is not None
        }
        """The tensors in regions, by name."""
        self.gradients: dict[str, PlacedArray] = {}
        """The destinations of gradients, by name."""
        self._specs = batch.gradient_specs() if batch.evaluation.gradient_form == "dense" else {}
        for name in self._specs:
            placed = place(batch.out[name]) if name in batch.out else None
            if placed is not None:
                self.gradients[name] = placed
        self._staged: list[str] = []
        """The gradients that are copied out of the staging region."""
        self._read: dict[str, Array] = {}
        """The arrays that the answer's gradients are read from."""

    @property
    def is_empty(self) -> bool:
        """Whether all tensors are sent."""
        return not (self.inputs or self.gradients)

    @property
    def sent_bytes(self) -> int:
        """The bytes of the tensors that are sent to the server."""
        return sum(each.nbytes for name, each in self._tensors.items() if name not in self.inputs)

    @property
    def is_worth_staging(self) -> bool:
        """Whether copying the rest through shared memory takes less time than sending it."""
        coming = sum(
            _size_bytes(spec) for name, spec in self._specs.items() if name not in self.gradients
        )
        return self.sent_bytes + coming > thresholds.STAGED_BYTES

    @property
    def staging_bytes(self) -> int:
        """The bytes that a staging region for the rest needs."""
        large = [*self._large_tensors(), *self._large_gradients()]
        return sum(aligned(_size_bytes(spec)) for _, spec in large)

    def stage(self, memory: SharedMemory) -> None:
        """Copy large tensors into shared memory, and reserve bytes for large gradients there."""
        offset = 0
        for name, (dtype, shape) in self._large_tensors():
            copy = memory.view(offset, shape, dtype)
            np.copyto(copy, self._tensors[name])
            self._add(self.inputs, name, memory, copy)
            offset += aligned(copy.nbytes)
        for name, (dtype, shape) in self._large_gradients():
            array = memory.view(offset, shape, dtype)
            self._add(self.gradients, name, memory, array)
            self._staged.append(name)
            offset += aligned(array.nbytes)

    def _add(
        self, places: dict[str, PlacedArray], name: str, memory: SharedMemory, array: Array
    ) -> None:
        placed = memory.place(array)
        if placed is not None:
            places[name] = placed

    def _large_tensors(self) -> list[tuple[str, Spec]]:
        found = []
        for name, array in self._tensors.items():
            wire_type = wire_type_of(array.dtype)
            if (
                name in self.inputs
                or array.nbytes <= thresholds.SENT_TENSOR_BYTES
                or array.ndim > MAX_RANK
            ):
                continue
            if wire_type is not None:  # other dtypes are refused when they are sent
                found.append((name, (wire_type.numpy, array.shape)))
        return found

    def _large_gradients(self) -> list[tuple[str, Spec]]:
        return [
            (name, spec)
            for name, spec in self._specs.items()
            if name not in self.gradients
            and _size_bytes(spec) > thresholds.SENT_TENSOR_BYTES
            and wire_type_of(spec[0]) is not None
            and spec[0].kind not in "biu"  # integers have no gradient, as the server will say
        ]

    def operation(self, leases: Sequence[Lease]) -> Operation[EvaluationResult]:
        """Return its call, whose result has the arrays that gradients were written into."""
        evaluation = self._batch.evaluation
        inputs = {name: self.inputs.get(name, each) for name, each in evaluation.inputs.items()}
        grad_output, weight = evaluation.grad_output, evaluation.sample_weight
        placed = replace(
            evaluation,
            inputs=inputs,
            grad_output=self.inputs.get(_GRAD_OUTPUT, grad_output),
            sample_weight=self.inputs.get(_SAMPLE_WEIGHT, weight),
        )
        message = loss_service_pb2.EvaluateRequest()
        fill_evaluation(message.evaluation, placed)
        for name, place in self.gradients.items():
            message.evaluation.gradient_destinations[name].CopyFrom(place.region)
        fit = Fit(evaluation)
        arrays = self._read = {name: place.array for name, place in self.gradients.items()}
        return Operation(
            EVALUATE,
            serialize(message),
            lambda answer: fit.check(
                read_result(answer.message.result, "region", arrays, answer.detached)
            ),
            leases=leases,
        )

    def clear(self) -> None:
        """Forget all places: an error that is kept keeps this, and must not keep their memory."""
        for each in (self.inputs, self.gradients, self._read):
            each.clear()

    def collect(self, result: EvaluationResult, memory: SharedMemory) -> EvaluationResult:
        """Copy gradients out of the staging region, into the caller's arrays."""
        for name in self._staged:
            staged = result.gradients.get(name)
            if staged is None:
                continue
            output = self._batch.out.get(name)
            if output is None:
                result.gradients[name] = staged.copy()
            else:
                np.copyto(output, staged)
                result.gradients[name] = output
        memory.check()
        return result


def _tensors(batch: Batch) -> Iterator[tuple[str, Array]]:
    """Yield every array of an evaluation that is not resident; inputs by their names."""
    yield from batch.sent_inputs()
    beside = {
        _GRAD_OUTPUT: batch.evaluation.grad_output,
        _SAMPLE_WEIGHT: batch.evaluation.sample_weight,
    }
    yield from ((name, each) for name, each in beside.items() if isinstance(each, np.ndarray))


def _size_bytes(spec: Spec) -> int:
    dtype, shape = spec
    return int(np.prod(shape, dtype=object)) * dtype.itemsize
