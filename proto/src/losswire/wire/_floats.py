"""Integers as floats that hold them exactly: for weights, and for tables with integers."""

from typing import Any, Final

import ml_dtypes
import numpy as np
import numpy.typing as npt

from losswire.wire._dtypes import wire_type_of

Array = npt.NDArray[Any]
DType = np.dtype[Any]

_DEFAULT: Final = np.dtype(np.float32)
_WIDEST: Final = np.dtype(np.float64)


def exact_floats(array: Array, path: str, preferred: DType | None = None) -> Array:
    """Convert integers and bools to a floating type that holds them: the preferred one if it does.

    Arrays of other types are returned as they are. Raises ValueError when not even float64 does.
    """
    if array.dtype.kind not in "biu":
        return array
    known = None if preferred is None else wire_type_of(preferred)
    own = [known.numpy] if known is not None and known.is_float else []
    for dtype in (*own, _DEFAULT, _WIDEST):
        if _holds(dtype, array):
            return array.astype(dtype)
    message = f"{path}: holds an integer that float64 does not hold exactly; convert it to floats"
    raise ValueError(message)


def _holds(dtype: DType, array: Array) -> bool:
    """Return whether a floating type holds all integers of an array exactly."""
    if array.dtype.kind == "b" or not array.size:
        return True
    # The least int64 has no positive counterpart, but its bits are those of 2**63. numpy warns of
    # the overflow of scalars only, so there is an axis.
    numbers = np.atleast_1d(array)
    signed = array.dtype.kind == "i"
    size = np.abs(numbers.astype(np.int64)).view(np.uint64) if signed else numbers.astype(np.uint64)
    lowest_bit = size & (~size + np.uint64(1))
    digits = size // np.maximum(lowest_bit, np.uint64(1))
    facts = ml_dtypes.finfo(dtype)  # type: ignore[no-untyped-call]
    return int(digits.max()) < 2 ** (facts.nmant + 1) and int(size.max()) <= float(facts.max)
