"""Shared memory for the batches of summaries."""

from losswire.client._calls.operations import Steps
from losswire.client._calls.summarize.ring import Memory
from losswire.client._memory.mapping import SharedMemory
from losswire.client._memory.regions import Regions


class StagingLender:
    """Lends the staging regions of a client."""

    def __init__(self, regions: Regions) -> None:
        """Lend the regions that large evaluations are copied through."""
        self._staging = regions.staging
        self.session = regions.session
        """The facts that all calls of the client have in common."""

    def lend(self, nbytes: int) -> Steps[Memory | None]:
        """Return memory of at least some bytes; None where there is none."""
        if not self._staging.is_enabled:
            return None
        return (yield from self._staging.take(nbytes))

    def take_back(self, memory: Memory, *, is_unused: bool) -> None:
        """Return it to the lender; `is_unused`: no server reads in it any more."""
        if not isinstance(memory, SharedMemory):
            raise TypeError(f"this {type(memory).__name__} is no region")
        if is_unused:
            self._staging.give_back(memory)
        else:
            self._staging.drop(memory)
