"""Encode: from outcomes to result messages."""

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from typing import NamedTuple

import torch

from losswire.server import __version__
from losswire.server.catalogue.value_rules import Array
from losswire.server.compute.dispatch import Outcome
from losswire.v1 import evaluation_pb2
from losswire.wire import BY_NAME, DETACHED_FROM, attach, bytes_of, encode_spec, encode_tensor


class Encoded(NamedTuple):
    """A result; large gradients are kept out of its message, so that they are copied only once."""

    message: evaluation_pb2.EvaluationResult
    detached: Mapping[str, Array]
    """The arrays of the tensors whose data is empty in the message, by their paths."""

    def whole(self) -> evaluation_pb2.EvaluationResult:
        """Return the message with all gradients in it."""
        for name, tensor in self.message.gradients.items():
            array = self.detached.get(_path(name))
            if array is not None:
                tensor.data = bytes(bytes_of(array))
        return self.message

    def parts(self) -> list[bytes | memoryview]:
        """Return the serialized result, with all gradients, in parts to be joined."""
        return attach(self.message, {path: bytes_of(each) for path, each in self.detached.items()})


def encode_detached(outcome: Outcome, queue_nanoseconds: int) -> Encoded:
    """Return the result message of an outcome, and its large gradients beside it."""
    large = {
        name: array for name, array in outcome.gradients.items() if array.nbytes >= DETACHED_FROM
    }
    if not large:
        return Encoded(encode(outcome, queue_nanoseconds), large)
    small = {name: array for name, array in outcome.gradients.items() if name not in large}
    message = encode(replace(outcome, gradients=small), queue_nanoseconds)
    for name, array in large.items():
        message.gradients[name].CopyFrom(encode_spec(array))
    return Encoded(message, {_path(name): array for name, array in large.items()})


def _path(name: str) -> str:
    return f'gradients["{name}"]'


def encode(outcome: Outcome, queue_nanoseconds: int) -> evaluation_pb2.EvaluationResult:
    """Return the result message of an outcome."""
    return evaluation_pb2.EvaluationResult(
        loss=encode_tensor(outcome.loss),
        sum=outcome.sum,
        mean_numerator=outcome.mean_numerator,
        mean_denominator=outcome.mean_denominator,
        count=outcome.count,
        gradients={name: encode_tensor(array) for name, array in outcome.gradients.items()}
        | {name: destination.message() for name, destination in outcome.placed.items()},
        factored_gradients={name: _factored(*each) for name, each in outcome.factors.items()},
        queue_nanoseconds=queue_nanoseconds,
        compute_nanoseconds=outcome.compute_nanoseconds,
        receipt=receipt_of(outcome),
    )


def receipt_of(outcome: Outcome) -> evaluation_pb2.Receipt:
    """Return the receipt of an outcome, which must not be changed."""
    return _receipt(outcome.device, outcome.engine, outcome.compute_dtype)


@cache
def _receipt(device: str, engine: str, compute_dtype: str) -> evaluation_pb2.Receipt:
    """Return a receipt; it is cached, because there are few and every result copies one."""
    return evaluation_pb2.Receipt(
        device=device,
        engine=engine,
        compute_data_type=BY_NAME[compute_dtype].data_type,
        server_version=__version__,
        torch_version=torch.__version__,
    )


def _factored(lse: Array, scale: Array, lse_tail: Array) -> evaluation_pb2.FactoredGradient:
    return evaluation_pb2.FactoredGradient(
        lse=encode_tensor(lse),
        scale=encode_tensor(scale),
        lse_tail=encode_tensor(lse_tail),
    )
