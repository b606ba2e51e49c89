"""A region as a caller holds it."""

from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from losswire.client._calls.lease import Lease
from losswire.client._memory.mapping import SharedMemory, aligned
from losswire.client._messages.placed_array import PlacedArray


class Region:
    """Memory that the server on this machine shares. Made by `Client.region`.

    Arrays made in it are ordinary numpy arrays. `evaluate` notices those that are inputs or in
    `out`, and then nothing of them is copied: the server reads and writes them where they lie,
    so they must not change meanwhile. Inputs of less than 64 KiB together are sent nevertheless,
    unless `out` is given: that is faster. It is not safe to make arrays from several threads at
    once.

    Arrays keep their contents whatever ends: calls, the client, the server, or a forked child,
    which has them, too. After a call without an answer (a timeout, a cancelled task) the server
    may still write that call's gradient into its `out` for a moment.
    """

    def __init__(self, memory: SharedMemory, forget: Callable[["Region"], None]) -> None:
        self._memory = memory
        self._forget = forget
        self._used = 0
        self._closed = False
        self.lost = False
        """Whether the server turned out not to have it any more, because it was started again.

        Its arrays keep their contents, and are sent like any others.
        """

    @property
    def nbytes(self) -> int:
        """Its size, in bytes: what was asked for, rounded up to whole pages."""
        return self._memory.nbytes

    def array(
        self, shape: int | tuple[int, ...], dtype: npt.DTypeLike = np.float32
    ) -> npt.NDArray[Any]:
        """Make an array in it, at a multiple of 64 bytes; a new one holds zeros.

        Arrays lie one behind the other, and room is not used again: keep them from step to
        step. Raises ValueError when there is too little room left, or the region is closed.
        """
        if self._closed:
            raise ValueError("array: the region is closed")
        wanted = (shape,) if isinstance(shape, int) else tuple(shape)
        if any(length < 0 for length in wanted):
            raise ValueError(f"array: an axis is negative in {wanted}")
        try:
            made = self._memory.view(self._used, wanted, np.dtype(dtype))
        except ValueError as error:
            raise ValueError(f"array: {error}") from None
        self._used = min(aligned(self._used + made.nbytes), self.nbytes)
        return made

    @property
    def lease(self) -> Lease:
        """What evaluations of its arrays can go over."""
        return self._memory.lease

    def where(self, array: npt.NDArray[Any]) -> tuple[int, int] | None:
        """Tell the region's number and an array's offset in it; None when it does not lie here."""
        if self._closed or self.lost:
            return None
        offset = self._memory.offset_of(array)
        return None if offset is None else (self._memory.region_id, offset)

    def place(self, array: npt.NDArray[Any]) -> PlacedArray | None:
        """Tell where an array lies in it; None when it does not."""
        return None if self._closed or self.lost else self._memory.place(array)

    def close(self) -> None:
        """Make no more arrays in it, and let `evaluate` send those there are like any others.

        They keep their contents. The server has the memory back when the last of them is gone.
        Closing again does nothing.
        """
        if not self._closed:
            self._closed = True
            self._forget(self)
            self._memory.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        state = " closed" if self._closed else " lost" if self.lost else ""
        return f"<losswire Region of {self.nbytes} bytes{state}>"
