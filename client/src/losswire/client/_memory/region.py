"""A region of shared memory, for its caller."""

from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from losswire.client._calls.lease import Lease
from losswire.client._calls.process_bound import ProcessBound
from losswire.client._memory.mapping import SharedMemory
from losswire.client._messages.placed_array import PlacedArray, aligned


class Region(ProcessBound):
    """Memory that the server on this machine shares. Made by `Client.region`.

    Arrays made in it are ordinary numpy arrays. `evaluate` recognizes them as inputs and in `out`,
    and does not copy them: the server reads and writes them in place, so they must not change
    meanwhile. Inputs of at most 64 KiB together are still sent, unless `out` is given: that is
    faster. It is not safe to make arrays from several threads at once.

    Arrays keep their contents when a call, the client or the server ends; a forked child has them,
    too. After a call without an answer (a timeout, a cancelled task) the server may still write
    that call's gradient into its `out` for a moment.

    Example:
        >>> with client.region(4096) as region:
        ...     logits, out = region.array((2, 3)), region.array((2, 3))
        ...     result = client.evaluate(
        ...         "cross_entropy",
        ...         {"input": logits, "target": [0, 2]},
        ...         gradients=["input"],
        ...         out={"input": out},
        ...     )
        >>> result.gradients["input"] is out, result.transport
        (True, 'region')
    """

    def __init__(self, memory: SharedMemory, forget: Callable[["Region"], None]) -> None:
        self.memory = memory
        """Its mapping, and its lease."""
        self._forget = forget
        self._used = 0
        self._closed = False
        self.lost = False
        """Whether the server does not have it any more, because it was started again.

        Its arrays keep their contents, and are sent like any others.
        """

    @property
    def nbytes(self) -> int:
        """Its size in bytes, rounded up to whole pages."""
        return self.memory.nbytes

    def array(
        self, shape: int | tuple[int, ...], dtype: npt.DTypeLike = np.float32
    ) -> npt.NDArray[Any]:
        """Return a new array of zeros in it, at an offset that is a multiple of 64 bytes.

        Each array follows the one before, and no bytes are used twice: keep arrays from step to
        step. Raises ValueError when there are too few bytes left, an axis is negative, or the
        region is closed.

        Example:
            >>> with client.region(4096) as region:
            ...     region.array((2, 3), np.float64).tolist()
            [[0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]
        """
        if self._closed:
            raise ValueError("array: the region is closed")
        wanted = (shape,) if isinstance(shape, int) else tuple(shape)
        if any(length < 0 for length in wanted):
            raise ValueError(f"array: an axis is negative in {wanted}")
        try:
            made = self.memory.view(self._used, wanted, np.dtype(dtype))
        except ValueError as error:
            raise ValueError(f"array: {error}") from None
        self._used = min(aligned(self._used + made.nbytes), self.nbytes)
        return made

    @property
    def lease(self) -> Lease:
        """The connection over which evaluations of its arrays can go."""
        return self.memory.lease

    def where(self, array: npt.NDArray[Any]) -> tuple[int, int] | None:
        """Return the region's number and an array's offset in it; None when it is not in it.

        Example:
            >>> with client.region(4096) as region:
            ...     arrays = region.array(3), region.array(3)
            ...     [region.where(each)[1] for each in arrays], region.where(np.zeros(3))
            ([0, 64], None)
        """
        if self._closed or self.lost:
            return None
        offset = self.memory.offset_of(array)
        return None if offset is None else (self.memory.region_id, offset)

    def place(self, array: npt.NDArray[Any]) -> PlacedArray | None:
        """Return an array with its place in the region; None when it is not in it.

        Example:
            >>> with client.region(4096) as region:
            ...     region.place(region.array(3)).region.offset
            0
        """
        return None if self._closed or self.lost else self.memory.place(array)

    def close(self) -> None:
        """Make no more arrays in it; `evaluate` sends its arrays like any others from now on.

        They keep their contents. The server has the memory back when the last of them is gone.
        Closing again does nothing.

        Example:
            >>> region = client.region(4096)
            >>> array = region.array(3)
            >>> region.close()
            >>> array.tolist()
            [0.0, 0.0, 0.0]
        """
        # All of it each time: an exception of a signal handler may have ended the time before
        # between any two of these, and then the client closes it again.
        self._closed = True
        self.memory.release()
        self._forget(self)

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
