"""Tensors in serialized messages: found as protobuf finds them, or not at all."""

import ctypes
import random

import numpy as np
import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from losswire.v1 import evaluation_pb2, loss_service_pb2, summary_pb2, tensor_pb2
from losswire.wire import (
    SIZE_BYTES,
    Template,
    attach,
    delimited_tag,
    detach,
    fields,
    find_payloads,
    new_bytes,
    read_delimited,
    read_varint,
    varint,
)
from tests.support.encodings import Odd, odd_evaluations, padded

Evaluation = evaluation_pb2.Evaluation
Request = loss_service_pb2.EvaluateRequest

_LOGITS = np.linspace(-1, 1, 12, dtype=np.float32).reshape(4, 3)
_TARGET = np.array([0, 2, 1, 1])
_ODD = odd_evaluations(_LOGITS, _TARGET)


def _data(message: Evaluation) -> dict[str, bytes]:
    """Return the data of all tensors of an evaluation, by path, as protobuf reads them."""
    tensors = {f'inputs["{name}"]': each for name, each in message.inputs.items()}
    if message.HasField("grad_output"):
        tensors["grad_output"] = message.grad_output
    if message.HasField("sample_weight"):
        tensors["sample_weight"] = message.sample_weight
    return {path: each.data for path, each in tensors.items() if each.HasField("data")}


def _found(message: bytes) -> dict[str, bytes]:
    payloads = find_payloads(message, Evaluation)
    return {each.path: message[each.start : each.stop] for each in payloads}


@pytest.mark.parametrize("odd", _ODD.values(), ids=_ODD)
def test_odd_encodings(odd: Odd) -> None:
    """What protobuf takes for the data of a tensor is found, alone, or nothing is."""
    try:
        parsed = Evaluation.FromString(odd.message)
    except DecodeError:
        assert not odd.kept
        return
    try:
        found = _found(odd.message)
    except ValueError:
        assert not odd.kept
        return
    # What is found beside that is in an entry or a source that protobuf does not count.
    assert _data(parsed).items() <= found.items()
    if odd.kept:
        assert _data(parsed) == found


@pytest.mark.parametrize("odd", _ODD.values(), ids=_ODD)
def test_odd_encodings_are_taken_apart(odd: Odd) -> None:
    """Without their elements messages are what protobuf makes of them, or refused as by it."""
    request = b"\x0a" + varint(len(odd.message)) + odd.message
    try:
        whole = Request.FromString(request)
    except DecodeError:
        with pytest.raises(DecodeError):
            detach(request, Request)
        return
    bare, elements = detach(request, Request)
    for path, data in _data(whole.evaluation).items():
        kept = _data(bare.evaluation)[path]
        assert (elements.get(f"evaluation.{path}") or kept) == data
    for tensor in (*whole.evaluation.inputs.values(), *bare.evaluation.inputs.values()):
        if tensor.HasField("data"):
            tensor.data = b""
    for message in (whole, bare):
        message.evaluation.sample_weight.data = b""
        message.DiscardUnknownFields()
    assert bare == whole


def test_tensors_of_a_batch() -> None:
    """Those of each candidate have paths of their own, and columns are left to protobuf."""
    tensors = {name: tensor_pb2.Tensor(data=name.encode()) for name in ("a", "b", "c", "w")}
    column = summary_pb2.Column(codes=tensors["a"], labels=["x", "y"])
    batch = summary_pb2.SummaryBatch(
        inputs={"t": tensors["c"]},
        candidates=[
            summary_pb2.CandidateBatch(inputs={"i": tensors["a"]}),
            summary_pb2.CandidateBatch(),
            summary_pb2.CandidateBatch(inputs={"i": tensors["b"]}),
        ],
        sample_weight=tensors["w"],
        columns={"k": column},
        ids=column,
    )
    request = loss_service_pb2.SummarizeLossesRequest(batch=batch)
    data = request.SerializeToString()
    bare, elements = detach(data, loss_service_pb2.SummarizeLossesRequest)
    assert {path: bytes(each) for path, each in elements.items()} == {
        'batch.inputs["t"]': b"c",
        'batch.candidates[0].inputs["i"]': b"a",
        'batch.candidates[2].inputs["i"]': b"b",
        "batch.sample_weight": b"w",
    }
    assert bare.batch.columns["k"] == bare.batch.ids == column
    assert bare.batch.candidates[0].inputs["i"].data == b""
    assert b"".join(attach(bare, elements)) == data


@pytest.mark.parametrize(
    "name",
    [
        "data twice",
        "data, a region, data",
        "a group",
        "a group in a tensor",
        "an input twice",
        "a value before its key",
        "a value in two",
        "a key twice",
        "no key",
        "more in an entry",
        "half a field",
        "a field that is too long",
    ],
)
def test_what_no_ordinary_encoder_writes(name: str) -> None:
    """Where it takes protobuf to tell which data counts, nothing is found."""
    with pytest.raises(ValueError, match=r"."):
        find_payloads(_ODD[name].message, Evaluation)


