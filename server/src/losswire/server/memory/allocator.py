"""The process's policy on large blocks of memory.

By default glibc returns every large block to the kernel when it is freed, and the
next tensor of that size pays for all of its pages again: on large losses that
costs several times the arithmetic. Keeping the blocks is a setting of the whole
process that must be made before other threads exist, since it reaches only the
main arena; with one arena, that is everybody's.
"""

import ctypes
import os
from typing import Final

_M_TRIM_THRESHOLD: Final = -1
_M_TOP_PAD: Final = -2
_M_MMAP_THRESHOLD: Final = -3
_M_ARENA_MAX: Final = -8

_GIB: Final = 1 << 30
_SETTINGS: Final = {
    _M_MMAP_THRESHOLD: _GIB,
    _M_TRIM_THRESHOLD: 2**31 - 1,
    _M_TOP_PAD: 64 << 20,
    _M_ARENA_MAX: 1,
}
"""What `mallopt` is told. The values are C ints, which bounds the trim threshold."""


def keep_large_blocks() -> bool:
    """Keep freed blocks below 1 GiB for reuse; tells whether the platform can.

    Call it before anything starts a thread, so before numpy or torch is imported.
    Does nothing where the C library is not glibc.
    """
    if not _has_glibc():
        return False
    libc = ctypes.CDLL(None)
    accepted = [libc.mallopt(name, value) for name, value in _SETTINGS.items()]
    return all(accepted)


def give_back() -> None:
    """Return kept blocks to the kernel. Does nothing where the C library is not glibc."""
    if _has_glibc():
        ctypes.CDLL(None).malloc_trim(0)


def _has_glibc() -> bool:
    try:
        return (os.confstr("CS_GNU_LIBC_VERSION") or "").startswith("glibc")
    except (AttributeError, ValueError, OSError):  # Windows, macOS, musl
        return False
