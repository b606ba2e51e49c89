"""Arrays of a request as torch tensors, and back; dtypes by name and by number."""

import math
import warnings
from typing import Any

import ml_dtypes
import numpy as np
import torch
from torch import Tensor

from losswire.server.catalogue.value_rules import Array
from losswire.wire import BY_NAME, wire_type_of

_BFLOAT16 = np.dtype(ml_dtypes.bfloat16)

with warnings.catch_warnings():
    # torch warns once per process that an array is not writable. Arrays decoded
    # from messages never are, and nothing here writes to an input.
    warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
    torch.from_numpy(np.frombuffer(b"\0", np.uint8))


def numpy_type(name: str) -> np.dtype[Any]:
    """Return the numpy dtype of a dtype's name."""
    return BY_NAME[name].numpy


def number_of(dtype: np.dtype[Any]) -> int:
    """Return the number of a dtype on the wire; 0 if it has none."""
    known = wire_type_of(dtype)
    return known.data_type if known else 0


def to_tensor(array: Array) -> Tensor:
    """Return a CPU tensor that shares the memory of an array."""
    if array.dtype == _BFLOAT16:
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def to_array(tensor: Tensor) -> Array:
    """Return a tensor as an array in host memory."""
    if tensor.requires_grad or not tensor.is_cpu:
        tensor = tensor.detach().cpu()
    if tensor.dtype == torch.bfloat16:
        return tensor.view(torch.int16).numpy().view(_BFLOAT16)
    return tensor.numpy()


def sum_of(array: Array) -> float:
    """Return the sum in float64, of numbers of float64 to about the last place.

    Their upper halves add up without rounding, unless they are of very different sizes.
    """
    if array.dtype != np.float64:
        return float(array.sum(dtype=float))
    with np.errstate(over="ignore", invalid="ignore"):
        upper = array.astype(np.float32).astype(float)
        total = float(upper.sum())
        return total + float((array - upper).sum()) if math.isfinite(total) else float(array.sum())
