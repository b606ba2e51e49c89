"""The memory of a region: created, sized, sealed and mapped by the server, never by a caller.

It has two open file descriptions. One stays in the server. The other is the caller's, and
carries a lock of its own (flock) that the kernel releases when the last descriptor and the last
mapping of it are gone, in any process. So the server can check at any time whether a caller still
holds the memory, however the caller's connection or process ended.
docs/decisions/0020-region-states.md draws the states.
"""

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

from losswire.server import thresholds
from losswire.server.errors import OverloadedError

Bytes = npt.NDArray[np.uint8]
"""The memory of a whole region, as its bytes."""

HAVE_REGIONS: Final = sys.platform == "linux" and hasattr(os, "memfd_create")
"""Whether this system can create regions: Linux."""

PAGE_BYTES: Final = mmap.PAGESIZE


class RegionMemory:
    """Memory without a name in the file system, which can never be resized again.

    The seals bind every holder of a descriptor: no caller can truncate the file under the server,
    which a signal would kill at its next access.
    """

    def __init__(self, size_bytes: int) -> None:
        """Allocate and map a whole number of pages; OverloadedError when memory is short.

        Takes about as long as clearing the memory, so it must not run on the event loop.
        """
        self.size_bytes = size_bytes
        self._descriptor = -1
        self.caller_descriptor = -1
        """The descriptor for the caller; -1 once it was sent."""
        try:
            flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
            self._descriptor = os.memfd_create("losswire-region", flags)
            os.ftruncate(self._descriptor, size_bytes)
            seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
            fcntl.fcntl(self._descriptor, fcntl.F_ADD_SEALS, seals)
            # All pages now: a page that is missing later would end the process, not the call.
            os.posix_fallocate(self._descriptor, 0, size_bytes)
            # Opening it again creates another description, which can hold a lock against ours.
            path = f"/proc/self/fd/{self._descriptor}"
            self.caller_descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            fcntl.flock(self.caller_descriptor, fcntl.LOCK_SH)
            self._mapping = mmap.mmap(
                self._descriptor, size_bytes, flags=mmap.MAP_SHARED | mmap.MAP_POPULATE
            )
        except (OSError, MemoryError):
            self.close()
            message = "the server ran out of memory for regions"
            raise OverloadedError(message, thresholds.REGION_RETRY_MS) from None

    def bytes(self, when_unused: Callable[[], None]) -> Bytes:
        """Return the memory; the callback is called, on any thread, when no view of it is left."""
        root = np.frombuffer(self._mapping, np.uint8)
        weakref.finalize(root, when_unused).atexit = False
        return root

    def close_caller_descriptor(self) -> None:
        """Close the server's copy of the caller's descriptor."""
        if self.caller_descriptor >= 0:
            os.close(self.caller_descriptor)
            self.caller_descriptor = -1

    @property
    def is_held(self) -> bool:
        """Whether a caller's descriptor or mapping is left, in any process.

        A caller who unlocks the descriptor, or opens it again, gives up the contents.
        """
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False

    def close(self) -> None:
        """Close the descriptors; what callers have mapped keeps its contents."""
        self.close_caller_descriptor()
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def empty(self) -> None:
        """Return the pages to the system and close; only for memory that no caller holds.

        A descriptor that was opened again may be left, and must not keep pages that are no longer
        counted.
        """
        with suppress(OSError, ValueError):
            self._mapping.madvise(mmap.MADV_REMOVE)
        with suppress(BufferError):
            self._mapping.close()
        self.close()


def check_sharing() -> None:
    """Check that this system reports who holds shared memory; OSError when it does not."""
    try:
        memory = RegionMemory(PAGE_BYTES)
    except OverloadedError as error:
        raise OSError(str(error)) from error
    try:
        held = memory.is_held
        memory.close_caller_descriptor()
        if not held or memory.is_held:
            message = "the system does not say who holds shared memory (flock on a memfd)"
            raise OSError(message)
    finally:
        memory.close()
