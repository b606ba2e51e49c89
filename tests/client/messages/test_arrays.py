"""What a caller may hold its numbers in: each kind goes over the wire and comes back."""

import array
from collections.abc import Callable, Iterator
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest
import torch

from losswire.client import ArrayInput, Client
from tests.support.scripted import Scripted

Echo = Callable[[Any], npt.NDArray[Any]]


@pytest.fixture
def echo(echoing: Scripted) -> Iterator[Echo]:
    """Send a value and give what came back."""
    with Client(echoing.address, timeout=60) as client:
        yield lambda value: client.evaluate("any", {"x": value}, gradients=["x"]).gradients["x"]


def assert_same(actual: npt.NDArray[Any], expected: npt.NDArray[Any]) -> None:
    """Expect the same dtype, shape and bits."""
    assert (actual.dtype, actual.shape) == (expected.dtype, expected.shape)
    assert actual.tobytes() == expected.tobytes()


@pytest.mark.parametrize(
    "dtype",
    ["?", "u1", "i1", "i2", "i4", "i8", "f2", ml_dtypes.bfloat16, "f4", "f8"],
    ids=lambda dtype: np.dtype(dtype).name,
)
def test_every_dtype_of_the_wire(echo: Echo, dtype: npt.DTypeLike) -> None:
    """A numpy array of each dtype of the wire comes back bit for bit."""
    value = np.array([[0, 1, 1], [1, 0, 1]]).astype(dtype)
    assert_same(echo(value), value)


def test_nan_infinity_and_negative_zero(echo: Echo) -> None:
    """Special values keep their bits."""
    value = np.array([np.nan, np.inf, -np.inf, -0.0], "f4")
    assert_same(echo(value), value)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        pytest.param(1.5, np.array(1.5, "f4"), id="float"),
        pytest.param(3, np.array(3, "i8"), id="int"),
        pytest.param(True, np.ones((), bool), id="bool"),
        pytest.param([1.5, 2.5], np.array([1.5, 2.5], "f4"), id="floats"),
        pytest.param([1, 2], np.array([1, 2], "i8"), id="ints"),
        pytest.param([True, False], np.array([True, False]), id="bools"),
        pytest.param([1, 2.5, True], np.array([1, 2.5, 1], "f4"), id="mixed"),
        pytest.param([[1, 2], (3, 4)], np.array([[1, 2], [3, 4]], "i8"), id="nested"),
        pytest.param([], np.zeros(0, "f4"), id="empty"),
        pytest.param([[], []], np.zeros((2, 0), "f4"), id="empty rows"),
        pytest.param([1e300], np.array([np.inf], "f4"), id="over float32"),
        pytest.param(range(3), np.arange(3), id="range"),
    ],
)
def test_python_numbers_take_the_dtypes_of_torch(
    echo: Echo, value: object, expected: npt.NDArray[Any]
) -> None:
    """Lists and numbers of Python become what torch would make of them."""
    assert_same(echo(value), expected)
    if not isinstance(value, range):
        assert_same(echo(value), torch.tensor(value).numpy())


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        pytest.param([np.float64(1), np.float64(2)], np.array([1, 2], "f8"), id="scalars"),
        pytest.param(
            [np.ones(2, "f2"), np.zeros(2, "f2")], np.array([[1, 1], [0, 0]], "f2"), id="rows"
        ),
        pytest.param(
            [np.ones(2, "f2"), [0.0, 0.0]], np.array([[1, 1], [0, 0]], "f8"), id="promoted"
        ),
        pytest.param(
            [torch.ones(2), torch.zeros(2)], np.array([[1, 1], [0, 0]], "f4"), id="tensors"
        ),
        pytest.param(
            [torch.ones(1, dtype=torch.bfloat16)],
            np.ones((1, 1), ml_dtypes.bfloat16),
            id="bfloat16",
        ),
    ],
)
def test_lists_of_arrays_keep_numpys_dtype(
    echo: Echo, value: object, expected: npt.NDArray[Any]
) -> None:
    """A list that holds arrays is stacked as numpy stacks it."""
    assert_same(echo(value), expected)


