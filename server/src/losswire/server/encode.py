"""Encode: from outcomes and records to messages."""

from functools import cache

from losswire.server._version import SERVER_VERSION, TORCH_VERSION
from losswire.server.compute import Outcome
from losswire.server.values import Array
from losswire.v1 import evaluation_pb2, tensor_pb2
from losswire.wire import DATA_TYPES, encode_tensor

NUMBERS: dict[str, tensor_pb2.DataType.ValueType] = {
    each.name: each.data_type for each in DATA_TYPES.values()
}
"""The number of each data type, by name."""


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
        compute_data_type=NUMBERS[compute_dtype],
        server_version=SERVER_VERSION,
        torch_version=TORCH_VERSION,
    )


def _factored(lse: Array, scale: Array, lse_tail: Array) -> evaluation_pb2.FactoredGradient:
    return evaluation_pb2.FactoredGradient(
        lse=encode_tensor(lse),
        scale=encode_tensor(scale),
        lse_tail=encode_tensor(lse_tail),
    )
