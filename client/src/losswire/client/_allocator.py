"""The process's policy on large blocks of memory, for callers with large arrays.

The server has one of its own: the two share no process and no code.
"""

import ctypes
import os
from typing import Final

_M_TRIM_THRESHOLD: Final = -1
_M_TOP_PAD: Final = -2
_M_MMAP_THRESHOLD: Final = -3
_M_ARENA_MAX: Final = -8

_SETTINGS: Final = {
    _M_MMAP_THRESHOLD: 1 << 30,
    _M_TRIM_THRESHOLD: 2**31 - 1,
    _M_TOP_PAD: 64 << 20,
    _M_ARENA_MAX: 1,
}
"""The arguments of `mallopt`, in C ints."""


def keep_large_blocks() -> bool:
    """Keep freed blocks below 1 GiB in this process for reuse; returns whether the platform can.

    By default glibc returns every large block to the kernel, and the next array of that size
    pays for all of its pages again, which for large gradients costs more than the arithmetic. The
    setting is the process's and stays: memory that was once used for arrays is not returned.

    Call it once, after the imports and before the first client is made, the first thread started
    and the first large array allocated; it reaches only threads that have not allocated yet. Does
    nothing, and returns False, where the C library is not glibc. The SDK never calls it by itself.
    """
    if not _has_glibc():
        return False
    libc = ctypes.CDLL(None)
    accepted = [libc.mallopt(name, value) for name, value in _SETTINGS.items()]
    return all(accepted)


def _has_glibc() -> bool:
    try:
        return (os.confstr("CS_GNU_LIBC_VERSION") or "").startswith("glibc")
    except (AttributeError, ValueError, OSError):  # Windows, macOS, musl
        return False
