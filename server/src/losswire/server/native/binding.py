"""The compiled library of rows, and its calls."""

import ctypes
from collections.abc import Callable
from pathlib import Path
from typing import Final

_MISSING: Final = "this installation has no native rows"
_PATH: Final = Path(__file__).with_name("rows.so")

_RESULTS: Final[dict[int, tuple[type[Exception], str]]] = {
    1: (TypeError, "the types of logits and gradient do not go together"),
    2: (IndexError, "a class is neither below the number of classes nor ignore_index"),
    3: (MemoryError, "there is no memory for a row"),
}
"""What the numbers mean that it gives, other than 0."""


class SoftmaxRows(ctypes.Structure):
    """What a call of `softmax_rows` takes and gives; `softmax_rows.cc` describes each field."""

    _fields_ = (
        ("rows", ctypes.c_int64),
        ("classes", ctypes.c_int64),
        ("logits", ctypes.c_void_p),
        ("target", ctypes.c_void_p),
        ("weight", ctypes.c_void_p),
        ("removed", ctypes.c_void_p),
        ("coefficients", ctypes.c_void_p),
        ("coefficient_step", ctypes.c_int64),
        ("gradient", ctypes.c_void_p),
        ("values", ctypes.c_void_p),
        ("factors", ctypes.c_void_p),
        ("factor_step", ctypes.c_int64),
        ("ignore_index", ctypes.c_int64),
        ("smoothing", ctypes.c_double),
        ("logits_type", ctypes.c_int32),
        ("gradient_type", ctypes.c_int32),
        ("most_vector_bytes", ctypes.c_int32),
        ("total", ctypes.c_double),
    )


class SoftmaxMessage(ctypes.Structure):
    """What `softmax_message` is to compute; `softmax_message.cc` describes each field."""

    _fields_ = (
        ("rows", SoftmaxRows),
        ("logits_at", ctypes.c_int64),
        ("target_at", ctypes.c_int64),
        ("weight_at", ctypes.c_int64),
        ("gradient_at", ctypes.c_int64),
        ("loss_at", ctypes.c_int64),
        ("numbers_at", ctypes.c_int64),
        ("queue_nanoseconds", ctypes.c_int64),
        ("denominator", ctypes.c_double),
        ("given", ctypes.c_int32),
        ("mean", ctypes.c_int32),
    )


def _load(kind: type[ctypes.CDLL]) -> ctypes.CDLL | None:
    """Load the library; None where there is none for this system."""
    try:
        library = kind(str(_PATH))
    except OSError:
        return None
    library.losswire_softmax_rows.argtypes = (ctypes.POINTER(SoftmaxRows),)
    library.losswire_softmax_rows.restype = ctypes.c_int32
    library.losswire_softmax_message.argtypes = (
        ctypes.c_void_p,
        ctypes.c_char_p,
        ctypes.c_int64,
        ctypes.c_void_p,
    )
    library.losswire_softmax_message.restype = ctypes.c_int32
    return library


_FREE: Final = _load(ctypes.CDLL)
"""Lets other threads run meanwhile."""
_HOLDING: Final = _load(ctypes.PyDLL)
"""Keeps the interpreter, which for a moment takes less time than getting it back."""

AVAILABLE: Final = _FREE is not None
"""Whether this installation has it, and this system can load it."""


def softmax_rows(call: SoftmaxRows, *, small: bool) -> None:
    """Compute some rows; `small` if that takes a moment only.

    Raises IndexError when a class is wrong, TypeError when it does not compute these types, and
    MemoryError. None of them leaves anything written elsewhere than in the call's places.
    """
    library = _HOLDING if small else _FREE
    if library is None:
        raise RuntimeError(_MISSING)
    result = library.losswire_softmax_rows(call)
    if result:
        kind, text = _RESULTS[result]
        raise kind(text)


def softmax_message(*, small: bool) -> Callable[[int, bytes, int, int], int]:
    """Give what computes, by the SoftmaxMessage at an address, what lies in a message.

    It takes that address, the message, where the evaluation begins in it, and the address of
    the answer; it gives 0, or why it cannot. Raises RuntimeError where there is no library.
    """
    library = _HOLDING if small else _FREE
    if library is None:
        raise RuntimeError(_MISSING)
    found: Callable[[int, bytes, int, int], int] = library.losswire_softmax_message
    return found
