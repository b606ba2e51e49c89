"""Messages that are written where they are sent from."""

import ctypes
from typing import Final

# Python's own way to make bytes in two steps: without a string, their contents are left open.
_FROM_STRING: Final = ctypes.pythonapi.PyBytes_FromStringAndSize
_FROM_STRING.argtypes = (ctypes.c_char_p, ctypes.c_ssize_t)
_FROM_STRING.restype = ctypes.py_object
_AS_STRING: Final = ctypes.pythonapi.PyBytes_AsString
_AS_STRING.argtypes = (ctypes.py_object,)
_AS_STRING.restype = ctypes.c_void_p


def new_bytes(size: int) -> tuple[bytes, int]:
    """Give a bytes object nobody has seen yet, which may still be written to, and its address.

    What gRPC sends is bytes, and to make them of anything else is a copy of all rows.
    """
    message: bytes = _FROM_STRING(None, size)
    address: int = _AS_STRING(message)
    return message, address
