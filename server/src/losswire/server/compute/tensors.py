"""Arrays of a request as torch tensors, and back."""

import warnings
from typing import Any

import ml_dtypes
import numpy as np
import torch
from torch import Tensor

from losswire.server.catalogue.value_rules import Array
from losswire.wire import BY_NAME

_BFLOAT16 = np.dtype(ml_dtypes.bfloat16)

with warnings.catch_warnings():
    # torch warns once per process that an array is not writable. Arrays decoded
    # from messages never are, and nothing here writes to an input.
    warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
    torch.from_numpy(np.frombuffer(b"\0", np.uint8))


def numpy_type(name: str) -> np.dtype[Any]:
    """Give the numpy type of a data type's name."""
    return BY_NAME[name].numpy


def to_tensor(array: Array) -> Tensor:
    """Make an array a CPU tensor that shares its memory."""
    if array.dtype == _BFLOAT16:
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def to_array(tensor: Tensor) -> Array:
    """Make a tensor an array in host memory."""
    if tensor.requires_grad or not tensor.is_cpu:
        tensor = tensor.detach().cpu()
    if tensor.dtype == torch.bfloat16:
        return tensor.view(torch.int16).numpy().view(_BFLOAT16)
    return tensor.numpy()
