"""Cross entropy and the negative log-likelihood of classes by the native rows."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

import numpy as np

from losswire.server.catalogue.closed_form import (
    InMessage,
    MessageOffsets,
    Native,
    Options,
    RowBlock,
)
from losswire.server.catalogue.value_rules import Array
from losswire.server.compute.closed_forms.factors import refuse_negative
from losswire.server.compute.native import binding
from losswire.server.compute.native.binding import SoftmaxMessage, SoftmaxRows
from losswire.server.compute.native.message import answer_at, evaluate_by, number_of
from losswire.server.compute.tensors import numpy_type, to_tensor

if TYPE_CHECKING:
    from losswire.server.compute.work import Work

_MATRIX: Final = 2
_FLOAT32: Final = np.dtype(np.float32)
_FLOAT64: Final = np.dtype(np.float64)


def fits(inputs: Mapping[str, Array], options: Options) -> bool:
    """Tell whether these are (N, C), and the library is here."""
    del options
    return binding.AVAILABLE and inputs["input"].ndim == _MATRIX


def cross_entropy(block: RowBlock, most_vector_bytes: int = binding.WIDEST) -> float:
    """Compute cross entropy with class indices; gives the sum of the values."""
    return _rows(block, most_vector_bytes, likelihood=False)


def nll(block: RowBlock, most_vector_bytes: int = binding.WIDEST) -> float:
    """Compute the negative log-likelihood of classes; gives the sum of the values."""
    return _rows(block, most_vector_bytes, likelihood=True)


def _rows(block: RowBlock, most_vector_bytes: int, *, likelihood: bool) -> float:
    logits, weight = block.inputs["input"], block.inputs.get("weight")
    smoothing: float = block.options.get("label_smoothing", 0.0)
    dtype = _FLOAT64 if logits.dtype == _FLOAT64 else _FLOAT32
    # All of these are kept alive by being named here.
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


def fits_message(work: "Work") -> bool:
    """Tell whether the tensors of an evaluation have the types that are read and written there."""
    weight, gradient_type = work.inputs.get("weight"), work.gradient_type("input")
    return (
        work.inputs["target"].dtype == np.int64
        and (weight is None or weight.dtype == numpy_type(work.compute_dtype))
        and gradient_type in (work.inputs["input"].dtype.name, work.compute_dtype)
    )


def cross_entropy_in_message(places: MessageOffsets) -> InMessage:
    """Prepare to compute evaluations of one form where their messages lie."""
    return _in_message(places, likelihood=False)


def nll_in_message(places: MessageOffsets) -> InMessage:
    """Prepare to compute evaluations of one form where their messages lie."""
    return _in_message(places, likelihood=True)


def _in_message(places: MessageOffsets, *, likelihood: bool) -> InMessage:
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
            likelihood=likelihood,
        ),
        logits_at=places.inputs["input"],
        target_at=places.inputs["target"],
        weight_at=places.inputs.get("weight", -1),
        gradient_at=places.gradients.get("input", -1),
    )
    return evaluate_by(call, places)


CROSS_ENTROPY: Final = Native(
    rows=cross_entropy,
    fits=fits,
    in_message=cross_entropy_in_message,
    fits_message=fits_message,
)
NLL: Final = Native(rows=nll, fits=fits, in_message=nll_in_message, fits_message=fits_message)
