"""Messages that would grow far beyond their size when they are parsed."""

import grpc
import numpy as np
import pytest

from losswire.server.errors import MalformedMessageError
from losswire.server.parse import parse
from losswire.v1 import evaluation_pb2, loss_service_pb2
from losswire.wire import encode_tensor
from tests.server.harness import Child

_MIB = 1 << 20

_FLOODS = {
    "empty items": b"\x0a\x00" * (2 * _MIB),
    "items with an empty input": b"\x0a\x02\x12\x00" * _MIB,
    "empty inputs of one item": b"\x0a\x80\x80\x80\x02" + b"\x12\x00" * (2 * _MIB),
    "options": b"\x0a\x80\x80\x80\x02" + b"\x1a\x00" * (2 * _MIB),
}


@pytest.mark.parametrize("flood", _FLOODS.values(), ids=_FLOODS)
def test_floods_are_refused_before_they_grow(child: Child, flood: bytes) -> None:
    """A message of millions of fields is RESOURCE_EXHAUSTED, and takes a few times its size."""
    before = child.resident_bytes
    with child.channel() as channel:
        call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(
            "/losswire.v1.LossService/EvaluateMany"
        )
        with pytest.raises(grpc.RpcError) as refused:
            call(flood, timeout=30)
    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert child.resident_bytes - before <= 64 * _MIB


def test_large_honest_messages_are_parsed() -> None:
    """The largest EvaluateMany, and a large tensor whose bytes look like fields, are parsed."""
    item = evaluation_pb2.Evaluation(
        loss="mse_loss",
        inputs={"input": encode_tensor(np.ones(3)), "target": encode_tensor(np.zeros(3))},
        options={"a": evaluation_pb2.OptionValue(double_value=1.0)},
        gradients_for=["input"],
        normalizer=2.0,
    )
    many = loss_service_pb2.EvaluateManyRequest(evaluations=[item] * 4096)
    assert parse(loss_service_pb2.EvaluateManyRequest, many.SerializeToString()) == many
    item.inputs["input"].data = b"\x0a\x00" * (2 * _MIB)
    one = loss_service_pb2.EvaluateRequest(evaluation=item)
    assert parse(loss_service_pb2.EvaluateRequest, one.SerializeToString()) == one


@pytest.mark.parametrize("tail", [b"\xff", b"\x0a\xff", b"\x0b", b"\x0a" + b"\xff" * 20])
def test_large_malformed_messages_are_refused(tail: bytes) -> None:
    """Bytes that stop in the midst of a field are MalformedMessageError, however large."""
    item = evaluation_pb2.Evaluation(loss="x" * (128 << 10))
    data = loss_service_pb2.EvaluateRequest(evaluation=item).SerializeToString() + tail
    with pytest.raises(MalformedMessageError):
        parse(loss_service_pb2.EvaluateRequest, data)
