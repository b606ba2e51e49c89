"""Accumulates the results of the parts of a chunked call."""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from losswire.server.catalogue.record import Reduction
from losswire.server.catalogue.value_rules import Array
from losswire.server.compute.dispatch import Outcome, Pause, compute
from losswire.server.compute.paths import native_form
from losswire.server.compute.reduce import MEANS, Sums, denominator_ahead, loss_of
from losswire.server.compute.tensors import numpy_type, to_array
from losswire.server.compute.work import Work
from losswire.server.memory.regions.places import Place, spec_of
from losswire.server.pipeline.admit import FACTORS, factor_bytes
from losswire.server.pipeline.chunked.plan import Plan
from losswire.server.pipeline.encode import encode
from losswire.v1 import loss_service_pb2
from losswire.wire import GRADIENT_ROWS, bytes_of

_FLOAT64_BYTES = 8


def held_bytes(plan: Plan) -> int:
    """Count the bytes that the whole call holds: its header and the accumulated results."""
    whole = plan.whole
    held = [array for name, array in whole.inputs.items() if name not in plan.streamed]
    held += [each for each in (whole.grad_output, whole.sample_weight) if each is not None]
    size = sum(array.nbytes for array in held)
    size += sum(whole.inputs[name].size * _FLOAT64_BYTES for name in plan.shared_gradients)
    if whole.factored:
        size += factor_bytes(whole) if plan.row_gradients else 0
    else:
        size += sum(whole.inputs[name].size * _FLOAT64_BYTES for name in plan.row_gradients)
    if whole.reduction is Reduction.NONE:
        size += int(np.prod(whole.values_shape, dtype=int)) * _FLOAT64_BYTES
    return size


