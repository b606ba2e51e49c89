"""Cross entropy and the negative log-likelihood of classes in C++."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from losswire.server.catalogue.closed_form import Options, RowBlock
from losswire.server.catalogue.value_rules import Array
from losswire.server.compute.closed_forms.factors import refuse_negative
from losswire.server.compute.native import binding
from losswire.server.compute.native.binding import SoftmaxMessage, SoftmaxRows
from losswire.server.compute.native.places import InMessage, MessageOffsets, answer_at, evaluate_by
from losswire.server.compute.tensors import number_of, numpy_type, to_tensor
from losswire.server.compute.work import Work

_MATRIX: Final = 2
_FLOAT32: Final = np.dtype(np.float32)
_FLOAT64: Final = np.dtype(np.float64)


@dataclass(frozen=True, slots=True)
class SoftmaxLoss:
    """A loss over classes: of logits, or with `likelihood` of log-probabilities."""

    likelihood: bool

    def fits(self, inputs: Mapping[str, Array], options: Options) -> bool:
        """Return whether the inputs are (N, C), and the library is here."""
        del options
        return binding.AVAILABLE and inputs["input"].ndim == _MATRIX

    def rows(self, block: RowBlock, most_vector_bytes: int = binding.WIDEST) -> float:
        """Compute some rows; returns the sum of their values."""
        return _compute(block, most_vector_bytes, likelihood=self.likelihood)

    def fits_message(self, work: Work) -> bool:
        """Return whether the tensors have the dtypes that are read and written in a message."""
        weight, gradient_type = work.inputs.get("weight"), work.gradient_type("input")
        return (
            work.inputs["target"].dtype == np.int64
            and (weight is None or weight.dtype == numpy_type(work.compute_dtype))
            and gradient_type in (work.inputs["input"].dtype.name, work.compute_dtype)
        )

    def message_call(self, places: MessageOffsets) -> InMessage:
        """Return the computation of one skeleton's evaluations inside their messages."""
        work = places.work
        logits = work.inputs["input"]
        rows, classes = logits.shape
        call = SoftmaxMessage(
            answer=answer_at(places),
            rows=SoftmaxRows(
                rows=rows,
                classes=classes,
                ignore_index=work.options["ignore_index"],
                smoothing=work.options.get("label_smoothing", 0.0),
                read_type=number_of(logits.dtype),
                gradient_type=number_of(numpy_type(work.gradient_type("input"))),
                most_vector_bytes=binding.WIDEST,
                likelihood=self.likelihood,
            ),
            logits_at=places.inputs["input"],
            target_at=places.inputs["target"],
            weight_at=places.inputs.get("weight", -1),
            gradient_at=places.gradients.get("input", -1),
        )
        return evaluate_by(call, places)


def _compute(block: RowBlock, most_vector_bytes: int, *, likelihood: bool) -> float:
    logits, weight = block.inputs["input"], block.inputs.get("weight")
    smoothing: float = block.options.get("label_smoothing", 0.0)
    dtype = _FLOAT64 if logits.dtype == _FLOAT64 else _FLOAT32
    # Named here to keep them alive during the call.
    logits = np.ascontiguousarray(logits)
    target = np.ascontiguousarray(block.inputs["target"], np.int64)
    coefficients, gradient = block.coefficients, block.gradients.get("input")
    call = SoftmaxRows(
        rows=logits.shape[0],
        classes=logits.shape[1],
        logits=logits.ctypes.data,
        target=target.ctypes.data,
        ignore_index=block.options["ignore_index"],
        smoothing=smoothing,
        read_type=number_of(logits.dtype),
        gradient_type=number_of((logits if gradient is None else gradient).dtype),
        most_vector_bytes=most_vector_bytes,
        likelihood=likelihood,
    )
    if weight is not None:
        weight = np.ascontiguousarray(weight, dtype)
        call.weight = weight.ctypes.data
    if block.removed is not None:
        call.removed = block.removed.ctypes.data
    if coefficients is not None:
        call.coefficients = coefficients.ctypes.data
        call.coefficient_step = coefficients.ndim
        call.divisor = block.divisor
    if gradient is not None:
        call.gradient = gradient.ctypes.data
    if block.values is not None:
        call.values = block.values.ctypes.data
    if block.factors is not None:
        if smoothing and weight is not None:
            refuse_negative(to_tensor(weight), "weight")
        call.factors = block.factors.ctypes.data
        call.factor_step = block.factors.strides[0] // _FLOAT64.itemsize
    binding.compute(call, small=block.small)
    total: float = call.total
    return total


CROSS_ENTROPY: Final = SoftmaxLoss(likelihood=False)
NLL: Final = SoftmaxLoss(likelihood=True)