_TENSORS = st.builds(
    tensor_pb2.Tensor,
    data_type=st.sampled_from([0, 9, 10]),
    shape=st.lists(st.integers(-1, 300), max_size=3),
    data=st.none() | st.binary(max_size=200),
) | st.builds(
    tensor_pb2.Tensor,
    resident=st.builds(tensor_pb2.TensorId, sha256=st.binary(max_size=32)),
)
_NAMES = st.text(max_size=5) | st.sampled_from(['a"]', 'a"].inputs["b', "input", "target"])
_OPTIONS = st.builds(evaluation_pb2.OptionValue, double_value=st.floats()) | st.builds(
    evaluation_pb2.OptionValue, string_value=st.text(max_size=200)
)
_EVALUATIONS = st.builds(
    Evaluation,
    loss=st.text(max_size=20),
    inputs=st.dictionaries(_NAMES, _TENSORS, max_size=4),
    options=st.dictionaries(_NAMES, _OPTIONS, max_size=3),
    reduction=st.integers(0, 2**31 - 1),
    gradients_for=st.lists(_NAMES, max_size=3),
    grad_output=st.none() | _TENSORS,
    sample_weight=st.none() | _TENSORS,
    normalizer=st.none() | st.floats(),
)


@given(_EVALUATIONS)
def test_payloads_are_the_data_of_tensors(message: Evaluation) -> None:
    """Exactly the data of all tensors is found, whatever the evaluation."""
    assert _found(message.SerializeToString()) == _data(message)


@given(_EVALUATIONS)
def test_what_was_taken_apart_is_put_together(message: Evaluation) -> None:
    """Without its elements a message is small, and with them it is what it was."""
    data = Request(evaluation=message).SerializeToString()
    bare, elements = detach(data, Request)
    assert not any(_data(bare.evaluation).values())
    assert len(elements) == len(_data(message))
    whole = b"".join(map(bytes, attach(bare, elements)))
    # Two NaN are not equal, but their bytes are.
    expected = Request.FromString(data).SerializeToString(deterministic=True)
    assert Request.FromString(whole).SerializeToString(deterministic=True) == expected


@given(_EVALUATIONS, st.integers(0, 20), st.integers(1, 255))
def test_a_template_matches_what_differs_in_elements_only(
    message: Evaluation, before: int, change: int
) -> None:
    """Whichever byte is changed: inside of elements it still matches, outside it does not."""
    data = message.SerializeToString()
    payloads = find_payloads(data, Evaluation)
    template = Template(data, [each.span for each in payloads])
    inside = {place for each in payloads for place in range(each.start, each.stop)}
    assert template.size == len(data)
    for place in range(len(data)):
        changed = bytearray(bytes(before) + data)
        changed[before + place] ^= change
        assert template.matches(bytes(changed), before) is (place in inside)


@given(_EVALUATIONS, st.randoms(use_true_random=False))
def test_a_template_is_filled_with_other_elements(message: Evaluation, dice: random.Random) -> None:
    """Given elements of the same sizes, in any order of its spans, it writes their message."""
    data = message.SerializeToString()
    payloads = find_payloads(data, Evaluation)
    dice.shuffle(payloads)
    template = Template(data, [each.span for each in payloads])
    assert template.constant_bytes == len(data) - sum(a.stop - a.start for a in payloads)
    others = [bytes([x ^ 1 for x in data[slice(*each.span)]]) for each in payloads]
    expected = bytearray(data)
    for each, other in zip(payloads, others, strict=True):
        expected[slice(*each.span)] = other
    written = template.fill(b"\x0a", others)
    assert written == b"\x0a" + varint(len(data)) + expected


def test_a_template_is_filled_with_arrays() -> None:
    """Elements are arrays, too, in whatever order they are in memory."""
    array = np.arange(6, dtype=np.uint8).reshape(2, 3)
    template = Template(b"(123456)", [(1, 7)])
    assert template.fill(b"?", [array]) == b"?\x08(" + array.tobytes() + b")"
    assert template.fill(b"?", [array.T]) == b"?\x08(" + array.T.tobytes() + b")"


_FIELDS: dict[str, tuple[bytes, list[tuple[int, int]]]] = {
    "nothing": (b"", []),
    "each wire type": (
        b"\x08\x05\x11" + bytes(8) + b"\x1a\x02ab\x25" + bytes(4),
        [(1, 0), (2, 1), (3, 2), (4, 5)],
    ),
    "a group": (b"\x0b\x10\x05\x0c", [(1, 3), (2, 0), (1, 4)]),
    "a padded tag": (b"\x8a\x00\x01a", [(1, 2)]),
    "a long tag": (padded(10, 5) + b"\x00", [(1, 2)]),
}


