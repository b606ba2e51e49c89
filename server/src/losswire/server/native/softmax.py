"""Cross entropy by the native rows."""

import ctypes
from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from losswire.server.closed_forms.block import InMessage, Options, Places, RowBlock
from losswire.server.closed_forms.factors import refuse_negative
from losswire.server.native.library import (
    AVAILABLE,
    SoftmaxMessage,
    SoftmaxRows,
    softmax_message,
    softmax_rows,
)
from losswire.server.records import Reduction
from losswire.server.tensors import numpy_type, to_tensor
from losswire.server.values import Array
from losswire.wire import wire_type_of

_MATRIX: Final = 2
_FLOAT32: Final = np.dtype(np.float32)
_FLOAT64: Final = np.dtype(np.float64)

_WIDEST: Final = 64
"""The widest registers to use, in bytes; the processor may have narrower ones."""


def fits(inputs: Mapping[str, Array], options: Options) -> bool:
    """Tell whether these are (N, C), and the library is here."""
    del options
    return AVAILABLE and inputs["input"].ndim == _MATRIX


def cross_entropy(block: RowBlock, most_vector_bytes: int = _WIDEST) -> float:
    """Compute cross entropy with class indices; gives the sum of the values."""
    logits, weight = block.inputs["input"], block.inputs.get("weight")
    smoothing: float = block.options["label_smoothing"]
    dtype = _FLOAT64 if logits.dtype == _FLOAT64 else _FLOAT32
    # All of these are kept alive by being named here.
    logits = np.ascontiguousarray(logits)
    target = np.ascontiguousarray(block.inputs["target"], np.int64)
    coefficients, gradient = block.coefficients, block.gradient
    call = SoftmaxRows(
        rows=logits.shape[0],
        classes=logits.shape[1],
        logits=logits.ctypes.data,
        target=target.ctypes.data,
        ignore_index=block.options["ignore_index"],
        smoothing=smoothing,
        logits_type=_number(logits),
        gradient_type=_number(logits if gradient is None else gradient),
        most_vector_bytes=most_vector_bytes,
    )
    if weight is not None:
        weight = np.ascontiguousarray(weight, dtype)
        call.weight = weight.ctypes.data
    if block.removed is not None:
        call.removed = block.removed.ctypes.data
    if coefficients is not None:
        call.coefficients = coefficients.ctypes.data
        call.coefficient_step = coefficients.ndim
    if gradient is not None:
        call.gradient = gradient.ctypes.data
    if block.values is not None:
        call.values = block.values.ctypes.data
    if block.factors is not None:
        if smoothing and weight is not None:
            refuse_negative(to_tensor(weight), "weight")
        call.factors = block.factors.ctypes.data
        call.factor_step = block.factors.strides[0] // _FLOAT64.itemsize
    softmax_rows(call, small=block.small)
    total: float = call.total
    return total


def cross_entropy_in_message(places: Places) -> InMessage | None:
    """Prepare to compute small evaluations of one form where their messages lie."""
    work = places.work
    logits, weight = work.inputs["input"], work.inputs.get("weight")
    gradient_type = work.gradient_type("input")
    if (
        work.inputs["target"].dtype != np.int64
        # The line adds class weights up in another order, and both must give the same.
        or (weight is not None and work.normalizer is None)
        or (weight is not None and weight.dtype != numpy_type(work.compute_dtype))
        or gradient_type not in (logits.dtype.name, work.compute_dtype)
    ):
        return None
    call = SoftmaxMessage(
        rows=SoftmaxRows(
            rows=work.values_shape[0],
            classes=logits.shape[1],
            ignore_index=work.options["ignore_index"],
            smoothing=work.options["label_smoothing"],
            logits_type=_number(logits),
            gradient_type=_number(np.empty(0, numpy_type(gradient_type))),
            most_vector_bytes=_WIDEST,
        ),
        logits_at=places.inputs["input"],
        target_at=places.inputs["target"],
        weight_at=places.inputs.get("weight", -1),
        gradient_at=places.gradients.get("input", -1),
        loss_at=places.loss,
        numbers_at=places.numbers,
        mean=work.reduction is Reduction.MEAN,
        given=work.normalizer is not None,
        denominator=work.normalizer or 0.0,
    )
    address, compute = ctypes.addressof(call), softmax_message(small=places.small)

    def evaluate(message: bytes, start: int, answer: int, waited: int) -> bool:
        call.queue_nanoseconds = waited
        return compute(address, message, start, answer) == 0

    return evaluate


def _number(array: Array) -> Any:  # noqa: ANN401 (an enum's value is an int)
    """Give the number of an array's type on the wire."""
    known = wire_type_of(array.dtype)
    return known.data_type if known else 0
