"""Messages that would grow far beyond their size when they are parsed."""

import sys
from types import FrameType
from typing import Any

import grpc
import numpy as np
import pytest

from losswire.server import thresholds
from losswire.server.errors import MalformedMessageError
from losswire.server.rpc.parse import parse
from losswire.v1 import evaluation_pb2, loss_service_pb2
from losswire.wire import detach, encode_tensor
from tests.support.harness import Child

_MIB = 1 << 20

_FLOODS = {
    "empty items": b"\x0a\x00" * (2 * _MIB),
    "items with an empty input": b"\x0a\x02\x12\x00" * _MIB,
    "empty inputs of one item": b"\x0a\x80\x80\x80\x02" + b"\x12\x00" * (2 * _MIB),
    "options": b"\x0a\x80\x80\x80\x02" + b"\x1a\x00" * (2 * _MIB),
    "behind a group": b"\x7b\x7c" + b"\x0a\x00" * (2 * _MIB),
    "behind a group of no submessage": b"\x7b\x0a\x01\xff\x7c" + b"\x0a\x00" * (2 * _MIB),
    "behind a number of more than 64 bits": b"\x78"
    + b"\xff" * 9
    + b"\x7f"
    + b"\x0a\x00" * (2 * _MIB),
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
            call(flood, timeout=60)
    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    limit = "the fields of the message take more than 33554432 bytes of memory"
    assert refused.value.details() == limit
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
    data, limit = many.SerializeToString(), thresholds.MAX_MANY_PARSED_BYTES
    assert parse(type(many), data, max_parsed_bytes=limit) == many
    item.inputs["input"].data = b"\x0a\x00" * (2 * _MIB)
    one = loss_service_pb2.EvaluateRequest(evaluation=item)
    assert parse(loss_service_pb2.EvaluateRequest, one.SerializeToString()) == one


def _steps_to_detach(tensors: int) -> int:
    """Take the elements out of a message of many tensors; returns the lines of Python executed."""
    request = loss_service_pb2.EvaluateRequest()
    for number in range(tensors):
        request.evaluation.inputs[f"{number:05}"].data = b"x"
    data = request.SerializeToString()
    steps = 0

    def trace(_: FrameType, event: str, __: object) -> Any:  # noqa: ANN401 (itself)
        nonlocal steps
        steps += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        bare, elements = detach(data, loss_service_pb2.EvaluateRequest)
    finally:
        sys.settrace(before)
    assert len(bare.evaluation.inputs) == len(elements) == tensors
    return steps


def test_the_work_for_many_tensors_grows_with_their_number() -> None:
    """Four times as many tensors take about four times as many steps, not sixteen."""
    few, many = _steps_to_detach(500), _steps_to_detach(2000)
    assert few > 500
    assert many < 6 * few


@pytest.mark.parametrize("byte", [b"\xff", b"\x80"])
@pytest.mark.parametrize("head", [b"", b"\x0a", b"\x08"])
@pytest.mark.parametrize("method", ["Evaluate", "EvaluateMany", "EvaluateStream"])
def test_numbers_without_end_are_refused(
    child: Child, method: str, head: bytes, byte: bytes
) -> None:
    """Bytes that all announce a further one are INVALID_ARGUMENT, and nothing waits for it."""
    data = head + byte * (8 * _MIB - 64)
    with child.channel() as channel:
        call: grpc.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(
            f"/losswire.v1.LossService/{method}"
        )
        with pytest.raises(grpc.RpcError) as refused:
            list(call(iter([data]), timeout=60))
    # Work that grows with the square of the size would end as DEADLINE_EXCEEDED.
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize("tail", [b"\xff", b"\x0a\xff", b"\x0b", b"\x0a" + b"\xff" * 20])
def test_large_malformed_messages_are_refused(tail: bytes) -> None:
    """Bytes that stop in the midst of a field are MalformedMessageError, however large."""
    item = evaluation_pb2.Evaluation(loss="x" * (128 << 10))
    data = loss_service_pb2.EvaluateRequest(evaluation=item).SerializeToString() + tail
    with pytest.raises(MalformedMessageError):
        parse(loss_service_pb2.EvaluateRequest, data)