@pytest.mark.parametrize(("message", "expected"), _FIELDS.values(), ids=_FIELDS)
def test_fields(message: bytes, expected: list[tuple[int, int]]) -> None:
    """All fields are found with their wire types, and one ends where the next one begins."""
    found = list(fields(b"?" + message, 1, 1 + len(message)))
    assert [(number, kind) for number, kind, *_ in found] == expected
    assert [head for _, _, head, *_ in found] == [1, *(end for *_, end in found)][:-1]


@pytest.mark.parametrize(
    "message",
    [b"\x0a", b"\x0a\x02a", b"\x09abc", b"\x0e", b"\x0f", padded(10, 6) + b"\x00", b"\x08\x80"],
    ids=bytes.hex,
)
def test_what_is_no_field(message: bytes) -> None:
    """Bytes that end too early or have no wire type are a ValueError, after the fields before."""
    found = fields(b"\x08\x01" + message, 0, 2 + len(message))
    assert next(found)[:2] == (1, 0)
    with pytest.raises(ValueError, match=r"."):
        list(found)


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (b"?\x0a\x01a", (3, 4)),
        (b"?\x0a\x00", (3, 3)),
        (b"?\x0a\x09a", (3, 12)),
        (b"?\x12\x01a", None),
        (b"?\x0a", None),
        (b"?", None),
    ],
    ids=lambda each: each.hex() if isinstance(each, bytes) else "",
)
def test_the_field_at_an_offset(message: bytes, expected: tuple[int, int] | None) -> None:
    """A field is found by its tag, with the end that its length says."""
    assert read_delimited(message, 1, delimited_tag(1)) == expected


@pytest.mark.parametrize("number", [0, 1, 127, 128, 2**14 - 1, 2**14, 2**32, 2**63, 2**64 - 1])
def test_numbers(number: int) -> None:
    """Numbers are written as protobuf writes them, and read with as many bytes as ten."""
    written = varint(number)
    message = loss_service_pb2.EvaluateStreamRequest(id=number)
    assert message.SerializeToString() == (b"\x08" + written if number else b"")
    for width in range(len(written), 11):
        data = b"?" + padded(number, width) + b"\xff"
        assert read_varint(data, 1) == (number, 1 + width)
        assert loss_service_pb2.EvaluateStreamRequest.FromString(b"\x08" + data[1:-1]) == message


@pytest.mark.parametrize(
    "data",
    [b"", b"\x80", b"\xff" * 9, b"\xff" * 10 + b"\x01", b"\x80" * 10 + b"\x00"],
    ids=lambda data: f"{len(data)} bytes",
)
def test_what_is_no_number(data: bytes) -> None:
    """A number that does not end within ten bytes is a ValueError, as protobuf refuses it."""
    with pytest.raises(ValueError, match="not a number"):
        read_varint(data, 0)
    with pytest.raises(DecodeError):
        loss_service_pb2.EvaluateStreamRequest.FromString(b"\x08" + data)


@pytest.mark.parametrize("last", [0x01, 0x02, 0x7E, 0x7F])
def test_numbers_of_more_than_64_bits(last: int) -> None:
    """What is beyond 64 bits is left out, as by protobuf."""
    data = b"\x85" + b"\x80" * 8 + bytes([last])
    parsed = loss_service_pb2.EvaluateStreamRequest.FromString(b"\x08" + data)
    assert read_varint(data, 0) == (parsed.id, 10)


@pytest.mark.parametrize("width", range(1, 11))
def test_lengths_have_as_many_bytes_as_protobuf_takes(width: int) -> None:
    """A length is read up to five bytes, and protobuf refuses those that are longer."""
    data = padded(1, width) + b"x"
    if width <= SIZE_BYTES:
        assert read_varint(data, 0, SIZE_BYTES) == (1, width)
        assert Evaluation.FromString(b"\x0a" + data).loss == "x"
        return
    with pytest.raises(ValueError, match="not a number"):
        read_varint(data, 0, SIZE_BYTES)
    with pytest.raises(DecodeError):
        Evaluation.FromString(b"\x0a" + data)


@pytest.mark.parametrize("size", [1, 2, 33, 4096, 1 << 20])
def test_new_bytes(size: int) -> None:
    """Each is a bytes object of its own, of that size, which has what is written to it."""
    message, address = new_bytes(size)
    other, elsewhere = new_bytes(size)
    np.ctypeslib.as_array(_memory(address, size))[:] = 7
    np.ctypeslib.as_array(_memory(elsewhere, size))[:] = 8
    assert (message, other) == (b"\x07" * size, b"\x08" * size)
    assert type(message) is bytes


def test_no_new_bytes() -> None:
    """Nothing is nothing."""
    assert new_bytes(0)[0] == b""


def _memory(address: int, size: int) -> "ctypes.Array[ctypes.c_uint8]":
    return (ctypes.c_uint8 * size).from_address(address)
