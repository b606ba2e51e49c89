"""The tensor codec: what stands on the wire, byte for byte, and what is refused."""

import math
from typing import Any

import hypothesis
import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import strategies
from hypothesis.extra import numpy as numpy_strategies

from losswire.v1 import evaluation_pb2, tensor_pb2
from losswire.wire import (
    DATA_TYPES,
    MAX_AXIS,
    MAX_RANK,
    MalformedTensorError,
    OptionScalar,
    Violation,
    decode_option,
    decode_tensor,
    encode_option,
    encode_tensor,
    read_spec,
    wire_type_of,
)

Array = npt.NDArray[Any]

_BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
_F32 = tensor_pb2.DATA_TYPE_FLOAT32
_NAMES = {
    each: tensor_pb2.DataType.Name(each).removeprefix("DATA_TYPE_").lower()
    for each in tensor_pb2.DataType.values()
}

GOLDEN: tuple[tuple[tensor_pb2.DataType.ValueType, Any, list[Any], str], ...] = (
    (tensor_pb2.DATA_TYPE_BOOL, np.bool_, [True, False], "01 00"),
    (tensor_pb2.DATA_TYPE_UINT8, np.uint8, [1, 255], "01 ff"),
    (tensor_pb2.DATA_TYPE_INT8, np.int8, [1, -2], "01 fe"),
    (tensor_pb2.DATA_TYPE_INT16, np.int16, [0x0102, -2], "0201 feff"),
    (tensor_pb2.DATA_TYPE_INT32, np.int32, [0x01020304, -2], "04030201 feffffff"),
    (
        tensor_pb2.DATA_TYPE_INT64,
        np.int64,
        [0x0102030405060708, -2],
        "0807060504030201 feffffffffffffff",
    ),
    (tensor_pb2.DATA_TYPE_FLOAT16, np.float16, [1.0, -2.5], "003c 00c1"),
    (tensor_pb2.DATA_TYPE_BFLOAT16, ml_dtypes.bfloat16, [1.0, -2.5], "803f 20c0"),
    (tensor_pb2.DATA_TYPE_FLOAT32, np.float32, [1.0, -2.5], "0000803f 000020c0"),
    (
        tensor_pb2.DATA_TYPE_FLOAT64,
        np.float64,
        [1.0, -2.5],
        "000000000000f03f 00000000000004c0",
    ),
)


def _same(first: Array, second: Array) -> bool:
    """Check that two arrays are equal in type, shape and every bit."""
    return (
        first.dtype == second.dtype
        and first.shape == second.shape
        and first.tobytes() == second.tobytes()
    )


def test_every_data_type_of_the_contract_is_here() -> None:
    """The golden table and the codec know each number of the enumeration, under its name."""
    numbers = set(tensor_pb2.DataType.values()) - {tensor_pb2.DATA_TYPE_UNSPECIFIED}
    assert set(DATA_TYPES) == numbers == {each[0] for each in GOLDEN}
    assert {number: each.name for number, each in DATA_TYPES.items()} == {
        number: _NAMES[number] for number in numbers
    }


@pytest.mark.parametrize(
    ("number", "dtype", "values", "data"), GOLDEN, ids=[_NAMES[each[0]] for each in GOLDEN]
)
def test_the_layout_of_bytes(
    number: tensor_pb2.DataType.ValueType, dtype: npt.DTypeLike, values: list[Any], data: str
) -> None:
    """Little-endian, row-major, dense: exactly these bytes, in both directions."""
    array = np.array([values], dtype)
    message = tensor_pb2.Tensor(data_type=number, shape=[1, 2], data=bytes.fromhex(data))
    assert encode_tensor(array) == message
    assert _same(decode_tensor(message), array)
    assert read_spec(message, "").size_bytes == len(message.data)


def test_the_message_as_bytes() -> None:
    """A whole tensor on the wire: field numbers and kinds never change."""
    message = encode_tensor(np.array([[1.0], [2.0]], np.float32))
    assert message.SerializeToString(deterministic=True).hex(" ") == (
        "08 09 12 02 02 01 1a 08 00 00 80 3f 00 00 00 40"
    )


_dtypes = strategies.sampled_from([each.numpy for each in DATA_TYPES.values()])


