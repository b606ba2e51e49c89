"""The process's policy on large blocks of memory.

By default glibc returns every large block to the kernel when it is freed, and the next
tensor of that size pays for all of its pages again: on large losses that costs several
times the arithmetic. Keeping the blocks is a setting of the whole process, to be made
before other threads exist: it applies to the main arena only, so there is only one.
"""

import ctypes
import os
from typing import Final

from losswire.server import thresholds

_M_TRIM_THRESHOLD: Final = -1
_M_TOP_PAD: Final = -2
_M_MMAP_THRESHOLD: Final = -3
_M_ARENA_MAX: Final = -8

_SETTINGS: Final = {
    _M_MMAP_THRESHOLD: thresholds.ALLOCATOR_KEPT_BYTES,
    _M_TRIM_THRESHOLD: 2**31 - 1,
    _M_TOP_PAD: thresholds.ALLOCATOR_TOP_PAD_BYTES,
    _M_ARENA_MAX: 1,
}
"""The arguments of `mallopt`. The values are C ints, which bounds the trim threshold."""


def keep_large_blocks() -> bool:
    """Keep freed blocks below 1 GiB for reuse; returns whether the platform can.

    Call it before anything starts a thread, so before numpy or torch is imported.
    Does nothing where the C library is not glibc.
    """
    if not _has_glibc():
        return False
    libc = ctypes.CDLL(None)
    accepted = [libc.mallopt(name, value) for name, value in _SETTINGS.items()]
    return all(accepted)


def return_freed_memory() -> None:
    """Return kept blocks to the kernel. Does nothing where the C library is not glibc."""
    if _has_glibc():
        ctypes.CDLL(None).malloc_trim(0)


def _has_glibc() -> bool:
    try:
        return (os.confstr("CS_GNU_LIBC_VERSION") or "").startswith("glibc")
    except (AttributeError, ValueError, OSError):  # Windows, macOS, musl
        return False
