"""Checks of the caller's arrays for gradients."""

from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Spec: TypeAlias = tuple[np.dtype[Any], tuple[int, ...]]
"""The dtype and shape of an array."""


def check_outputs(
    out: Mapping[str, Array],
    specs: Mapping[str, Spec],
    inputs: Mapping[str, Array],
) -> dict[str, Array]:
    """Check the arrays for gradients; TypeError or ValueError with the array's name.

    `specs` are those of the gradients asked for, by name.
    """
    if not isinstance(out, Mapping):
        raise TypeError(f"out: expected a mapping of names, got {type(out).__name__}")
    for name, array in out.items():
        path = f'out["{name}"]'
        if not isinstance(array, np.ndarray):
            raise TypeError(f"{path}: expected a numpy array, got {type(array).__name__}")
        if name not in specs:
            raise ValueError(f"{path}: {name} is not an input whose gradient is asked for")
        dtype, shape = specs[name]
        if array.dtype != dtype:
            raise ValueError(f"{path}: is {array.dtype}; the gradient is {dtype}")
        if array.shape != shape:
            raise ValueError(f"{path}: is {list(array.shape)}; the gradient is {list(shape)}")
        if not (array.flags.c_contiguous and array.flags.writeable):
            raise ValueError(f"{path}: must be writable and contiguous in C order")
        # A call that is tried again sends the inputs again: they must not have changed.
        if any(np.may_share_memory(array, each) for each in inputs.values()):
            raise ValueError(f"{path}: shares memory with an input")
    return dict(out)