@strategies.composite
def _arrays(draw: strategies.DrawFn) -> Array:
    """Draw arrays of every data type, with any bits, strides and byte order."""
    dtype = draw(_dtypes)
    shape = draw(
        numpy_strategies.array_shapes(min_dims=0, max_dims=MAX_RANK, min_side=0, max_side=3)
    )
    count = math.prod(shape)
    if dtype == np.bool_:
        bits = draw(strategies.lists(strategies.booleans(), min_size=count, max_size=count))
        array = np.array(bits, np.bool_).reshape(shape)
    else:
        size = count * dtype.itemsize
        data = draw(strategies.binary(min_size=size, max_size=size))
        array = np.frombuffer(data, f"u{dtype.itemsize}").view(dtype).reshape(shape)
    if dtype != _BFLOAT16 and draw(strategies.booleans()):
        array = array.astype(array.dtype.newbyteorder(">"))
    for axis in range(array.ndim):
        if draw(strategies.booleans()):
            array = np.flip(array, axis)
    array = array.transpose(draw(strategies.permutations(range(array.ndim))))
    if array.ndim and draw(strategies.booleans()):
        array = array[::2]
    return array


@hypothesis.settings(max_examples=400, deadline=None, derandomize=True, database=None)
@hypothesis.given(array=_arrays())
def test_what_is_encoded_is_decoded(array: Array) -> None:
    """Whatever the strides and byte order, the same elements come back, bit for bit."""
    message = encode_tensor(array)
    native = array.astype(array.dtype.newbyteorder("="))
    decoded = decode_tensor(tensor_pb2.Tensor.FromString(message.SerializeToString()))
    assert _same(decoded, native)
    assert list(message.shape) == list(array.shape)
    assert not decoded.flags.writeable or not decoded.size
    assert decoded.dtype.isnative
    assert encode_tensor(decoded) == message


@hypothesis.settings(max_examples=300, deadline=None, derandomize=True, database=None)
@hypothesis.given(
    number=strategies.integers(-2, 41),
    shape=strategies.lists(
        strategies.integers(-2, 3) | strategies.integers(-(2**63), 2**63 - 1), max_size=10
    ),
    data=strategies.binary(max_size=40),
)
def test_any_message_is_decoded_or_refused(number: int, shape: list[int], data: bytes) -> None:
    """Either an array of the very shape, or violations that name the path: never anything else."""
    message = tensor_pb2.Tensor(shape=shape, data=data)
    message.data_type = tensor_pb2.DataType.ValueType(number)
    found: tuple[Violation, ...] = ()
    array = None
    try:
        array = decode_tensor(message, "x")
    except MalformedTensorError as error:
        found = error.violations
    assert (array is None) == bool(found)
    assert all(each.field.startswith("x") for each in found)
    if array is not None:
        assert list(array.shape) == shape
        assert array.tobytes() == data


def test_empty_arrays_and_scalars() -> None:
    """No elements and no axes are shapes like any other."""
    for shape in ((), (0,), (0, 5), (3, 0, 2), (1,) * MAX_RANK, (0, MAX_AXIS)):
        array = np.empty(shape, np.int16)
        array.fill(7)
        assert _same(decode_tensor(encode_tensor(array)), array)


def test_python_numbers_are_arrays_too() -> None:
    """Lists and numbers take the dtype that numpy gives them."""
    assert encode_tensor(1.5) == encode_tensor(np.float64(1.5))
    assert encode_tensor([[1, 2]]) == encode_tensor(np.array([[1, 2]], np.int64))


def test_wire_types_are_found_in_any_byte_order() -> None:
    """Big-endian dtypes are the same types; others are None."""
    assert wire_type_of(np.dtype(">f4")) is DATA_TYPES[_F32]
    assert wire_type_of(np.dtype("<f4")) is DATA_TYPES[_F32]
    for dtype in ("c8", "U3", "O", "M8[s]", "u4", "V2"):
        assert wire_type_of(np.dtype(dtype)) is None


@pytest.mark.parametrize("dtype", ["complex64", "U3", "O", "uint16", "uint64", "M8[s]"])
def test_other_dtypes_are_not_sent(dtype: str) -> None:
    """A TypeError that names the dtype and those that can be sent."""
    with pytest.raises(TypeError, match=r"cannot be sent; the wire has bool, uint8, int8"):
        encode_tensor(np.zeros(1, dtype))


def test_too_many_axes_are_not_sent() -> None:
    """A ValueError says how many there may be."""
    with pytest.raises(ValueError, match="9 axes; at most 8 can be sent"):
        encode_tensor(np.zeros((1,) * 9))


_KNOWN = ", ".join(tensor_pb2.DataType.Name(each[0]) for each in GOLDEN)

