"""Bytes objects that are written in place: messages without a copy before they are sent."""

import ctypes
from typing import Final

# Python's own way to make bytes in two steps: without a string, their contents are uninitialized.
_FROM_STRING: Final = ctypes.pythonapi.PyBytes_FromStringAndSize
_FROM_STRING.argtypes = (ctypes.c_char_p, ctypes.c_ssize_t)
_FROM_STRING.restype = ctypes.py_object
_AS_STRING: Final = ctypes.pythonapi.PyBytes_AsString
_AS_STRING.argtypes = (ctypes.py_object,)
_AS_STRING.restype = ctypes.c_void_p


def new_bytes(size: int) -> tuple[bytes, int]:
    """Return a new bytes object, which only its maker may still write to, and its address.

    gRPC sends bytes, and converting anything else to bytes copies all rows.
    """
    message: bytes = _FROM_STRING(None, size)
    address: int = _AS_STRING(message)
    return message, address