def test_numpy_scalar(echo: Echo) -> None:
    """A numpy scalar keeps its dtype."""
    assert_same(echo(np.float64(2.5)), np.array(2.5, "f8"))


def test_zero_dimensional_array(echo: Echo) -> None:
    """An array without axes stays one."""
    assert_same(echo(np.array(2.5, "f4")), np.array(2.5, "f4"))


def test_empty_array(echo: Echo) -> None:
    """An array without elements keeps its shape and dtype."""
    assert_same(echo(np.zeros((0, 3), "f2")), np.zeros((0, 3), "f2"))


def test_non_contiguous_array(echo: Echo) -> None:
    """Strides, negative ones and broadcasts too, are resolved into row-major order."""
    value = np.arange(24, dtype="f4").reshape(2, 3, 4)
    for view in (value.T, value[:, ::-1, ::2], np.broadcast_to(value[0, 0], (3, 4))):
        assert_same(echo(view), np.ascontiguousarray(view))


def test_big_endian_array(echo: Echo) -> None:
    """Byte order is the wire's affair, not the caller's."""
    assert_same(echo(np.array([1, 258], ">i4")), np.array([1, 258], "i4"))


def test_read_only_array(echo: Echo) -> None:
    """An array that cannot be written can be sent."""
    value = np.arange(3, dtype="f4")
    value.flags.writeable = False
    assert_same(echo(value), np.arange(3, dtype="f4"))


def test_buffer(echo: Echo) -> None:
    """Anything with a typed buffer is an array."""
    assert_same(echo(array.array("f", [1, 2])), np.array([1, 2], "f4"))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64, torch.bool], ids=str)
def test_torch_tensor(echo: Echo, dtype: torch.dtype) -> None:
    """A torch tensor keeps dtype and values."""
    tensor = torch.tensor([[0, 1], [1, 1]]).to(dtype)
    expected = np.array([[0, 1], [1, 1]]).astype(str(dtype).removeprefix("torch."))
    assert_same(echo(tensor), expected)


def test_torch_tensor_that_requires_grad(echo: Echo) -> None:
    """A tensor of the caller's graph is sent without it."""
    assert_same(echo(torch.nn.Parameter(torch.ones(2)) * 2), np.array([2, 2], "f4"))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_non_contiguous_torch_tensor(echo: Echo, dtype: torch.dtype) -> None:
    """Strides of torch are resolved as numpy's are."""
    tensor = torch.arange(6).reshape(2, 3).to(dtype).T
    expected = np.arange(6).reshape(2, 3).T.astype(str(dtype).removeprefix("torch."))
    assert_same(echo(tensor), np.ascontiguousarray(expected))


def test_zero_dimensional_and_empty_torch_tensors(echo: Echo) -> None:
    """Scalars and empty tensors of torch keep their shapes, in bfloat16 too."""
    for dtype, name in ((torch.float32, "f4"), (torch.bfloat16, ml_dtypes.bfloat16)):
        assert_same(echo(torch.tensor(1.0, dtype=dtype)), np.array(1.0, name))
        assert_same(echo(torch.zeros(0, 3, dtype=dtype)), np.zeros((0, 3), name))


def test_torch_tensor_with_lazy_negation(echo: Echo) -> None:
    """A tensor whose sign is a flag is sent with the sign."""
    tensor = torch.tensor([1 + 2j]).conj().imag
    assert tensor.is_neg()
    assert_same(echo(tensor), np.array([-2], "f4"))


class OnlyDLPack:
    """An array of some library that speaks nothing but DLPack, on a device of choice."""

    def __init__(self, tensor: torch.Tensor, device: tuple[int, int] = (1, 0)) -> None:
        self._tensor = tensor
        self._device = device

    def __dlpack__(self, **_: object) -> object:
        """Export the tensor; ignores where it is asked to be."""
        return self._tensor.__dlpack__()

    def __dlpack_device__(self) -> tuple[int, int]:
        """Claim the device."""
        return self._device


class OldDLPack(OnlyDLPack):
    """A library from before DLPack could copy between devices."""

    def __dlpack__(self, *, stream: object = None) -> object:  # type: ignore[override]
        """Export the tensor where it is."""
        del stream
        raise BufferError("cannot leave the GPU")


