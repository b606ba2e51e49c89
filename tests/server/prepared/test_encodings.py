"""However a request is encoded, it has one answer, before its form is known and after."""

import math
from typing import Any

import numpy as np
import pytest

from losswire.v1 import evaluation_pb2, loss_service_pb2, tensor_pb2, tensor_service_pb2_grpc
from losswire.wire import varint
from tests.support import resident
from tests.support.encodings import field, odd_evaluations, padded
from tests.support.harness import Child
from tests.support.inside import PATIENCE, outcome
from tests.support.prepared_forms import (
    NEEDS_NATIVE,
    SMALL,
    classes,
)
from tests.support.prepared_server import (
    SERVICE,
    Server,
    bits,
    raw_outcome,
    run_with_server,
)
from tests.support.regions import region
from tests.support.requests import Stub, by_call, essence

Evaluation = evaluation_pb2.Evaluation

pytestmark = NEEDS_NATIVE


_LOGITS = np.random.default_rng(3).standard_normal((4, 3)).astype(np.float32)
_ODD = odd_evaluations(_LOGITS, np.array([0, 2, 1, 1]))


@pytest.mark.parametrize("large", [False, True], ids=["small", "large"])
@pytest.mark.parametrize("name", _ODD)
def test_odd_encodings(name: str, large: bool, decoded: list[str]) -> None:  # noqa: FBT001
    """However a message is written, it has one answer, no matter how often it comes."""
    odd = _ODD[name]
    if large:
        logits = np.random.default_rng(3).standard_normal((127, 700)).astype(np.float32)
        odd = odd_evaluations(logits, np.arange(127) % 700)[name]
    request = b"\x0a" + varint(len(odd.message)) + odd.message

    async def body(server: Server) -> None:
        answers = [await raw_outcome(server, "Evaluate", request) for _ in range(3)]
        assert bits(answers[1:]) == bits(answers[:1] * 2)
        assert answers[0].HasField("result") is odd.valid
        if not odd.valid:
            return
        parsed = loss_service_pb2.EvaluateRequest.FromString(request).evaluation
        expected = await outcome(server.app.evaluator, parsed, math.inf)
        assert bits(answers[:1]) == bits([expected])
        decoded.clear()
        await server.raw("Evaluate", request)
        assert bool(decoded) is not odd.kept

    run_with_server(body)


@pytest.mark.parametrize("name", ["grad_output", "sample_weight"])
def test_tensors_that_are_stored_are_read(child: Child, name: str) -> None:
    """A tensor that an evaluation names, and whose elements its message does not have, counts."""
    array = np.array(2.0, np.float32) if name == "grad_output" else np.arange(6, dtype=np.float32)
    sent: dict[str, Any] = {name: array}
    named: dict[str, Any] = {name: resident.named(array)}
    with child.channel() as channel:
        resident.put(tensor_service_pb2_grpc.TensorServiceStub(channel), array)
        stub = Stub(channel)
        for seed in (1, 1, 2):
            expected = by_call(stub, classes(seed, **sent))
            asked = by_call(stub, classes(seed, **named))
            assert bits([asked]) == bits([expected])
            assert asked.HasField("result")


@pytest.mark.parametrize("name", ["input", "target"])
def test_the_last_source_of_a_tensor_counts(child: Child, name: str) -> None:
    """Elements in a message mean nothing where a region comes after them, which changes."""
    with child.channel() as channel, region(channel) as held:
        stub, plain = Stub(channel), classes(1)
        tensor = plain.inputs.pop(name)
        dtype = np.float32 if name == "input" else np.int64
        array = held.array(tuple(tensor.shape), dtype)
        place = tensor_pb2.Tensor(region=held.place(array))
        both = tensor.SerializeToString() + place.SerializeToString()
        entry = field(2, field(1, name.encode()) + field(2, both))
        message = plain.SerializeToString() + entry
        call: Any = channel.unary_unary(SERVICE + "Evaluate")
        for seed in (1, 2, 3):
            there = classes(seed).inputs[name]
            array.reshape(-1)[:] = np.frombuffer(there.data, dtype)
            answer = call(b"\x0a" + varint(len(message)) + message, timeout=PATIENCE)
            result = loss_service_pb2.EvaluateResponse.FromString(answer).result
            moved = Evaluation()
            moved.CopyFrom(plain)
            moved.inputs[name].CopyFrom(there)
            assert essence(result) == essence(by_call(stub, moved).result)


_PLAIN = _ODD["plain"].message
_GOOD = varint(len(_PLAIN)) + _PLAIN
_PART = varint(_PLAIN.index(b"\x12")) + _PLAIN[: _PLAIN.index(b"\x12")]
_REST = varint(len(_PLAIN) - _PLAIN.index(b"\x12")) + _PLAIN[_PLAIN.index(b"\x12") :]

