"""How a large evaluation is cut into chunks."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from losswire.client._messages.factored import Rebuild
from losswire.wire import Packing

Array = npt.NDArray[Any]

Progress = Callable[[int, int], None]
"""A callback with the number of rows done and the number of all rows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkedPlan:
    """The facts of a chunked evaluation that all its tries have in common."""

    header: bytes
    """The first message."""
    arrays: tuple[Array, ...]
    """The inputs that stream, in the order of packing."""
    step: int
    """The number of rows of a chunk."""
    outputs: Mapping[str, Array]
    """The arrays for the gradients that stream, in the order of packing."""
    packing: Packing
    """How the gradients, or their factors, are packed."""
    rebuild: Rebuild | None = None
    """How the one gradient that streams is made of factors; None: it comes dense."""

    @property
    def rows(self) -> int:
        """The number of all rows."""
        return len(self.arrays[0])
