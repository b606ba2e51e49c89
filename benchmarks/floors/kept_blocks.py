"""Makes glibc keep large blocks, before any thread starts."""

import ctypes

_SETTINGS = (
    (-3, 1 << 30),  # M_MMAP_THRESHOLD
    (-1, 2**31 - 1),  # M_TRIM_THRESHOLD
    (-2, 64 << 20),  # M_TOP_PAD
    (-8, 1),  # M_ARENA_MAX
)


def keep() -> None:
    """Keep freed blocks for reuse; RuntimeError where the C library cannot."""
    libc = ctypes.CDLL(None)
    if not all(libc.mallopt(name, value) for name, value in _SETTINGS):
        raise RuntimeError("mallopt refused a setting")
