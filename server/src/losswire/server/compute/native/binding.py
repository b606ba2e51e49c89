"""The compiled library of rows, and its calls."""

import ctypes
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar, Final

_MISSING: Final = "this installation has no native rows"
_PATH: Final = Path(__file__).with_name("librows.so")

_RESULTS: Final[dict[int, tuple[type[Exception], str]]] = {
    1: (TypeError, "the types of inputs and gradients do not go together"),
    2: (IndexError, "a class is neither below the number of classes nor ignore_index"),
    3: (MemoryError, "there is no memory for a row"),
    4: (TypeError, "there is no such loss of single elements"),
}
"""What the numbers mean that rows give, other than 0; 5, a wrong value, is of messages alone."""


class SoftmaxRows(ctypes.Structure):
    """Rows of cross entropy; `softmax_rows.cc` describes each field."""

    function: ClassVar = "losswire_softmax_rows"
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
        ("read_type", ctypes.c_int32),
        ("gradient_type", ctypes.c_int32),
        ("most_vector_bytes", ctypes.c_int32),
        ("likelihood", ctypes.c_int32),
        ("total", ctypes.c_double),
    )


class Elements(ctypes.Structure):
    """Elements of losses that have a value for each; `elements.cc` describes each field."""

    function: ClassVar = "losswire_elements"
    _fields_ = (
        ("count", ctypes.c_int64),
        ("line", ctypes.c_int64),
        ("input", ctypes.c_void_p),
        ("target", ctypes.c_void_p),
        ("weight", ctypes.c_void_p),
        ("positive", ctypes.c_void_p),
        ("removed", ctypes.c_void_p),
        ("coefficients", ctypes.c_void_p),
        ("coefficient_step", ctypes.c_int64),
        ("input_gradient", ctypes.c_void_p),
        ("target_gradient", ctypes.c_void_p),
        ("values", ctypes.c_void_p),
        ("option", ctypes.c_double),
        ("loss", ctypes.c_int32),
        ("weight_repeats", ctypes.c_int32),
        ("positive_repeats", ctypes.c_int32),
        ("read_type", ctypes.c_int32),
        ("gradient_type", ctypes.c_int32),
        ("most_vector_bytes", ctypes.c_int32),
        ("total", ctypes.c_double),
    )


class Answer(ctypes.Structure):
    """Where the parts of an answer go; `message.h` describes each field."""

    _fields_ = (
        ("loss_at", ctypes.c_int64),
        ("numbers_at", ctypes.c_int64),
        ("queue_nanoseconds", ctypes.c_int64),
        ("denominator", ctypes.c_double),
        ("given", ctypes.c_int32),
        ("mean", ctypes.c_int32),
    )


class SoftmaxMessage(ctypes.Structure):
    """Cross entropy in a message; `softmax_message.cc` describes each field."""

    function: ClassVar = "losswire_softmax_message"
    _fields_ = (
        ("answer", Answer),
        ("rows", SoftmaxRows),
        ("logits_at", ctypes.c_int64),
        ("target_at", ctypes.c_int64),
        ("weight_at", ctypes.c_int64),
        ("gradient_at", ctypes.c_int64),
    )


class ElementsMessage(ctypes.Structure):
    """A loss of single elements in a message; `elements_message.cc` describes each field."""

    function: ClassVar = "losswire_elements_message"
    _fields_ = (
        ("answer", Answer),
        ("elements", Elements),
        ("input_at", ctypes.c_int64),
        ("target_at", ctypes.c_int64),
        ("weight_at", ctypes.c_int64),
        ("positive_at", ctypes.c_int64),
        ("input_gradient_at", ctypes.c_int64),
        ("target_gradient_at", ctypes.c_int64),
    )


WIDEST: Final = 64
"""The widest registers to use, in bytes; the processor may have narrower ones."""

Rows = SoftmaxRows | Elements
Message = SoftmaxMessage | ElementsMessage

_IN_MESSAGE: Final = (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int64, ctypes.c_void_p)


def _load(kind: type[ctypes.CDLL]) -> ctypes.CDLL | None:
    """Load the library; None where there is none for this system."""
    try:
        library = kind(str(_PATH))
    except OSError:
        return None
    for rows in (SoftmaxRows, Elements):
        function = getattr(library, rows.function)
        function.argtypes, function.restype = (ctypes.POINTER(rows),), ctypes.c_int32
    for message in (SoftmaxMessage, ElementsMessage):
        function = getattr(library, message.function)
        function.argtypes, function.restype = _IN_MESSAGE, ctypes.c_int32
    return library


_FREE: Final = _load(ctypes.CDLL)
"""Lets other threads run meanwhile."""
_HOLDING: Final = _load(ctypes.PyDLL)
"""Keeps the interpreter, which for a moment takes less time than getting it back."""

AVAILABLE: Final = _FREE is not None
"""Whether this installation has it, and this system can load it."""


def compute(call: Rows, *, small: bool) -> None:
    """Compute some rows; `small` if that takes a moment only.

    Raises IndexError when a class is wrong, TypeError when it does not compute these types or
    this loss, and MemoryError. None of them leaves anything written elsewhere than in the call's
    places.
    """
    library = _HOLDING if small else _FREE
    if library is None:
        raise RuntimeError(_MISSING)
    result = getattr(library, call.function)(call)
    if result:
        kind, text = _RESULTS[result]
        raise kind(text)


def in_message(kind: type[Message], *, small: bool) -> Callable[[int, bytes, int, int], int]:
    """Give what computes, by such a structure at an address, what lies in a message.

    It takes that address, the message, where the evaluation begins in it, and the address of
    the answer; it gives 0, or why it cannot. Raises RuntimeError where there is no library.
    """
    library = _HOLDING if small else _FREE
    if library is None:
        raise RuntimeError(_MISSING)
    found: Callable[[int, bytes, int, int], int] = getattr(library, kind.function)
    return found
