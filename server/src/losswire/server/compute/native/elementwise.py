"""Losses of single elements in C++."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final

import numpy as np

from losswire.server.catalogue.closed_form import Options, RowBlock
from losswire.server.catalogue.shapes import Shape
from losswire.server.catalogue.value_rules import Array
from losswire.server.compute.native import binding
from losswire.server.compute.native.binding import Elements, ElementsMessage
from losswire.server.compute.native.places import InMessage, MessageOffsets, answer_at, evaluate_by
from losswire.server.compute.tensors import number_of, numpy_type
from losswire.server.compute.work import Work

_WEIGHTS: Final = ("weight", "pos_weight")
"""The inputs that may repeat along the others."""


class LossNumber(IntEnum):
    """The losses by number; `elements.cc` has the same numbers."""

    MSE = 0
    L1 = 1
    SMOOTH_L1 = 2
    HUBER = 3
    BCE_WITH_LOGITS = 4
    BCE_WITH_POS_WEIGHT = 5
    BCE = 6
    KL_DIV = 7
    KL_DIV_LOG = 8


_Choose = Callable[[Mapping[str, Array], Options], tuple[LossNumber, float]]
"""Returns the loss to compute, and its option."""


@dataclass(frozen=True, slots=True)
class ElementLoss:
    """A loss that has a value for each element."""

    choose: _Choose

    def fits(self, inputs: Mapping[str, Array], options: Options) -> bool:
        """Return whether all inputs have one dtype and weights, if they repeat, do so evenly."""
        del options
        dtype, shape = inputs["input"].dtype, inputs["input"].shape
        return (
            binding.AVAILABLE
            and all(each.dtype == dtype for each in inputs.values())
            and all(_repeats(inputs[name].shape, shape) for name in _WEIGHTS if name in inputs)
        )

    def rows(self, block: RowBlock, most_vector_bytes: int = binding.WIDEST) -> float:
        """Compute some elements; returns the sum of their values."""
        # Named here to keep them alive during the call.
        inputs = {name: np.ascontiguousarray(each) for name, each in block.inputs.items()}
        _unify_weights(inputs)
        given = next(iter(block.gradients.values()), inputs["input"]).dtype
        call = _call_of(self, inputs, block.options, given)
        call.most_vector_bytes = most_vector_bytes
        call.input, call.target = inputs["input"].ctypes.data, inputs["target"].ctypes.data
        if "weight" in inputs:
            call.weight = inputs["weight"].ctypes.data
        if "pos_weight" in inputs:
            call.pos_weight = inputs["pos_weight"].ctypes.data
        if block.removed is not None:
            call.removed = block.removed.ctypes.data
        if block.coefficients is not None:
            call.coefficients = block.coefficients.ctypes.data
            call.coefficient_step = min(block.coefficients.ndim, 1)
            call.divisor = block.divisor
        if "input" in block.gradients:
            call.input_gradient = block.gradients["input"].ctypes.data
        if "target" in block.gradients:
            call.target_gradient = block.gradients["target"].ctypes.data
        if block.values is not None:
            call.values = block.values.ctypes.data
        binding.compute(call, small=block.small)
        total: float = call.total
        return total

    def fits_message(self, work: Work) -> bool:
        """Return whether the tensors are read and written in a message as they are."""
        inputs = work.inputs
        count = math.prod(work.values_shape)
        repeating = {inputs[name].size for name in _WEIGHTS if name in inputs} - {count}
        natural = (inputs["input"].dtype.name, work.compute_dtype)
        return len(repeating) <= 1 and work.gradient_type("input") in natural

    def message_call(self, places: MessageOffsets) -> InMessage:
        """Return the computation of one skeleton's evaluations inside their messages."""
        work = places.work
        gradient_type = numpy_type(work.gradient_type("input"))
        call = ElementsMessage(
            answer=answer_at(places),
            elements=_call_of(self, work.inputs, work.options, gradient_type),
            input_at=places.inputs["input"],
            target_at=places.inputs["target"],
            weight_at=places.inputs.get("weight", -1),
            pos_weight_at=places.inputs.get("pos_weight", -1),
            input_gradient_at=places.gradients.get("input", -1),
            target_gradient_at=places.gradients.get("target", -1),
        )
        return evaluate_by(call, places)


def _repeats(weight: Shape, shape: Shape) -> bool:
    """Return whether a weight repeats without gaps along elements in row-major order."""
    lengths = list(weight)
    while lengths and lengths[0] == 1:
        del lengths[0]
    return not lengths or tuple(lengths) == shape[-len(lengths) :]


def _unify_weights(inputs: dict[str, Array]) -> None:
    """Tile weights that repeat, so that all of them repeat after the same number of elements."""
    count = inputs["input"].size
    repeating = [name for name in _WEIGHTS if name in inputs and inputs[name].size < count]
    longest = max((inputs[name].size for name in repeating), default=0)
    for name in repeating:
        if inputs[name].size < longest:
            inputs[name] = np.tile(inputs[name].reshape(-1), longest // inputs[name].size)


def _call_of(
    loss: ElementLoss, inputs: Mapping[str, Array], options: Options, gradient: np.dtype[Any]
) -> Elements:
    """Describe a computation, all but the addresses."""
    number, option = loss.choose(inputs, options)
    given = inputs["input"]
    sizes = [inputs[name].size if name in inputs else given.size for name in _WEIGHTS]
    return Elements(
        count=given.size,
        line=min(sizes),
        option=option,
        loss=number,
        weight_repeats=sizes[0] < given.size,
        pos_weight_repeats=sizes[1] < given.size,
        read_type=number_of(given.dtype),
        gradient_type=number_of(gradient),
        most_vector_bytes=binding.WIDEST,
    )


def _always(loss: LossNumber) -> _Choose:
    """Return the choice of one loss that has no option."""

    def choose(inputs: Mapping[str, Array], options: Options) -> tuple[LossNumber, float]:
        del inputs, options
        return loss, 0.0

    return choose


def _smooth_l1(inputs: Mapping[str, Array], options: Options) -> tuple[LossNumber, float]:
    dtype = np.float64 if inputs["input"].dtype == np.float64 else np.float32
    with np.errstate(all="ignore"):
        rounded = dtype(options["beta"])
    return (LossNumber.SMOOTH_L1 if rounded else LossNumber.L1), options["beta"]


def _huber(inputs: Mapping[str, Array], options: Options) -> tuple[LossNumber, float]:
    del inputs
    return LossNumber.HUBER, options["delta"]


def _bce_with_logits(inputs: Mapping[str, Array], options: Options) -> tuple[LossNumber, float]:
    del options
    weighted = "pos_weight" in inputs
    return (LossNumber.BCE_WITH_POS_WEIGHT if weighted else LossNumber.BCE_WITH_LOGITS), 0.0


def _kl_div(inputs: Mapping[str, Array], options: Options) -> tuple[LossNumber, float]:
    del inputs
    return (LossNumber.KL_DIV_LOG if options["log_target"] else LossNumber.KL_DIV), 0.0


MSE: Final = ElementLoss(_always(LossNumber.MSE))
L1: Final = ElementLoss(_always(LossNumber.L1))
SMOOTH_L1: Final = ElementLoss(_smooth_l1)
HUBER: Final = ElementLoss(_huber)
BCE_WITH_LOGITS: Final = ElementLoss(_bce_with_logits)
BCE: Final = ElementLoss(_always(LossNumber.BCE))
KL_DIV: Final = ElementLoss(_kl_div)
