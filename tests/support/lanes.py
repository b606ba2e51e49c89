"""Lanes that stand for the streams of a device: as late as they may be, or at once."""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from losswire.server.compute.devices.pinned_staging import Lane, Lanes, Mark, Staging

_GARBAGE = 77


@dataclass(frozen=True)
class _Moment:
    """A place in a lane's work."""

    lane: "LazyLane"
    position: int

    def synchronize(self) -> None:
        self.lane.run_to(self.position)


@dataclass
class LazyLane:
    """Does nothing before somebody waits for it, and then no more than that.

    Whoever forgets to wait finds garbage, whoever overwrites a source too early spoils it.
    """

    work: list[Callable[[], object]] = field(default_factory=list)
    done: int = 0
    kept: list[Tensor] = field(default_factory=list)
    """What was said to be used here."""

    def empty(self, like: Tensor) -> Tensor:
        """Give memory with something else in it."""
        garbage = torch.full((like.nbytes,), _GARBAGE, dtype=torch.uint8)
        return garbage.view(like.dtype).view(like.shape)

    def copy(self, target: Tensor, source: Tensor) -> None:
        """Copy later."""
        self.work.append(lambda: target.copy_(source))

    def mark(self) -> Mark:
        """Mark the end of the work so far."""
        return _Moment(self, len(self.work))

    def wait(self, mark: Mark) -> None:
        """Let what comes wait."""
        self.work.append(mark.synchronize)

    def uses(self, tensor: Tensor) -> None:
        """Note it."""
        self.kept.append(tensor)

    def run_to(self, position: int) -> None:
        """Do the work up to a position."""
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
    """Make a staging of everything, its lanes, and what it pinned."""
    lanes = Lanes(arriving=lane(), computing=lane(), leaving=lane())
    pins: list[Tensor] = []

    def pinned(size: int) -> Tensor:
        pins.append(torch.zeros(size, dtype=torch.uint8))
        return pins[-1]

    made = Staging(
        torch.device("cpu"), lanes, pinned, slabs=slabs, slab_bytes=slab_bytes, smallest=1
    )
    return made, lanes, pins
