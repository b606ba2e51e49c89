"""Fakes of a device's streams: they work as late as allowed, or at once."""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from losswire.server.compute.devices.pinned_staging import Lane, Lanes, Mark, Staging

_GARBAGE = 77


@dataclass(frozen=True)
class _Moment:
    """A position in a lane's work."""

    lane: "LazyLane"
    position: int

    def synchronize(self) -> None:
        self.lane.run_to(self.position)


@dataclass
class LazyLane:
    """Does nothing until a caller waits for it, and then no more than necessary.

    A caller that forgets to wait reads garbage; one that overwrites a source early corrupts data.
    """

    work: list[Callable[[], object]] = field(default_factory=list)
    done: int = 0
    kept: list[Tensor] = field(default_factory=list)
    """The tensors that were declared as used here."""

    def empty(self, like: Tensor) -> Tensor:
        """Return memory that holds garbage."""
        garbage = torch.full((like.nbytes,), _GARBAGE, dtype=torch.uint8)
        return garbage.view(like.dtype).view(like.shape)

    def copy(self, target: Tensor, source: Tensor) -> None:
        """Copy later."""
        self.work.append(lambda: target.copy_(source))

    def mark(self) -> Mark:
        """Mark the end of the work so far."""
        return _Moment(self, len(self.work))

    def wait(self, mark: Mark) -> None:
        """Let later work wait for a mark."""
        self.work.append(mark.synchronize)

    def uses(self, tensor: Tensor) -> None:
        """Record the tensor."""
        self.kept.append(tensor)

    def run_to(self, position: int) -> None:
        """Run the work up to a position."""
        while self.done < position:
            self.done += 1
            self.work[self.done - 1]()


class PromptLane(LazyLane):
    """Does everything at once, as tests that compute with torch on a CPU need it."""

    def copy(self, target: Tensor, source: Tensor) -> None:
        """Copy now."""
        target.copy_(source)


def staging(
    lane: Callable[[], Lane], slabs: int = 3, slab_bytes: int = 1024
) -> tuple[Staging, Lanes, list[Tensor]]:
    """Return a staging of everything, its lanes, and the memory that it pinned."""
    lanes = Lanes(arriving=lane(), computing=lane(), leaving=lane())
    pins: list[Tensor] = []

    def pinned(size: int) -> Tensor:
        pins.append(torch.zeros(size, dtype=torch.uint8))
        return pins[-1]

    made = Staging(
        torch.device("cpu"), lanes, pinned, slabs=slabs, slab_bytes=slab_bytes, smallest=1
    )
    return made, lanes, pins
