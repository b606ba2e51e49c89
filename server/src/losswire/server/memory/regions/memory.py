"""The memory of a region: made, sized, sealed and mapped by the server, never by a caller.

Two open file descriptions lead to it. One stays in the server. The other is the caller's, and
carries a lock of its own (flock) that the kernel drops when the last descriptor and the last
mapping made from it are gone, in whatever process. So the server can ask at any time whether
anybody still holds the memory, however that caller's connection or process ended.
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
        """Allocate and map it, every page present; OverloadedError when there is too little.

        Takes about as long as clearing the memory does, so it is not for the event loop.
        `size_bytes` is a whole number of pages.
        """
        self.size_bytes = size_bytes
        self._descriptor = -1
        self.caller_descriptor = -1
        """The descriptor to hand out; -1 once that is done."""
        try:
            flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
            self._descriptor = os.memfd_create("losswire-region", flags)
            os.ftruncate(self._descriptor, size_bytes)
            seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
            fcntl.fcntl(self._descriptor, fcntl.F_ADD_SEALS, seals)
            # Now or never: a page that is missing later would end the process, not the call.
            os.posix_fallocate(self._descriptor, 0, size_bytes)
            # Opening it again gives another description, which can hold a lock against ours.
            path = f"/proc/self/fd/{self._descriptor}"
            self.caller_descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            fcntl.flock(self.caller_descriptor, fcntl.LOCK_SH)
            self._mapping = mmap.mmap(
                self._descriptor, size_bytes, flags=mmap.MAP_SHARED | mmap.MAP_POPULATE
            )
        except (OSError, MemoryError):
            self.close()
            message = "the server ran out of memory for regions"
            raise OverloadedError(message, _RETRY_AFTER_MS) from None

    def bytes(self, when_unused: Callable[[], None]) -> Bytes:
        """Return the memory; the callback comes, on any thread, when no view of it is left."""
        root = np.frombuffer(self._mapping, np.uint8)
        weakref.finalize(root, when_unused).atexit = False
        return root

    def close_caller_descriptor(self) -> None:
        """Close the server's copy of the descriptor that was handed out, or never will be."""
        if self.caller_descriptor >= 0:
            os.close(self.caller_descriptor)
            self.caller_descriptor = -1

    @property
    def is_held(self) -> bool:
        """Whether a caller's descriptor or mapping is left, in any process.

        A caller who unlocks the descriptor, or opens it anew, says that it gives up the contents.
        """
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False

    def close(self) -> None:
        """Close the descriptors; what callers hold stays as it is."""
        self.close_caller_descriptor()
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def empty(self) -> None:
        """Return the pages to the system and close; only for memory that nobody holds.

        A descriptor that was opened anew may be left, and must not keep pages that are no longer
        counted.
        """
        with suppress(OSError, ValueError):
            self._mapping.madvise(mmap.MADV_REMOVE)
        with suppress(BufferError):
            self._mapping.close()
        self.close()


def check_sharing() -> None:
    """Check that this system tells held memory from released memory; OSError when it does not."""
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
