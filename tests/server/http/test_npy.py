"""The .npy format as numpy writes and reads it."""

import io
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest

from losswire.server.http.npy import read_array, write_npy
from losswire.wire import DATA_TYPES, MalformedTensorError
from tests.support.http_door import npy
from tests.support.requests import f32

Array = npt.NDArray[Any]

_SHAPES = [(), (0,), (3,), (2, 0, 3), (2, 3), (1, 2, 1, 2, 1, 2, 1, 2)]
_TYPES = [each.numpy for each in DATA_TYPES.values()]


def _array(dtype: np.dtype[Any], shape: tuple[int, ...]) -> Array:
    """Return an array of a data type whose elements differ."""
    size = int(np.prod(shape))
    return (
        (np.arange(size) % 2 if dtype == np.bool_ else np.arange(size)).astype(dtype).reshape(shape)
    )


@pytest.mark.parametrize("shape", _SHAPES, ids=str)
@pytest.mark.parametrize("dtype", _TYPES, ids=str)
def test_both_ways_as_numpy_does(dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
    """What numpy writes is read, and what is written numpy reads; bfloat16 is two bytes to it."""
    array = _array(dtype, shape)
    found = read_array(memoryview(npy(array)), "x")
    assert (found.dtype, found.shape) == (dtype, shape)
    assert found.tobytes() == array.tobytes()
    head, elements = write_npy(array)
    assert len(head) % 64 == 0
    again = np.load(io.BytesIO(head + bytes(elements)))
    assert (again.shape, again.tobytes()) == (shape, array.tobytes())
    assert dtype in (ml_dtypes.bfloat16, again.dtype)


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_every_version_is_read(version: tuple[int, int]) -> None:
    """The three versions of the format differ in the length and the text of the header."""
    file = io.BytesIO()
    np.lib.format.write_array(file, f32(1, 2), version)
    assert read_array(memoryview(file.getvalue()), "x").tolist() == [1.0, 2.0]


def test_other_orders_are_read() -> None:
    """Columns first, and the largest byte first, become the order of the wire."""
    array = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    for each in (
        np.asfortranarray(array),
        array.astype(">f4"),
        np.asfortranarray(array.astype(">f4")),
    ):
        np.testing.assert_array_equal(read_array(memoryview(npy(each)), "x"), array)


def test_elements_are_not_copied() -> None:
    """What is in the order of the wire stays where it is."""
    data = bytearray(npy(f32(1, 2)))
    array = read_array(memoryview(data), "x")
    data[-4:] = f32(7).tobytes()
    assert array.tolist() == [1.0, 7.0]


def _header(text: str) -> bytes:
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()


MISTAKES: dict[str, tuple[bytes, str, str]] = {
    "nothing": (b"", "x", "is not in the .npy format"),
    "a pickle": (npy(f32(1))[:6] + b"\x09" * 90, "x", "is not in the .npy format"),
    "objects": (
        _header("{'descr': '|O', 'fortran_order': False, 'shape': (1,), }"),
        "x.data_type",
        "is not a data type of the wire",
    ),
    "complex numbers": (npy(np.ones(2, np.complex64)), "x.data_type", "is not a data type"),
    "records": (npy(np.ones(2, "i4,f4")), "x.data_type", "is not a data type of the wire"),
    "no shape": (
        _header("{'descr': '<f4', 'fortran_order': False, }"),
        "x",
        "no proper .npy header",
    ),
    "code": (_header("__import__('os')"), "x", "no proper .npy header"),
    "a negative axis": (
        _header("{'descr': '<f4', 'fortran_order': False, 'shape': (-1,), }"),
        "x",
        "no proper .npy header",
    ),
    "a long axis": (
        _header("{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999,), }"),
        "x.shape",
        "an axis that is too long",
    ),
    "a long header": (_header(" " * 60000 + "}"), "x", "no proper .npy header"),
    "a cut header": (npy(f32(1))[:50], "x", "no proper .npy header"),
    "a cut array": (npy(f32(1, 2))[:-1], "x.data", "has 7 bytes"),
    "a longer array": (npy(f32(1, 2)) + b"\x00", "x.data", "has 9 bytes"),
    "nine axes": (npy(np.ones((1,) * 9, np.float32)), "x.shape", "has 9 axes; at most 8"),
    "nine axes, columns first": (
        _header("{'descr': '<f4', 'fortran_order': True, 'shape': (1,1,1,1,1,1,1,1,1), }")
        + bytes(4),
        "x.shape",
        "has 9 axes; at most 8",
    ),
    "a bool of 2": (npy(np.ones(2, np.bool_))[:-1] + b"\x02", "x.data", "0 or 1"),
}


@pytest.mark.parametrize(("data", "field", "says"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_named(data: bytes, field: str, says: str) -> None:
    """What is no array of the wire is refused with the field that is wrong."""
    with pytest.raises(MalformedTensorError) as refused:
        read_array(memoryview(data), "x")
    assert refused.value.violations[0].field == field
    assert says in refused.value.violations[0].description
