"""The offsets of the tensors of prepared evaluations, and their computation in C++."""

import ctypes
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from losswire.server.catalogue.record import Reduction
from losswire.server.compute.native.binding import Answer, Message, message_function
from losswire.server.compute.tensors import sum_of
from losswire.server.compute.work import Work
from losswire.v1.tensor_pb2 import Region

InMessage = Callable[[bytes, int, int, int], bool]
"""Computes the evaluation at an offset of a message into the answer at an address, after some
nanoseconds in the queue, with the same bits as from arrays. False when a value is not accepted by
the loss, or there is no memory: then the answer must not be used. By one thread at a time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageOffsets:
    """The offsets of an evaluation's tensors: in its message, and in its answer."""

    work: Work
    """An evaluation of the same skeleton."""
    inputs: Mapping[str, int]
    """The offsets of the elements of inputs in the message of the evaluation."""
    shared: Mapping[str, Region]
    """The regions that hold the other inputs."""
    gradients: Mapping[str, int]
    """The offsets of gradients in the answer; the others go to regions."""
    loss: int
    """The offset of the loss in the answer, a number of the compute dtype."""
    numbers: int
    """The offset of the other numbers of a result in the answer."""
    small: bool
    """Whether this takes a moment only, so that the interpreter's lock may be kept."""


def answer_at(places: MessageOffsets) -> Answer:
    """Return the offsets of the parts of the answer, and how the loss is formed."""
    work = places.work
    return Answer(
        loss_at=places.loss,
        numbers_at=places.numbers,
        mean=work.reduction is Reduction.MEAN,
        has_denominator=work.normalizer is not None,
        denominator=work.normalizer or 0.0,
    )


def evaluate_by(call: Message, places: MessageOffsets) -> InMessage:
    """Return the computation of the evaluations that a structure describes."""
    work = places.work
    address, compute = ctypes.addressof(call), message_function(type(call), small=places.small)

    def evaluate(message: bytes, start: int, answer: int, waited: int) -> bool:
        call.answer.queue_nanoseconds = waited
        return compute(address, message, start, answer) == 0

    known = work.record.denominators.get(work.layout.name)
    if known is None or work.normalizer is not None or not work.inputs.keys() >= {*known.inputs}:
        return evaluate
    options, terms_of = work.options, known.terms
    inputs = [
        (name, work.inputs[name].dtype, work.inputs[name].shape, places.inputs[name])
        for name in known.inputs
    ]

    def evaluate_weighted(message: bytes, start: int, answer: int, waited: int) -> bool:
        arrays = {
            name: np.frombuffer(message, dtype, math.prod(shape), start + at).reshape(shape)
            for name, dtype, shape, at in inputs
        }
        try:
            terms = terms_of(arrays, options)
        except IndexError:  # a wrong class
            return False
        if terms is not None:
            # Adding up in another order would give other bits than the first evaluation had.
            call.answer.denominator = sum_of(terms)
            call.answer.has_denominator = True
        return evaluate(message, start, answer, waited)

    return evaluate_weighted