class OnDevice(OnlyDLPack):
    """An array of a GPU whose library can copy it to the host as torch does."""

    def cpu(self) -> torch.Tensor:
        """Copy to the host."""
        return self._tensor


class Convertible(OldDLPack):
    """An array that numpy can convert although DLPack cannot."""

    def __array__(self, dtype: object = None, copy: object = None) -> npt.NDArray[Any]:
        """Convert."""
        del dtype, copy
        return np.ones(2, ml_dtypes.bfloat16)


CUDA = (2, 0)


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(OnlyDLPack(torch.arange(6.0).reshape(2, 3).T), id="on the host"),
        pytest.param(OnDevice(torch.arange(6.0).reshape(2, 3).T, CUDA), id="cpu()"),
        pytest.param(OnlyDLPack(torch.arange(6.0).reshape(2, 3).T, CUDA), id="dl_device"),
    ],
)
def test_dlpack(echo: Echo, value: object) -> None:
    """DLPack arrays are taken from the host, and copied to it from a GPU."""
    assert_same(echo(value), np.ascontiguousarray(np.arange(6, dtype="f4").reshape(2, 3).T))


@pytest.mark.parametrize("device", [(1, 0), CUDA], ids=["host", "CUDA"])
def test_array_protocol_where_dlpack_fails(echo: Echo, device: tuple[int, int]) -> None:
    """bfloat16, which numpy does not take over DLPack, comes through `__array__`."""
    assert_same(echo(Convertible(torch.ones(2), device)), np.ones(2, ml_dtypes.bfloat16))


class Unknown:
    """Nothing like an array."""


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        pytest.param(OldDLPack(torch.ones(1), CUDA), TypeError, "move it to the CPU", id="CUDA"),
        pytest.param(
            OnlyDLPack(torch.ones(1, dtype=torch.bfloat16)), TypeError, "DLPack", id="bf16"
        ),
        pytest.param(torch.ones(1, device="meta"), TypeError, "with values", id="meta"),
        pytest.param(torch.eye(2).to_sparse(), TypeError, "make it dense", id="sparse"),
        pytest.param(torch.ones(1).to(torch.float8_e4m3fn), TypeError, "Float8", id="float8"),
        pytest.param(np.ma.masked_array([1.0], [True]), TypeError, "masked", id="masked"),
        pytest.param(np.ones(1, "c8"), TypeError, "complex64 cannot be sent", id="complex"),
        pytest.param(np.ones(1, "u4"), TypeError, "uint32 cannot be sent", id="uint32"),
        pytest.param(1j, TypeError, "complex128 cannot be sent", id="Python complex"),
        pytest.param("text", TypeError, "str is not an array", id="text"),
        pytest.param(b"bytes", TypeError, "bytes is not an array", id="bytes"),
        pytest.param(None, TypeError, "NoneType is not an array", id="None"),
        pytest.param(Unknown(), TypeError, "Unknown is not an array", id="object"),
        pytest.param({"a": 1}, TypeError, "dict is not an array", id="dict"),
        pytest.param([1, None], TypeError, "NoneType", id="list with None"),
        pytest.param(["a"], TypeError, "str", id="list of text"),
        pytest.param([Unknown()], TypeError, "Unknown", id="list of objects"),
        pytest.param([[1], [1, 2]], ValueError, "inhomogeneous", id="ragged"),
        pytest.param([2**63], ValueError, "int64", id="too large for int64"),
        pytest.param(2**64, ValueError, "int64", id="too large for uint64"),
        pytest.param(np.ones((1,) * 9), ValueError, "9 axes", id="nine axes"),
    ],
)
def test_refused_before_it_is_sent(
    echoing: Scripted, value: ArrayInput, error: type[Exception], text: str
) -> None:
    """What cannot be sent is refused with the argument's path, and no call is made."""
    with Client(echoing.address) as client, pytest.raises(error, match=text) as caught:
        client.evaluate("any", {"target": value})
    assert str(caught.value).startswith('inputs["target"]: ')
    assert echoing.evaluations == []
