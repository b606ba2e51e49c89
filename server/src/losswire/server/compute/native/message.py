"""Evaluations of one form that native code computes where their messages lie."""

import ctypes
import math
from typing import Any

import numpy as np

from losswire.server.catalogue.closed_form import InMessage, MessageOffsets
from losswire.server.catalogue.record import Reduction
from losswire.server.compute.native.binding import Answer, Message, in_message
from losswire.wire import wire_type_of


def answer_at(places: MessageOffsets) -> Answer:
    """Say where the parts of the answer go, and how the loss is formed."""
    work = places.work
    return Answer(
        loss_at=places.loss,
        numbers_at=places.numbers,
        mean=work.reduction is Reduction.MEAN,
        given=work.normalizer is not None,
        denominator=work.normalizer or 0.0,
    )


def evaluate_by(call: Message, places: MessageOffsets) -> InMessage:
    """Prepare to compute evaluations by a structure, which describes all of them."""
    work = places.work
    address, compute = ctypes.addressof(call), in_message(type(call), small=places.small)

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
            call.answer.given, call.answer.denominator = True, float(terms.sum(dtype=float))
        return evaluate(message, start, answer, waited)

    return evaluate_weighted


def number_of(dtype: np.dtype[Any]) -> int:
    """Give the number of a type on the wire; 0 if it has none."""
    known = wire_type_of(dtype)
    return known.data_type if known else 0