MALFORMED: tuple[tuple[tuple[int, list[int], bytes | None], list[tuple[str, str]]], ...] = (
    ((0, [1], b""), [("t.data_type", f"is not set; expected one of {_KNOWN}")]),
    ((11, [1], b""), [("t.data_type", f"11 is not a data type; expected one of {_KNOWN}")]),
    ((9, [1] * 9, b""), [("t.shape", "has 9 axes; at most 8 are accepted")]),
    ((9, [-1], b""), [("t.shape[0]", "-1 is not in [0, 2147483647]")]),
    ((9, [1, 2**31], b""), [("t.shape[1]", "2147483648 is not in [0, 2147483647]")]),
    (
        (9, [2**30, 2**30], b""),
        [("t.data", f"has 0 bytes; {2**30} x {2**30} of float32 takes {2**62}")],
    ),
    ((9, [2**31, 2**31 - 1], b""), [("t.shape[0]", "2147483648 is not in [0, 2147483647]")]),
    ((9, [2**31 - 1] * 3, b""), [("t.shape", "has too many elements")]),
    ((9, [0, *[2**31 - 1] * 3], b""), [("t.shape", "has too many elements")]),
    ((9, [2], b"1234567"), [("t.data", "has 7 bytes; 2 of float32 takes 8")]),
    ((9, [], b""), [("t.data", "has 0 bytes; scalar of float32 takes 4")]),
    ((9, [0], None), [("t", "has no data")]),
    ((1, [2], b"\x01\xff"), [("t.data", "a bool is one byte, 0 or 1; found another value")]),
    (
        (77, [-5, *[1] * 8], None),
        [
            ("t.data_type", f"77 is not a data type; expected one of {_KNOWN}"),
            ("t.shape", "has 9 axes; at most 8 are accepted"),
            ("t.shape[0]", "-5 is not in [0, 2147483647]"),
        ],
    ),
)


@pytest.mark.parametrize(("fields", "expected"), MALFORMED, ids=[str(m[0])[:40] for m in MALFORMED])
def test_malformed_tensors_are_refused_exactly(
    fields: tuple[int, list[int], bytes | None], expected: list[tuple[str, str]]
) -> None:
    """Every violation, with its path and its text; the error's own text holds them all."""
    number, shape, data = fields
    message = tensor_pb2.Tensor(shape=shape)
    if data is not None:
        message.data = data
    message.data_type = tensor_pb2.DataType.ValueType(number)
    with pytest.raises(MalformedTensorError) as refused:
        decode_tensor(message, "t")
    found = [(each.field, each.description) for each in refused.value.violations]
    assert found == expected
    assert str(refused.value) == "; ".join(f"{field}: {text}" for field, text in expected)


@pytest.mark.parametrize("source", ["resident", "region"])
def test_tensors_that_are_elsewhere_are_not_decoded(source: str) -> None:
    """A tensor without its data has a spec, and nothing to decode."""
    message = tensor_pb2.Tensor(data_type=_F32, shape=[2])
    getattr(message, source).SetInParent()
    assert read_spec(message, "t").size_bytes == 8
    with pytest.raises(MalformedTensorError, match="t: has no data"):
        decode_tensor(message, "t")


OPTIONS: tuple[tuple[Any, str, OptionScalar], ...] = (
    (True, "bool_value", True),
    (np.True_, "bool_value", True),
    (3, "int64_value", 3),
    (-(2**63), "int64_value", -(2**63)),
    (np.uint8(3), "int64_value", 3),
    (1.5, "double_value", 1.5),
    (math.inf, "double_value", math.inf),
    (np.float32(0.5), "double_value", 0.5),
    ("sum", "string_value", "sum"),
    ("", "string_value", ""),
)


@pytest.mark.parametrize(("value", "field", "expected"), OPTIONS, ids=[repr(o[0]) for o in OPTIONS])
def test_options_keep_their_kind(value: OptionScalar, field: str, expected: OptionScalar) -> None:
    """bool, int, float and str stay what they are; numpy's scalars become Python's."""
    message = encode_option(value)
    assert message.WhichOneof("value") == field
    decoded = decode_option(message)
    assert (type(decoded), decoded) == (type(expected), expected)


def test_other_options_are_not_sent() -> None:
    """None, lists and arrays are a TypeError; a number beyond int64 a ValueError."""
    others: tuple[Any, ...] = (None, [1], {}, np.zeros(2), b"x")
    for value in others:
        with pytest.raises((TypeError, ValueError)):
            encode_option(value)
    with pytest.raises(ValueError, match="out of range"):
        encode_option(2**63)


def test_an_option_without_a_value_is_none() -> None:
    """Nothing set is told apart from every value."""
    assert decode_option(evaluation_pb2.OptionValue()) is None
