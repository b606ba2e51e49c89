"""Cross entropy by the native rows."""

import ctypes
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from losswire.server.closed_forms.block import InMessage, Options, Places, RowBlock
from losswire.server.closed_forms.factors import refuse_negative
from losswire.server.closed_forms.softmax import index_denominators
from losswire.server.native.binding import (
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

if TYPE_CHECKING:
    from losswire.server.work import Work

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


def fits_message(work: "Work") -> bool:
    """Tell whether the tensors of an evaluation have the types that are read and written there."""
    weight, gradient_type = work.inputs.get("weight"), work.gradient_type("input")
    return (
        work.inputs["target"].dtype == np.int64
        and (weight is None or weight.dtype == numpy_type(work.compute_dtype))
        and gradient_type in (work.inputs["input"].dtype.name, work.compute_dtype)
    )


def cross_entropy_in_message(places: Places) -> InMessage:
    """Prepare to compute evaluations of one form where their messages lie."""
    work = places.work
    logits, weight = work.inputs["input"], work.inputs.get("weight")
    gradient_type = work.gradient_type("input")
    rows, classes = logits.shape
    call = SoftmaxMessage(
        rows=SoftmaxRows(
            rows=rows,
            classes=classes,
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

    if weight is None or work.normalizer is not None:
        return evaluate
    weight_type, options = weight.dtype, work.options

    def evaluate_weighted(message: bytes, start: int, answer: int, waited: int) -> bool:
        target = np.frombuffer(message, np.int64, rows, start + call.target_at)
        weight = np.frombuffer(message, weight_type, classes, start + call.weight_at)
        try:
            terms = index_denominators({"target": target, "weight": weight}, options)
        except IndexError:  # a wrong class
            return False
        # Adding up in another order would give other bits than the first evaluation had.
        call.given, call.denominator = True, float(terms.sum(dtype=float))
        return evaluate(message, start, answer, waited)

    return evaluate_weighted


def _number(array: Array) -> Any:  # noqa: ANN401 (an enum's value is an int)
    """Give the number of an array's type on the wire."""
    known = wire_type_of(array.dtype)
    return known.data_type if known else 0
