"""Staging: moves tensors to a device and back through pinned memory that is made once.

A device copies by itself only from and to memory that the system cannot move. Making such
memory takes longer than most losses, so there is a little of it, cut into slabs that are
used in turn: while the device copies one, the processor copies the next.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from losswire.server import thresholds
from losswire.server.catalogue.value_rules import Array
from losswire.server.compute.tensors import to_array, to_tensor


class Mark(Protocol):
    """A moment in a lane: when all that was put there before is done."""

    def synchronize(self) -> None:
        """Wait for it."""


class Lane(Protocol):
    """A stream of a device: what is put there is done in order, and later."""

    def empty(self, like: Tensor) -> Tensor:
        """Give memory of the device in a tensor's shape and type, contiguous."""

    def copy(self, target: Tensor, source: Tensor) -> None:
        """Copy from or to pinned memory, in this lane."""

    def mark(self) -> Mark:
        """Mark what was put here until now."""

    def wait(self, mark: Mark) -> None:
        """Let what is put here from now on wait for a mark of another lane."""

    def uses(self, tensor: Tensor) -> None:
        """Keep a tensor's memory from others until what was put here until its end is done."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lanes:
    """The lanes of one device: copies in, computing and copies out may go on side by side."""

    arriving: Lane
    computing: Lane
    leaving: Lane


class _Slab:
    """A piece of pinned memory, and what its last user still expects of it."""

    __slots__ = ("_mark", "_place", "memory")

    def __init__(self, memory: Tensor) -> None:
        self.memory = memory
        self._mark: Mark | None = None
        self._place: Tensor | None = None

    def hold(self, mark: Mark, place: Tensor | None = None) -> None:
        """Take until the mark; then the first bytes belong in a place in host memory."""
        self._mark, self._place = mark, place

    def settle(self) -> None:
        """Wait for the device, and put what it left here where it belongs."""
        mark, place = self._mark, self._place
        self._mark = self._place = None
        if mark is not None:
            mark.synchronize()
        if place is not None:
            place.copy_(self.memory[: place.numel()])


class _Ring:
    """Slabs that are used in turn, each of them only after it is settled."""

    def __init__(self, slabs: list[_Slab]) -> None:
        self._slabs = deque(slabs)
        """The one used longest ago comes first."""

    def take(self) -> _Slab:
        slab = self._slabs[0]
        self._slabs.rotate(-1)
        slab.settle()
        return slab

    def settle(self) -> None:
        for slab in self._slabs:
            slab.settle()


class Staging:
    """The transfers of a device that has memory of its own."""

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
        """Take the lanes, and what makes so many bytes of pinned memory; it is used only here.

        What has less than `smallest` bytes is copied plainly.
        """
        self._device = device
        self._lanes = lanes
        self._slab_bytes = slab_bytes
        self._smallest = smallest
        self._arriving, self._leaving = (
            _Ring([_Slab(pinned(slab_bytes)) for _ in range(slabs)]) for _ in range(2)
        )

    def __enter__(self) -> None:
        """Begin to compute."""

    def __exit__(self, *error: object) -> None:
        """Wait until everything that was fetched is there."""
        self._leaving.settle()

    def bring(self, tensor: Tensor) -> Tensor:
        """Give a tensor in host memory on the device; what it was made of may change after."""
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
        # It is memory of the lane that it arrived in, which would use it again too soon.
        lanes.computing.uses(placed)
        return placed

    def fetch(self, tensor: Tensor, into: Array | None = None) -> Array:
        """Give a tensor of the device in host memory, whose elements are there in the end."""
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
        """Cut the bytes of a contiguous tensor into pieces that fit into slabs."""
        return torch.split(tensor.view(-1).view(torch.uint8), self._slab_bytes)
