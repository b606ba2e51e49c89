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
from typing import Any, Final

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
    received = _Received()
    space = socket.CMSG_SPACE(_DESCRIPTOR_BYTES)
    received.messages.extend(map(connection.recvmsg, (1,), (space,), (socket.MSG_CMSG_CLOEXEC,)))
    descriptors = received.descriptors
    if not received.messages[0][0] or not descriptors:
        raise OSError("the server refused")
    needed = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL
    if fcntl.fcntl(descriptors[0], fcntl.F_GET_SEALS) & needed != needed:
        # If the server made it smaller, an access would end this process with a signal.
        raise OSError("the server did not seal it")
    return _Mapping(descriptors[0], size, inherited=inherited).array()


class _Received:
    """Messages with descriptors, which are closed with it."""

    def __init__(self) -> None:
        self.messages: list[tuple[bytes, list[tuple[int, int, bytes]], int, Any]] = []

    @property
    def descriptors(self) -> list[int]:
        """The descriptors, in this process's numbers."""
        return [
            int.from_bytes(data[start : start + _DESCRIPTOR_BYTES], sys.byteorder)
            for _, ancillary, _, _ in self.messages
            for level, kind, data in ancillary
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS)
            for start in range(0, len(data) - _DESCRIPTOR_BYTES + 1, _DESCRIPTOR_BYTES)
        ]

    def __del__(self) -> None:
        for each in self.descriptors:
            os.close(each)


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
