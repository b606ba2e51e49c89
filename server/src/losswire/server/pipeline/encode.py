"""Encode: from outcomes and records to messages."""

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from typing import NamedTuple

from losswire.server._version import SERVER_VERSION, TORCH_VERSION
from losswire.server.catalogue.value_rules import Array
from losswire.server.compute.dispatch import Outcome
from losswire.v1 import evaluation_pb2
from losswire.wire import BY_NAME, DETACHED_FROM, attach, bytes_of, encode_spec, encode_tensor


class Encoded(NamedTuple):
    """A result, and what is too large to be copied into its message before it is sent."""

    message: evaluation_pb2.EvaluationResult
    apart: Mapping[str, Array]
    """The arrays of tensors whose data is empty in the message, by their paths."""

    def whole(self) -> evaluation_pb2.EvaluationResult:
        """Give the message with everything in it."""
        for name, tensor in self.message.gradients.items():
            array = self.apart.get(_path(name))
            if array is not None:
                tensor.data = bytes(bytes_of(array))
        return self.message

    def parts(self) -> list[bytes | memoryview]:
        """Give the parts of the serialized result, everything in it."""
        return attach(self.message, {path: bytes_of(each) for path, each in self.apart.items()})


def encode_apart(outcome: Outcome, queue_nanoseconds: int) -> Encoded:
    """Make an outcome a result, beside which its large gradients stand."""
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
    """Make an outcome a result."""
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
        receipt=_receipt(outcome.device, outcome.engine, outcome.compute_dtype),
    )


@cache
def _receipt(device: str, engine: str, compute_dtype: str) -> evaluation_pb2.Receipt:
    """Make a receipt, which is copied into each result; there are only a few."""
    return evaluation_pb2.Receipt(
        device=device,
        engine=engine,
        compute_data_type=BY_NAME[compute_dtype].data_type,
        server_version=SERVER_VERSION,
        torch_version=TORCH_VERSION,
    )


def _factored(lse: Array, scale: Array, lse_tail: Array) -> evaluation_pb2.FactoredGradient:
    return evaluation_pb2.FactoredGradient(
        lse=encode_tensor(lse),
        scale=encode_tensor(scale),
        lse_tail=encode_tensor(lse_tail),
    )