class Accumulator:
    """The sums of one chunked call so far. All but the constructor runs on the worker's thread."""

    def __init__(self, plan: Plan, device: torch.device, pause: Pause) -> None:
        self._plan = plan
        self._pause = pause
        self._device = device
        self._sums = Sums()
        self._denominator = 0.0
        self._known: float | None = plan.whole.normalizer
        # Native rows write gradients directly into the message, at any address; torch does not.
        self._direct = (
            device.type == "cpu"
            and native_form(plan.whole) is not None
            and bool(plan.streamed_gradients)
            and not plan.whole.factored
        )
        self._waited = self._computing = 0
        self._begun = False
        self._failed = False
        self.result: loss_service_pb2.ChunkedResult | None = None
        """The result, once all rows were added."""
        self._values: Array | None = None
        self._rows: dict[str, Array] = {}
        self._factors: dict[str, tuple[Array, ...]] = {}
        self._shared: dict[str, npt.NDArray[np.float64]] = {}

    def _begin(self) -> None:
        """Allocate the result, and compute the mean's denominator if the parts need it."""
        self._begun = True
        plan, whole = self._plan, self._plan.whole
        if plan.needs_denominator:
            self._known = denominator_ahead(whole)
        if whole.reduction is Reduction.NONE:
            self._values = np.empty(whole.values_shape, numpy_type(whole.loss_dtype))
        for name in plan.row_gradients:
            if whole.factored:
                self._factors[name] = tuple(np.empty((FACTORS, *whole.values_shape)))
                continue
            dtype = numpy_type(whole.gradient_type(name))
            self._rows[name] = np.empty(whole.inputs[name].shape, dtype)
        for name in plan.shared_gradients:
            self._shared[name] = np.zeros(whole.inputs[name].shape, np.float64)

    def add(self, payload: memoryview, start: int, waited: int) -> bytes | None:
        """Compute some rows and add them; returns the message of gradients, if some stream.

        Raises InvalidEvaluationError for values that the loss does not accept.
        """
        if self._failed:  # an earlier part was refused
            return None
        self._failed = True
        if not self._begun:
            self._begin()
        part = self._plan.part(start, payload, self._known)
        message: bytes | None = None
        if self._direct:
            message, places = self._reserve_message(part)
            part = part.written_to(places)
        outcome = compute(part, self._device, self._pause)
        self._failed = False
        stop = start + part.values_shape[0]
        self._sums.total += outcome.sum
        self._sums.numerator += outcome.mean_numerator
        self._sums.count += outcome.count
        self._denominator += outcome.mean_denominator
        self._waited += waited
        self._computing += outcome.compute_nanoseconds
        if self._values is not None:
            self._values[start:stop] = outcome.loss
        for name, rows in self._rows.items():
            rows[start:stop] = outcome.gradients[name]
        for name, total in self._shared.items():
            np.add(total, outcome.gradients[name], out=total, dtype=np.float64)
        for name, factors in self._factors.items():
            for kept, found in zip(factors, outcome.factors[name], strict=True):
                kept[start:stop] = found
        if stop == self._plan.count:
            self.result = self._finish(outcome)
        return message or self._encoded(outcome)

    def _encoded(self, outcome: Outcome) -> bytes | None:
        """Return the message of the gradients of a part; None when none of them stream."""
        names, factored = self._plan.streamed_gradients, self._plan.whole.factored
        parts = [
            bytes_of(each)
            for name in names
            for each in (outcome.factors[name] if factored else [outcome.gradients[name]])
        ]
        return GRADIENT_ROWS.encode(parts) if names else None

    def _reserve_message(self, part: Work) -> tuple[bytes, dict[str, Place]]:
        """Reserve the message of a part's gradients; returns it with the arrays inside of it."""
        specs = {
            name: spec_of(part.gradient_type(name), part.inputs[name].shape)
            for name in self._plan.streamed_gradients
        }
        message, memory = GRADIENT_ROWS.reserve(sum(each.size_bytes for each in specs.values()))
        places, start = {}, 0
        for name, spec in specs.items():
            stop = start + spec.size_bytes
            array = memory[start:stop].view(spec.wire_type.numpy).reshape(spec.shape)
            places[name] = Place(array)
            start = stop
        return message, places

    def _finish(self, last: Outcome) -> loss_service_pb2.ChunkedResult:
        """Return the result of all rows."""
        whole = self._plan.whole
        gradients = self._rows | {name: self._finished(name) for name in self._shared}
        in_means = whole.reduction in MEANS
        denominator = self._known if in_means and self._known is not None else self._denominator
        outcome = Outcome(
            loss=self._loss(denominator) if self._values is None else self._values,
            sum=self._sums.total,
            mean_numerator=self._sums.numerator,
            mean_denominator=denominator,
            count=self._sums.count,
            gradients=gradients,
            factors=self._factors,
            compute_nanoseconds=self._computing,
            device=last.device,
            engine=last.engine,
            compute_dtype=whole.compute_dtype,
        )
        return loss_service_pb2.ChunkedResult(
            result=encode(outcome, self._waited), rows=self._plan.count
        )

    def _loss(self, denominator: float) -> Array:
        whole = self._plan.whole
        dtype: torch.dtype = getattr(torch, whole.loss_dtype)
        return to_array(torch.tensor(loss_of(whole, self._sums, denominator), dtype=dtype))

    def _finished(self, name: str) -> npt.NDArray[Any]:
        """Round a sum to the compute type and then to that of the gradient, as torch would."""
        whole = self._plan.whole
        total = self._shared[name].astype(numpy_type(whole.compute_dtype))
        return total.astype(numpy_type(whole.gradient_type(name)), copy=False)

    def finish_empty(self, waited: int) -> loss_service_pb2.ChunkedResult:
        """Evaluate a call without rows: the empty placeholder arrays already are its inputs."""
        outcome = compute(self._plan.whole, self._device)
        result = encode(outcome, waited)
        for name in self._plan.streamed_gradients:
            result.gradients.pop(name, None)
            result.factored_gradients.pop(name, None)
        return loss_service_pb2.ChunkedResult(result=result, rows=0)
