"""Staging: copies tensors to a device and back through pinned memory that is allocated once.

A device copies by itself only from and to pinned memory, whose allocation takes longer than most
losses. So there is a fixed amount of it, cut into slabs that are used in turn: while the device
copies one, the processor copies the next.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from losswire.server.catalogue.value_rules import Array
from losswire.server.compute import thresholds
from losswire.server.compute.tensors import to_array, to_tensor


class Mark(Protocol):
    """An event in a lane, which occurs when all work queued before it is done."""

    def synchronize(self) -> None:
        """Wait for it."""


class Lane(Protocol):
    """A stream of a device: its work is queued, and done in order."""

    def empty(self, like: Tensor) -> Tensor:
        """Return memory of the device in a tensor's shape and dtype, contiguous."""

    def copy(self, target: Tensor, source: Tensor) -> None:
        """Queue a copy from or to pinned memory."""

    def mark(self) -> Mark:
        """Return the event that follows the work queued so far."""

    def wait(self, mark: Mark) -> None:
        """Let work queued from now on wait for an event of another lane."""

    def uses(self, tensor: Tensor) -> None:
        """Prevent reuse of a tensor's memory until the work that is queued here by then is done."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lanes:
    """The lanes of one device: copies in, computation and copies out may overlap."""

    arriving: Lane
    computing: Lane
    leaving: Lane


class _Slab:
    """A piece of pinned memory, and the copies out of it that are still to be done."""

    __slots__ = ("_mark", "_place", "memory")

    def __init__(self, memory: Tensor) -> None:
        self.memory = memory
        self._mark: Mark | None = None
        self._place: Tensor | None = None

    def hold(self, mark: Mark, place: Tensor | None = None) -> None:
        """Reserve the slab until an event; then its first bytes are copied to host memory."""
        self._mark, self._place = mark, place

    def settle(self) -> None:
        """Wait for the device, and copy the bytes that it wrote to their destination."""
        mark, place = self._mark, self._place
        self._mark = self._place = None
        if mark is not None:
            mark.synchronize()
        if place is not None:
            place.copy_(self.memory[: place.numel()])


class _Ring:
    """Slabs that are used in turn, each only after it is settled."""

    def __init__(self, slabs: list[_Slab]) -> None:
        self._slabs = deque(slabs)
        """The least recently used comes first."""

    def take(self) -> _Slab:
        slab = self._slabs[0]
        self._slabs.rotate(-1)
        slab.settle()
        return slab

    def settle(self) -> None:
        for slab in self._slabs:
            slab.settle()


class Staging:
    """The transfers of a device with memory of its own."""

    def __init__(
        self,
        device: torch.device,
        lanes: Lanes,
        pinned: Callable[[int], Tensor],
        *,
        slabs: int = thresholds.SLAB_COUNT,
        slab_bytes: int = thresholds.SLAB_BYTES,
        smallest: int = thresholds.STAGED_BYTES,
    ) -> None:
        """Allocate the slabs; `pinned` returns pinned memory of a size in bytes.

        Tensors of less than `smallest` bytes are copied without staging.
        """
        self._device = device
        self._lanes = lanes
        self._slab_bytes = slab_bytes
        self._smallest = smallest
        self._arriving, self._leaving = (
            _Ring([_Slab(pinned(slab_bytes)) for _ in range(slabs)]) for _ in range(2)
        )

    def __enter__(self) -> None:
        """Begin a computation."""

    def __exit__(self, *error: object) -> None:
        """Wait until every fetched array is complete."""
        self._leaving.settle()

    def bring(self, tensor: Tensor) -> Tensor:
        """Return a host tensor on the device; the source may change afterwards."""
        if tensor.nbytes < self._smallest:
            return tensor.to(self._device)
        lanes, lane = self._lanes, self._lanes.arriving
        placed = lane.empty(tensor)
        sources, targets = self._pieces(tensor.contiguous()), self._pieces(placed)
        for source, target in zip(sources, targets, strict=True):
            slab = self._arriving.take()
            staged = slab.memory[: source.numel()]
            staged.copy_(source)
            lane.copy(target, staged)
            slab.hold(lane.mark())
        lanes.computing.wait(lane.mark())
        # The memory belongs to the arriving lane, which would reuse it too soon.
        lanes.computing.uses(placed)
        return placed

    def fetch(self, tensor: Tensor, into: Array | None = None) -> Array:
        """Return a device tensor as a host array, complete at the end of the `with` block."""
        if tensor.nbytes < self._smallest:
            return to_array(tensor)
        source = tensor.detach().contiguous()
        result = torch.empty(source.shape, dtype=source.dtype) if into is None else to_tensor(into)
        lanes, lane = self._lanes, self._lanes.leaving
        lane.wait(lanes.computing.mark())
        lane.uses(source)
        for piece, place in zip(self._pieces(source), self._pieces(result), strict=True):
            slab = self._leaving.take()
            lane.copy(slab.memory[: piece.numel()], piece)
            slab.hold(lane.mark(), place)
        return to_array(result)

    def _pieces(self, tensor: Tensor) -> Sequence[Tensor]:
        """Split the bytes of a contiguous tensor into pieces that fit into slabs."""
        return torch.split(tensor.view(-1).view(torch.uint8), self._slab_bytes)