_ENVELOPES: dict[str, tuple[str, bytes, bool]] = {
    "one": ("Evaluate", b"\x0a" + _GOOD, True),
    "one, its length of five bytes": (
        "Evaluate",
        b"\x0a" + padded(len(_PLAIN), 5) + _PLAIN,
        True,
    ),
    "one, its length of six bytes": ("Evaluate", b"\x0a" + padded(len(_PLAIN), 6) + _PLAIN, False),
    "one, its tag of two bytes": ("Evaluate", b"\x8a\x00" + _GOOD, True),
    "one in two parts": ("Evaluate", b"\x0a" + _PART + b"\x0a" + _REST, True),
    "one twice": ("Evaluate", (b"\x0a" + _GOOD) * 2, False),  # its gradients are named twice
    "one, and what is unknown": ("Evaluate", b"\x0a" + _GOOD + b"\x78\x01", True),
    "one, a byte too short": ("Evaluate", (b"\x0a" + _GOOD)[:-1], False),
    "one, a byte too long": ("Evaluate", b"\x0a" + _GOOD + b"\x00", False),
    "of many": ("EvaluateMany", b"\x0a" + _GOOD, True),
    "of many, its length of five bytes": (
        "EvaluateMany",
        b"\x0a" + padded(len(_PLAIN), 5) + _PLAIN,
        True,
    ),
    "of many, its length of six bytes": (
        "EvaluateMany",
        b"\x0a" + padded(len(_PLAIN), 6) + _PLAIN,
        False,
    ),
    "of many, and what is unknown": ("EvaluateMany", b"\x78\x01\x0a" + _GOOD, True),
    "of many, and a group": ("EvaluateMany", b"\x0a" + _GOOD + b"\x7b\x7c", True),
    "of many, a byte too short": ("EvaluateMany", (b"\x0a" + _GOOD)[:-1], False),
    "item": ("EvaluateStream", b"\x12" + _GOOD, True),
    "item with a number": ("EvaluateStream", b"\x08\x05\x12" + _GOOD, True),
    "item with the number 0": ("EvaluateStream", b"\x08\x00\x12" + _GOOD, True),
    "item with a padded number": (
        "EvaluateStream",
        b"\x08" + padded(5, 10) + b"\x12" + _GOOD,
        True,
    ),
    "item with the largest number": (
        "EvaluateStream",
        b"\x08" + varint(2**64 - 1) + b"\x12" + _GOOD,
        True,
    ),
    "item with a larger number": (
        "EvaluateStream",
        b"\x08\x85" + b"\x80" * 8 + b"\x7f\x12" + _GOOD,
        True,
    ),
    "item with a number of eleven bytes": (
        "EvaluateStream",
        b"\x08" + padded(5, 11) + b"\x12" + _GOOD,
        False,
    ),
    "item with two numbers": ("EvaluateStream", b"\x08\x05\x08\x06\x12" + _GOOD, True),
    "item with its number last": ("EvaluateStream", b"\x12" + _GOOD + b"\x08\x05", True),
    "item in two parts": ("EvaluateStream", b"\x08\x05\x12" + _PART + b"\x12" + _REST, True),
}


@pytest.mark.parametrize(("method", "request_bytes", "valid"), _ENVELOPES.values(), ids=_ENVELOPES)
def test_odd_envelopes(method: str, request_bytes: bytes, valid: bool) -> None:  # noqa: FBT001
    """However the message around an evaluation is written, its answer stays when that is known."""

    async def body(server: Server) -> None:
        first = await raw_outcome(server, method, request_bytes)
        assert first.HasField("result") is valid
        await server.raw("Evaluate", b"\x0a" + _GOOD)
        await server.raw("Evaluate", b"\x0a" + _GOOD)
        later = await raw_outcome(server, method, request_bytes)
        assert bits([later]) == bits([first])

    run_with_server(body)


@pytest.mark.parametrize(
    "name", [name for name, (_, _, valid) in _ENVELOPES.items() if valid and "item" in name]
)
def test_numbers_of_items(name: str) -> None:
    """The number of an item comes back as protobuf reads it, before its form is known and after."""
    method, request, _ = _ENVELOPES[name]
    expected = loss_service_pb2.EvaluateStreamRequest.FromString(request).id

    async def body(server: Server) -> None:
        for _ in range(3):
            answer = await server.raw(method, request)
            assert loss_service_pb2.EvaluateStreamResponse.FromString(answer).id == expected

    run_with_server(body)


def test_an_answer_is_what_protobuf_writes_but_for_padded_numbers() -> None:
    """Both answers have the same fields; what the second one has more is padding of integers."""

    async def body(server: Server) -> None:
        request = loss_service_pb2.EvaluateRequest(evaluation=SMALL(1)).SerializeToString()
        first, second = [await server.raw("Evaluate", request) for _ in range(2)]
        parsed = [loss_service_pb2.EvaluateResponse.FromString(each) for each in (first, second)]
        for each in parsed:
            assert not list(each.result.DESCRIPTOR.extensions)
            each.result.queue_nanoseconds = each.result.compute_nanoseconds = 0
        assert parsed[0] == parsed[1]
        assert len(second) - len(first) < 24

    run_with_server(body)
