"""Conversion of anything array-like to numpy and to tensor messages.

torch is never imported here: a torch tensor can only exist where the caller has
imported torch already, so looking into `sys.modules` is enough to recognize one.
"""

import sys
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

import ml_dtypes
import numpy as np
import numpy.typing as npt

from losswire.client._messages.nulls import refuse_nulls
from losswire.client._messages.placed_array import PlacedArray
from losswire.client._messages.resident import StoredTensor
from losswire.v1 import tensor_pb2
from losswire.wire import encode_spec, encode_tensor

_R = TypeVar("_R")

_HOST = (1, 0)  # DLPack's (device type, device id) of a CPU
_HOST_TYPES = frozenset({1, 3, 11, 13})  # CPU, CUDA pinned, ROCm pinned, CUDA managed

_PYTHON_SCALARS = frozenset({bool, int, float})


class SupportsDLPack(Protocol):
    """An array of any library that supports DLPack."""

    def __dlpack__(self) -> object:
        """Export the array."""

    def __dlpack_device__(self) -> tuple[int, int]:
        """Return the array's device, as (device type, device id)."""


ArrayInput = npt.ArrayLike | SupportsDLPack | StoredTensor | PlacedArray
"""A numpy array, a torch tensor, anything with `__dlpack__` or `__array__`, a Python number, or
(nested) lists of these; or a resident tensor, from `put`."""


def encode_array(value: ArrayInput, path: str) -> tensor_pb2.Tensor:
    """Return the tensor message of an array, or the reference of a resident or placed one.

    `path` names the argument in errors. Raises TypeError for values that cannot be sent and
    ValueError for ragged lists and more than 8 axes.
    """
    if isinstance(value, (StoredTensor, PlacedArray)):
        return value.reference()
    return _named(path, lambda: encode_tensor(to_numpy(value)))


def encode_array_spec(value: ArrayInput, path: str) -> tensor_pb2.Tensor:
    """Return the tensor message of anything array-like, without data; raises as `encode_array`."""
    return _named(path, lambda: encode_spec(to_numpy(value)))


def as_array(value: ArrayInput, path: str) -> npt.NDArray[Any]:
    """Convert anything array-like to numpy, as `to_numpy` does; errors name the argument."""
    return _named(path, lambda: to_numpy(value))


def _named(path: str, convert: Callable[[], _R]) -> _R:
    """Call a conversion; its errors get the name of the argument."""
    try:
        return convert()
    except (TypeError, ValueError, OverflowError) as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"{path}: {error}") from error


def to_numpy(value: Any) -> npt.NDArray[Any]:
    """Convert anything array-like to a numpy array on the host, without a copy where possible.

    Arrays keep their dtype. Python numbers take torch's defaults: float becomes float32,
    int becomes int64, bool stays bool. Raises TypeError for what has no numbers, or where some are
    missing.
    """
    if isinstance(value, np.ndarray):
        return _from_numpy(value)
    if type(value) in _PYTHON_SCALARS:
        return _with_torch_defaults(np.asarray(value))
    if isinstance(value, (list, tuple)):
        return _from_sequence(value)
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(value, getattr(torch, "Tensor", ())):
        return _from_torch(value, torch)
    jax = sys.modules.get("jax")
    if jax is not None and isinstance(value, getattr(jax.core, "Tracer", ())):
        raise TypeError(
            "an array that JAX traces has no numbers; inside of jit, grad and vmap call a function "
            "of losswire.client.jax.remote_loss instead"
        )
    refuse_nulls(value)
    if hasattr(value, "__dlpack__") and not isinstance(value, np.generic):
        return _from_dlpack(value)
    return _checked(np.asarray(value), value)


