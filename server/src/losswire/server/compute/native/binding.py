"""The compiled library, its structures and its calls.

A test compares them with the layout that the library exports.
"""

import ctypes
from collections.abc import Callable
from enum import IntEnum
from pathlib import Path
from typing import ClassVar, Final

_MISSING: Final = "this installation has no native rows"
PATH: Final = Path(__file__).with_name("librows.so")
"""The library, where it could be compiled."""


class Result(IntEnum):
    """The result of a call; `calls.h` has the same numbers."""

    DONE = 0
    UNKNOWN_TYPE = 1
    WRONG_CLASS = 2
    NO_MEMORY = 3
    UNKNOWN_LOSS = 4
    WRONG_VALUE = 5
    """Of calls by messages only, which check values."""


_ERRORS: Final[dict[int, tuple[type[Exception], str]]] = {
    Result.UNKNOWN_TYPE: (TypeError, "the types of inputs and gradients do not go together"),
    Result.WRONG_CLASS: (
        IndexError,
        "a class is neither below the number of classes nor ignore_index",
    ),
    Result.NO_MEMORY: (MemoryError, "there is no memory for a row"),
    Result.UNKNOWN_LOSS: (TypeError, "there is no such loss of single elements"),
}
"""The errors of calls by arrays."""


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
        ("divisor", ctypes.c_double),
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
        ("pos_weight", ctypes.c_void_p),
        ("removed", ctypes.c_void_p),
        ("coefficients", ctypes.c_void_p),
        ("coefficient_step", ctypes.c_int64),
        ("divisor", ctypes.c_double),
        ("input_gradient", ctypes.c_void_p),
        ("target_gradient", ctypes.c_void_p),
        ("values", ctypes.c_void_p),
        ("option", ctypes.c_double),
        ("loss", ctypes.c_int32),
        ("weight_repeats", ctypes.c_int32),
        ("pos_weight_repeats", ctypes.c_int32),
        ("read_type", ctypes.c_int32),
        ("gradient_type", ctypes.c_int32),
        ("most_vector_bytes", ctypes.c_int32),
        ("total", ctypes.c_double),
    )


class SummaryRows(ctypes.Structure):
    """Row losses of a summary, by group; `summary_rows.cc` describes each field."""

    functions: ClassVar = ("indices", "sums", "moments", "count")
    _fields_ = (
        ("rows", ctypes.c_int64),
        ("values", ctypes.c_void_p),
        ("group", ctypes.c_void_p),
        ("origin", ctypes.c_void_p),
        ("counts", ctypes.c_void_p),
        ("sums", ctypes.c_void_p),
        ("first", ctypes.c_void_p),
        ("second", ctypes.c_void_p),
        ("minimum", ctypes.c_void_p),
        ("maximum", ctypes.c_void_p),
        ("indices", ctypes.c_void_p),
        ("weights", ctypes.c_void_p),
        ("stride", ctypes.c_int64),
        ("first_index", ctypes.c_int64),
        ("below", ctypes.c_void_p),
        ("bound", ctypes.c_void_p),
        ("scale", ctypes.c_int32),
        ("shift", ctypes.c_int32),
    )


class Answer(ctypes.Structure):
    """The offsets of the parts of an answer; `message.h` describes each field."""

    _fields_ = (
        ("loss_at", ctypes.c_int64),
        ("numbers_at", ctypes.c_int64),
        ("queue_nanoseconds", ctypes.c_int64),
        ("denominator", ctypes.c_double),
        ("has_denominator", ctypes.c_int32),
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
        ("pos_weight_at", ctypes.c_int64),
        ("input_gradient_at", ctypes.c_int64),
        ("target_gradient_at", ctypes.c_int64),
    )


class JsonArray(ctypes.Structure):
    """An array of numbers in a JSON text; `json_numbers.cc` describes each field."""

    _fields_ = (
        ("start", ctypes.c_int64),
        ("stop", ctypes.c_int64),
        ("count", ctypes.c_int64),
        ("shape", ctypes.c_int64 * 8),
        ("axes", ctypes.c_int32),
        ("kind", ctypes.c_int32),
    )


WIDEST: Final = 64
"""The widest registers to use, in bytes; the processor may have narrower ones only."""

Rows = SoftmaxRows | Elements
Message = SoftmaxMessage | ElementsMessage

_MESSAGE_ARGUMENTS: Final = (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int64, ctypes.c_void_p)
_SIZE_ARGUMENTS: Final = (
    ctypes.c_char_p,
    ctypes.c_int64,
    ctypes.c_int64,
    ctypes.c_void_p,
    ctypes.c_int64,
    ctypes.POINTER(ctypes.c_int64),
)
_FIND_ARGUMENTS: Final = (
    ctypes.c_void_p,
    ctypes.c_int64,
    ctypes.c_int64,
    ctypes.c_int64,
    ctypes.POINTER(JsonArray),
    ctypes.c_int64,
)
_READ_ARGUMENTS: Final = (ctypes.c_void_p, ctypes.POINTER(JsonArray), ctypes.c_void_p)


def load(kind: type[ctypes.CDLL], path: Path = PATH) -> ctypes.CDLL | None:
    """Load the library and declare its functions; None where this system cannot load it."""
    try:
        library = kind(str(path))
    except OSError:
        return None
    for rows in (SoftmaxRows, Elements):
        function = getattr(library, rows.function)
        function.argtypes, function.restype = (ctypes.POINTER(rows),), ctypes.c_int32
    for name in SummaryRows.functions:
        function = getattr(library, f"losswire_summary_{name}")
        function.argtypes, function.restype = (ctypes.POINTER(SummaryRows),), ctypes.c_int32
    for message in (SoftmaxMessage, ElementsMessage):
        function = getattr(library, message.function)
        function.argtypes, function.restype = _MESSAGE_ARGUMENTS, ctypes.c_int32
    function = library.losswire_parsed_size
    function.argtypes, function.restype = _SIZE_ARGUMENTS, ctypes.c_int64
    function = library.losswire_json_arrays
    function.argtypes, function.restype = _FIND_ARGUMENTS, ctypes.c_int64
    function = library.losswire_json_elements
    function.argtypes, function.restype = _READ_ARGUMENTS, ctypes.c_int32
    return library


RELEASING: Final = load(ctypes.CDLL)
"""The library, called without the interpreter's lock, so that other threads run meanwhile."""
HOLDING: Final = load(ctypes.PyDLL)
"""The library, called with the lock held: for a moment, faster than taking the lock again."""

AVAILABLE: Final = RELEASING is not None
"""Whether this installation has the library, and this system can load it."""


def compute(call: Rows, *, small: bool) -> None:
    """Compute rows; `small` if that takes a moment only.

    Raises IndexError when a class is wrong, TypeError when it does not compute these dtypes or
    this loss, and MemoryError. In all cases, nothing is written outside of the call's arrays.
    """
    library = HOLDING if small else RELEASING
    if library is None:
        raise RuntimeError(_MISSING)
    result = getattr(library, call.function)(call)
    if result:
        kind, text = _ERRORS[result]
        raise kind(text)


def message_function(kind: type[Message], *, small: bool) -> Callable[[int, bytes, int, int], int]:
    """Return the function that computes an evaluation inside a message by such a structure.

    It takes the structure's address, the message, the offset of the evaluation in it, and the
    address of the answer; it returns a `Result`. Raises RuntimeError without the library.
    """
    library = HOLDING if small else RELEASING
    if library is None:
        raise RuntimeError(_MISSING)
    found: Callable[[int, bytes, int, int], int] = getattr(library, kind.function)
    return found
