"""Integers of tables and files, in types that the loss takes.

Whoever has arrays chooses their types; that of a column was often chosen by what wrote the file.
"""

from collections.abc import Collection, Iterable
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from losswire.wire import exact_floats

Array = npt.NDArray[Any]

_FLOATS: Final = ("float", "bfloat")


def accepted(
    array: Array, types: Collection[str], path: str, preferred: np.dtype[np.generic] | None
) -> Array:
    """Convert integers and bools to a type that the loss takes, where all stay what they are.

    `types` are those that the loss takes. Where all are floats, the result has the preferred one,
    if that holds all numbers exactly, else float32 or float64; ValueError if none does. Classes
    become int64. Other arrays are returned as they are: the server says what it takes.
    """
    if array.dtype.kind not in "biu" or not types or array.dtype.name in types:
        return array
    if all(name.startswith(_FLOATS) for name in types):
        return exact_floats(array, path, preferred)
    is_number = array.dtype.kind != "b" and np.can_cast(array.dtype, np.int64)
    return array.astype(np.int64) if is_number and "int64" in types else array


def floating_type(arrays: Iterable[Array]) -> np.dtype[np.generic] | None:
    """Return the type of the first array of floats; None where there is none."""
    found = (each.dtype for each in arrays if each.dtype.name.startswith(_FLOATS))
    return next(found, None)
