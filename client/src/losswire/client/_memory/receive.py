"""Receive a descriptor and map it, so that no interruption and no fork leaves anything behind.

An exception from a signal handler may come between any two instructions of Python. So the calls
of the system that create something append it to a list in the same C call, and the owner of the
list releases it. Python's own `mmap` keeps a copy of the descriptor, which a forked child would
inherit; these mappings keep none.
"""

import ctypes
import os
import socket
import sys
import threading
from functools import partial
from io import FileIO
from itertools import chain
from operator import itemgetter
from typing import Final

import numpy as np
import numpy.typing as npt

if sys.platform == "linux":
    import fcntl

_PROT_READ_WRITE: Final = 1 | 2
_MAP_SHARED_POPULATED: Final = 0x01 | 0x8000
_MADV_DONTFORK: Final = 10
_DESCRIPTOR_BYTES: Final = 4

_system = ctypes.CDLL(None, use_errno=True)
_system.mmap.restype = ctypes.c_size_t
_system.mmap.argtypes = (
    ctypes.c_void_p,
    ctypes.c_size_t,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_ssize_t,
)
_system.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
_system.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
_FAILED: Final = ctypes.c_size_t(-1).value


def receive_and_map(
    connection: socket.socket, size: int, *, inherited: bool
) -> npt.NDArray[np.uint8]:
    """Receive a region's descriptor and return its memory, an array of `size` bytes.

    `inherited` memory is mapped in forked children, too. Raises OSError when the server refuses
    or the system does.
    """
    files: list[FileIO] = []
    try:
        _receive_into(files, connection)
        if not files:
            raise OSError("the server refused")
        return _map(files[0].fileno(), size, inherited=inherited)
    finally:
        for each in files:
            each.close()


def _receive_into(files: list[FileIO], connection: socket.socket) -> None:
    """Receive descriptors as files.

    All of it is one call in C, and files close their descriptors in C, also when nobody closes
    them: an exception of a signal handler would leave a descriptor that Python code has to close.
    """
    space = socket.CMSG_SPACE(_DESCRIPTOR_BYTES)
    messages = map(connection.recvmsg, (1,), (space,), (socket.MSG_CMSG_CLOEXEC,))
    ancillary = chain.from_iterable(map(itemgetter(1), messages))
    files.extend(map(FileIO, map(_descriptor_of, map(itemgetter(2), ancillary))))


_descriptor_of = partial(int.from_bytes, byteorder=sys.byteorder)


def _map(descriptor: int, size: int, *, inherited: bool) -> npt.NDArray[np.uint8]:
    """Map a region, once it is seen to be sealed."""
    needed = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL
    if fcntl.fcntl(descriptor, fcntl.F_GET_SEALS) & needed != needed:
        # If the server made it smaller, an access would end this process with a signal.
        raise OSError("the server did not seal it")
    return _Mapping(descriptor, size, inherited=inherited).array()


class _Mapping:
    """One mapping. It is unmapped with this object, except in a forked child that has none."""

    def __init__(self, descriptor: int, size: int, *, inherited: bool) -> None:
        self._addresses: list[int] = []
        self._size = size
        self._only_in = None if inherited else os.getpid()
        # None as the address and 0 as the offset: the system chooses, and all of it.
        arguments = (None, size, _PROT_READ_WRITE, _MAP_SHARED_POPULATED, descriptor, 0)
        with _forking:
            self._addresses.extend(map(_system.mmap, *((each,) for each in arguments)))
            if self._addresses[0] == _FAILED:
                self._addresses.clear()
                number = ctypes.get_errno()
                raise OSError(number, os.strerror(number))
            if not inherited:
                _system.madvise(self._addresses[0], size, _MADV_DONTFORK)

    def array(self) -> npt.NDArray[np.uint8]:
        """Return its memory, which keeps it mapped."""
        memory = (ctypes.c_uint8 * self._size).from_address(self._addresses[0])
        memory.mapping = self  # type: ignore[attr-defined]
        return np.frombuffer(memoryview(memory), np.uint8)

    def __del__(self) -> None:
        # In a forked child other memory may be at these addresses. A hook that runs after the fork
        # could not prevent this: before all hooks, Python releases what other threads held.
        if self._only_in not in (None, os.getpid()):
            return
        for each in self._addresses:
            _system.munmap(each, self._size)


_forking = threading.RLock()
"""Held while something is mapped, and while a process forks: no child has a half-made mapping."""


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_forking.acquire,
        after_in_parent=_forking.release,
        after_in_child=_forking.release,
    )