def _from_numpy(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    if isinstance(array, np.ma.MaskedArray):
        if np.ma.is_masked(array):
            raise TypeError(
                "a masked array cannot be sent, its mask would be lost; "
                "fill it and give the masked values a sample_weight of 0"
            )
        return np.ma.getdata(array)
    return array


def _checked(array: npt.NDArray[Any], value: object) -> npt.NDArray[Any]:
    """Refuse values that numpy could only wrap as Python objects or text."""
    if array.dtype.kind in "OSU":
        raise TypeError(f"{type(value).__name__} is not an array of numbers")
    return array


def is_python_numbers(value: object) -> bool:
    """Return whether a value is a Python number, or nested lists of nothing else."""
    if isinstance(value, (list, tuple)):
        return _leaf_types(value) <= _PYTHON_SCALARS
    return type(value) in _PYTHON_SCALARS


def _with_torch_defaults(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Convert an array of Python numbers to torch's default dtype for them."""
    match array.dtype.kind:
        case "f":
            # A float too large for float32 becomes infinity, as it does in torch.
            with np.errstate(over="ignore"):
                return array.astype(np.float32)
        case "i":
            return array.astype(np.int64, copy=False)
        case "u" | "O":
            raise ValueError("holds an int that does not fit into int64")
    return array


def _from_sequence(value: Sequence[Any]) -> npt.NDArray[Any]:
    kinds = _leaf_types(value)
    if kinds <= _PYTHON_SCALARS:
        return _with_torch_defaults(np.asarray(value))
    unknown = [kind.__name__ for kind in kinds if kind in {str, bytes, type(None), dict, set}]
    if unknown:
        raise TypeError(f"a list of numbers was expected; it holds {', '.join(sorted(unknown))}")
    return _checked(np.asarray(_to_numpy_leaves(value)), value)


def _leaf_types(value: Sequence[Any]) -> set[type]:
    """Return the types of all leaves of a nested list."""
    kinds = set(map(type, value))
    if kinds & {list, tuple}:
        nested = (item for item in value if isinstance(item, (list, tuple)))
        kinds = (kinds - {list, tuple}).union(*map(_leaf_types, nested))
    return kinds


def _to_numpy_leaves(value: Any) -> Any:
    """Replace the arrays of other libraries in a nested list, for numpy to stack."""
    if isinstance(value, (list, tuple)):
        return [_to_numpy_leaves(item) for item in value]
    return value if type(value) in _PYTHON_SCALARS else to_numpy(value)


def _from_torch(tensor: Any, torch: Any) -> npt.NDArray[Any]:
    if tensor.layout is not torch.strided or tensor.is_quantized or tensor.is_meta:
        raise TypeError(
            f"a torch tensor of layout {tensor.layout} on device {tensor.device} cannot be sent; "
            "make it dense, not quantized, and with values"
        )
    try:
        host = tensor.detach().cpu().resolve_conj().resolve_neg()
        if host.dtype is torch.bfloat16:  # numpy knows it only through ml_dtypes
            return np.asarray(host.view(torch.int16).numpy()).view(ml_dtypes.bfloat16)
        return np.asarray(host.numpy())
    except RuntimeError as error:
        raise TypeError(f"this {type(tensor).__name__} has no numpy form: {error}") from error


def _from_dlpack(value: Any) -> npt.NDArray[Any]:
    device = tuple(value.__dlpack_device__())
    if device[0] not in _HOST_TYPES:
        return _from_device(value, device)
    try:
        return np.from_dlpack(value)
    except (BufferError, RuntimeError, TypeError, ValueError) as error:
        # bfloat16 is in DLPack but not in numpy's reading of it; libraries that
        # have it (JAX, TensorFlow) give an ml_dtypes array through __array__.
        if hasattr(value, "__array__"):
            return _checked(np.asarray(value), value)
        raise TypeError(
            f"numpy cannot take this {type(value).__name__} over DLPack: {error}"
        ) from error


def _from_device(value: Any, device: tuple[Any, ...]) -> npt.NDArray[Any]:
    """Copy an array of a GPU to the host by the first method that its library has."""
    if hasattr(value, "cpu"):
        return to_numpy(value.cpu())
    try:
        return np.from_dlpack(_HostCopy(value))
    except (AttributeError, BufferError, RuntimeError, TypeError, ValueError) as error:
        if hasattr(value, "__array__"):
            return _checked(np.asarray(value), value)
        raise TypeError(
            f"this {type(value).__name__} lies on DLPack device {device} and cannot be copied to "
            f"the host ({error}); move it to the CPU first"
        ) from error


class _HostCopy:
    """A DLPack exporter that asks another one for a copy on the host.

    `np.from_dlpack` has had a `device` argument only since numpy 2.1.
    """

    def __init__(self, value: Any) -> None:
        self._value = value

    def __dlpack__(self, **_: object) -> Any:
        return self._value.__dlpack__(dl_device=_HOST, copy=True)

    def __dlpack_device__(self) -> tuple[int, int]:
        return _HOST
