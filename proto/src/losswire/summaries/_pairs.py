"""How two candidates differ, for each of some groups of rows."""

import numpy as np
import numpy.typing as npt

from losswire.summaries._sketch import Extent, SketchTable
from losswire.v1 import summary_pb2

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


class PairTable:
    """How two candidates differ, for each of some groups."""

    def __init__(self, groups: int, scale: int) -> None:
        """Start without rows."""
        self.outcomes: Integers = np.zeros((3, groups), np.int64)
        """Wins, ties and losses of the first."""
        self.sketch = SketchTable(groups, scale)

    @property
    def nbytes(self) -> int:
        """The memory of the table, in bytes."""
        return self.outcomes.nbytes + self.sketch.nbytes

    def bytes_with(self, extent: Extent | None, groups: int) -> int:
        """Return the memory with differences of an extent and as many groups, at most."""
        return 8 * 3 * groups + self.sketch.bytes_with(extent, groups)

    def grow(self, groups: int) -> None:
        """Add groups without rows."""
        missing = groups - self.outcomes.shape[1]
        self.outcomes = np.concatenate([self.outcomes, np.zeros((3, missing), np.int64)], axis=1)
        self.sketch.grow(groups)

    def add(self, difference: Floats, group: Integers | None, weights: Floats | None) -> None:
        """Add the difference of each row."""
        groups = self.outcomes.shape[1]
        if not len(difference):
            return
        for outcome, flags in enumerate((difference < 0, difference == 0, difference > 0)):
            at = np.zeros(int(flags.sum()), np.int64) if group is None else group[flags]
            self.outcomes[outcome] += np.bincount(at, minlength=groups)
        self.sketch.add(difference, group, weights)

    def merge(self, other: "PairTable", into: Integers) -> None:
        """Add the rows of another table."""
        self.outcomes[:, into] += other.outcomes
        self.sketch.merge(other.sketch, into)

    def write(self, group: int, message: summary_pb2.PairSummary) -> None:
        """Write one group to a message, apart from its rows."""
        message.wins, message.ties, message.losses = self.outcomes[:, group].tolist()
        self.sketch.write(group, message.sketch)

    def read(self, group: int, message: summary_pb2.PairSummary) -> None:
        """Read one group from a message."""
        self.outcomes[:, group] = message.wins, message.ties, message.losses
        self.sketch.read(group, message.sketch)
