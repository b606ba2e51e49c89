"""The memory of a region: made, sized, sealed and mapped by the server, never by a caller."""

import fcntl
import mmap
import os
import sys
import weakref
from collections.abc import Callable
from contextlib import suppress
from typing import Final

import numpy as np
import numpy.typing as npt

from losswire.server.errors import OverloadedError

Bytes = npt.NDArray[np.uint8]
"""The memory of a whole region, as its bytes."""

HAVE_REGIONS: Final = sys.platform == "linux" and hasattr(os, "memfd_create")
"""Whether this system can make regions: Linux."""

PAGE_BYTES: Final = mmap.PAGESIZE

_RETRY_AFTER_MS: Final = 1000


class RegionMemory:
    """Memory without a name in the file system, which can never be resized again.

    The seals hold for everybody who has the descriptor: nobody can shorten the file under the
    server, which would be killed by a signal at its next access.
    """

    def __init__(self, size_bytes: int) -> None:
        """Make it, every page present; OverloadedError when the system has too little.

        Takes about as long as clearing the memory does, so it is not for the event loop.
        `size_bytes` is a whole number of pages.
        """
        self.size_bytes = size_bytes
        self.descriptor = -1
        try:
            flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
            self.descriptor = os.memfd_create("losswire-region", flags)
            os.ftruncate(self.descriptor, size_bytes)
            seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
            fcntl.fcntl(self.descriptor, fcntl.F_ADD_SEALS, seals)
            # Now or never: a page that is missing later would end the process, not the call.
            os.posix_fallocate(self.descriptor, 0, size_bytes)
            self._mapping = mmap.mmap(
                self.descriptor, size_bytes, flags=mmap.MAP_SHARED | mmap.MAP_POPULATE
            )
        except (OSError, MemoryError):
            self.close_descriptor()
            message = "the server ran out of memory for regions"
            raise OverloadedError(message, _RETRY_AFTER_MS) from None

    def bytes(self, when_unused: Callable[[], None]) -> Bytes:
        """Give the memory; the callback comes, on any thread, when no view of it is left."""
        root = np.frombuffer(self._mapping, np.uint8)
        weakref.finalize(root, when_unused).atexit = False
        return root

    def close_descriptor(self) -> None:
        """Close the descriptor; the mapping stays."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1

    def empty(self) -> None:
        """Give the pages back to the system, though somebody may still hold the descriptor."""
        self.close_descriptor()
        with suppress(OSError, ValueError):
            self._mapping.madvise(mmap.MADV_REMOVE)
