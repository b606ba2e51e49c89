"""Batches in memory that is shared with a server on this machine, until a report covers them."""

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from losswire.client._calls.operations import Steps
from losswire.client._calls.session import Session
from losswire.client._data.batch import Batch
from losswire.client._messages import thresholds
from losswire.client._messages.placed_array import PlacedArray, aligned
from losswire.wire import wire_type_of

Array = npt.NDArray[Any]


class Memory(Protocol):
    """Memory that a server shares."""

    nbytes: int

    def view(self, offset: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        """Return an array in it."""

    def place(self, array: Array) -> PlacedArray | None:
        """Return an array in it with its place, as the server knows it."""

    def check(self) -> None:
        """Check that nobody has emptied it; FailedPreconditionError."""


class Lender(Protocol):
    """Lends shared memory to one call of a client after the other."""

    @property
    def session(self) -> Session:
        """The facts that all calls of the client have in common."""

    def lend(self, nbytes: int) -> Steps[Memory | None]:
        """Return memory of at least some bytes; None where there is none."""

    def take_back(self, memory: Memory, *, is_unused: bool) -> None:
        """Return it to the lender; `is_unused`: no server reads in it any more."""


@dataclass(frozen=True, slots=True)
class Placed:
    """A batch whose large arrays are in shared memory."""

    batch: Batch
    places: Mapping[int, PlacedArray]
    """The places of its arrays, by `id`."""


class Ring:
    """Places for batches, which are used again in the order in which they were filled."""

    def __init__(self, memory: Memory) -> None:
        """Begin with no batch."""
        self._memory = memory
        self._largest = memory.nbytes // 8
        self._spans: deque[tuple[int, int]] = deque()
        """Where the batches begin and end, the oldest first."""

    @property
    def piece_bytes(self) -> int:
        """The most bytes of a batch that is surely not too large."""
        return self._memory.nbytes // 16

    @property
    def largest_gap(self) -> int:
        """The most bytes between two batches that ask for a report.

        Where there is no room, at most the largest batch's size is lost at the end of the memory,
        and what is used has a batch that has asked.
        """
        return self._memory.nbytes - 3 * self._largest

    def check(self) -> None:
        """Check that nobody has emptied the memory; FailedPreconditionError."""
        self._memory.check()

    def has_room_for(self, batch: Batch) -> bool:
        """Return whether `copy` would succeed; always true where it would copy nothing."""
        nbytes = _size_of(batch)
        return self.never_fits(batch) or self._offset_for(nbytes) is not None

    def never_fits(self, batch: Batch) -> bool:
        """Return whether a batch is sent in its message: it is too small, or too large."""
        return not 0 < _size_of(batch) <= self._largest

    def copy(self, batch: Batch) -> Placed:
        """Copy the large arrays of a batch, for which there must be room."""
        offset = self._offset_for(_size_of(batch))
        if offset is None:
            raise ValueError("there is no room")
        start = offset
        places: dict[int, PlacedArray] = {}
        copies: dict[int, Array] = {}
        for array in _large_arrays(batch):
            copy = self._memory.view(offset, array.shape, array.dtype.newbyteorder("="))
            np.copyto(copy, array)
            placed = self._memory.place(copy)
            if placed is not None:
                places[id(placed.array)] = placed
                copies[id(array)] = placed.array
            offset += aligned(copy.nbytes)
        self._spans.append((start, offset))

        def moved(arrays: Mapping[str, Array]) -> dict[str, Array]:
            return {name: copies.get(id(array), array) for name, array in arrays.items()}

        weight = batch.sample_weight
        there = replace(
            batch,
            inputs=moved(batch.inputs),
            candidates=tuple(map(moved, batch.candidates)),
            sample_weight=None if weight is None else copies.get(id(weight), weight),
        )
        return Placed(there, places)

    def free_oldest(self) -> None:
        """Free the place of the oldest batch: the server does not need it any more."""
        self._spans.popleft()

    def free_newest(self) -> None:
        """Free the place of the newest batch, which was not sent."""
        self._spans.pop()

    def _offset_for(self, nbytes: int) -> int | None:
        if not self._spans:
            return 0 if nbytes <= self._memory.nbytes else None
        first, head = self._spans[0][0], self._spans[-1][1]
        if head <= first:
            return head if nbytes <= first - head else None
        if nbytes <= self._memory.nbytes - head:
            return head
        return 0 if nbytes <= first else None


def _large_arrays(batch: Batch) -> Iterator[Array]:
    weight = [] if batch.sample_weight is None else [batch.sample_weight]
    inputs = (array for each in (batch.inputs, *batch.candidates) for array in each.values())
    for array in (*inputs, *weight):
        # Weights of bools and integers are converted when they are sent.
        known = wire_type_of(array.dtype)
        if array.nbytes > thresholds.SENT_TENSOR_BYTES and known is not None:
            yield array


def _size_of(batch: Batch) -> int:
    return sum(aligned(array.nbytes) for array in _large_arrays(batch))
