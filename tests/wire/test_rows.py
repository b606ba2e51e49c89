"""The messages that carry rows: plain protobuf to everyone, and whatever others write is read."""

from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest
from google.protobuf.message import DecodeError

from losswire.v1 import loss_service_pb2
from losswire.wire import (
    GRADIENT_ROWS,
    ROWS,
    MalformedTensorError,
    Packing,
    TensorSpec,
    bytes_of,
    wire_type_of,
)

Request = loss_service_pb2.EvaluateChunkedRequest
Response = loss_service_pb2.EvaluateChunkedResponse

_LENGTHS = [0, 1, 127, 128, 16383, 16384, 2**21 - 1, 2**21]
"""Payloads on both sides of where the length takes one byte more."""


@pytest.mark.parametrize("length", _LENGTHS)
def test_what_is_written_is_protobufs_own_encoding(length: int) -> None:
    """The bytes are those that protobuf writes, however the payload comes in parts."""
    payload = bytes(range(256)) * (length // 256) + bytes(length % 256)
    parts = [memoryview(payload)[: length // 3], memoryview(payload)[length // 3 :]]
    assert ROWS.encode(parts) == Request(rows=payload).SerializeToString()
    assert GRADIENT_ROWS.encode(parts) == Response(gradient_rows=payload).SerializeToString()


@pytest.mark.parametrize("length", _LENGTHS)
def test_what_protobuf_writes_is_read_without_a_copy(length: int) -> None:
    """The payload is a view of the message."""
    data = Request(rows=bytes(length)).SerializeToString()
    payload = ROWS.decode(data)
    assert isinstance(payload, memoryview)
    assert (payload.obj is data, payload.nbytes) == (True, length)


def test_a_header_is_a_message() -> None:
    """What is not rows is parsed by protobuf."""
    message = Request(header=loss_service_pb2.ChunkedHeader(streamed_inputs=["input"]))
    assert ROWS.decode(message.SerializeToString()) == message
    result = Response(result=loss_service_pb2.ChunkedResult(rows=3))
    assert GRADIENT_ROWS.decode(result.SerializeToString()) == result
    assert ROWS.decode(b"") == Request()


_HEADER = Request(header=loss_service_pb2.ChunkedHeader()).SerializeToString()


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        pytest.param(b"\x12\x83\x00abc", b"abc", id="length of two bytes"),
        pytest.param(b"\x12\x83\x80\x80\x80\x00abc", b"abc", id="length of five bytes"),
        pytest.param(b"\x92\x00\x03abc", b"abc", id="tag of two bytes"),
        pytest.param(b"\x12\x01a\x12\x02bc", b"bc", id="twice: the last wins"),
        pytest.param(_HEADER + b"\x12\x01a", b"a", id="header, then rows: the last wins"),
        pytest.param(b"\x12\x01a\x78\x07", b"a", id="unknown field behind"),
        pytest.param(b"\x78\x07\x12\x01a", b"a", id="unknown field before"),
    ],
)
def test_other_encoders_are_understood(data: bytes, expected: bytes) -> None:
    """Whatever protobuf reads as rows is rows, with the same content."""
    assert Request.FromString(data).rows == expected
    payload = ROWS.decode(data)
    assert isinstance(payload, memoryview)
    assert bytes(payload) == expected


def test_rows_followed_by_a_header_are_a_header() -> None:
    """Of a oneof that is set twice the last is what counts."""
    message = ROWS.decode(b"\x12\x01a" + _HEADER)
    assert isinstance(message, Request)
    assert message.HasField("header")


@pytest.mark.parametrize(
    "data",
    [
        b"\x12",
        b"\x12\x05abc",
        b"\x12\xff\xff\xff\xff\xff\xff",
        b"\x12\x80",
        b"\xff",
        b"\x12\x02abc",
    ],
)
def test_damaged_bytes_are_no_message(data: bytes) -> None:
    """A length that does not agree with the message is protobuf's error, not a short payload."""
    with pytest.raises(DecodeError):
        ROWS.decode(data)


@pytest.mark.parametrize("more", [1, 5])
def test_a_length_that_protobuf_refuses_is_refused(more: int) -> None:
    """A length of more than five bytes is none, though its number is small."""
    tag = Request(rows=b"x").SerializeToString()[:1]
    data = tag + b"\x81\x80\x80\x80" + b"\x80" * more + b"\x00x"
    with pytest.raises(DecodeError):
        Request.FromString(data)
    with pytest.raises(DecodeError):
        ROWS.decode(data)


def _packing(*arrays: npt.NDArray[Any]) -> Packing:
    specs = []
    for array in arrays:
        wire_type = wire_type_of(array.dtype)
        assert wire_type is not None
        specs.append(TensorSpec(wire_type, array.shape))
    return Packing(tuple(specs))


def test_rows_are_packed_input_by_input() -> None:
    """Some rows of each tensor come out as they went in, without a copy."""
    draw = np.random.default_rng(0)
    arrays: tuple[npt.NDArray[Any], ...] = (
        draw.integers(0, 9, (5, 3)).astype(np.uint8),
        draw.standard_normal((5, 2, 2)).astype(ml_dtypes.bfloat16),
        draw.standard_normal(5),
        np.zeros((5, 0), np.float32),
    )
    packing = _packing(*arrays)
    assert packing.row_bytes == 3 + 8 + 8
    payload = memoryview(b"".join(bytes_of(array[1:4]) for array in arrays))
    rows = packing.split(payload)
    for array, found in zip(arrays, rows, strict=True):
        assert found.dtype == array.dtype
        assert not found.size or np.shares_memory(found, np.frombuffer(payload, np.uint8))
        np.testing.assert_array_equal(found, array[1:4])


@pytest.mark.parametrize("size", [0, 1, 127, 128, 70_000])
def test_a_reserved_message_is_what_is_written_into_it(size: int) -> None:
    """A message whose payload is filled in later is the message of that payload."""
    payload = np.random.default_rng(size).integers(0, 256, size).astype(np.uint8)
    message, memory = GRADIENT_ROWS.reserve(size)
    memory[:] = payload
    assert message == GRADIENT_ROWS.encode([payload.data])
    assert hash(message) == hash(bytes(message))


def test_only_what_is_laid_out_otherwise_is_copied() -> None:
    """Contiguous native rows are seen in place; strides and byte order are straightened."""
    array = np.arange(12, dtype=np.float32).reshape(4, 3)
    assert np.shares_memory(np.frombuffer(bytes_of(array[1:3]), np.float32), array)
    for other in (np.asfortranarray(array), array.astype(">f4"), array[::2]):
        assert bytes(bytes_of(other)) == other.astype("<f4").tobytes()


def test_a_bool_is_0_or_1() -> None:
    """Elements are checked as those of any tensor."""
    with pytest.raises(MalformedTensorError, match="rows: a bool is one byte"):
        _packing(np.zeros(2, np.bool_)).split(memoryview(b"\x00\x02"))
