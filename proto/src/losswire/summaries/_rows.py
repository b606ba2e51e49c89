"""The rows that are added to a summary, and its settings."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Final

import numpy as np
import numpy.typing as npt

from losswire.v1 import evaluation_pb2

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

MAX_SLICES: Final = 4096
"""The most slices of a table, and the default."""
MAX_OPEN_CLUSTERS: Final = 1 << 20
"""The most clusters that may be open."""
OPEN_CLUSTERS: Final = 1 << 18
"""How many clusters may be open by default."""
MAX_WORST: Final = 1000
"""The most rows that are kept of each kind."""
MAX_CANDIDATES: Final = 8
MAX_TABLES: Final = 16

Key = int | str
"""The value of a row in a column."""


class MergeError(ValueError):
    """Two summaries do not fit together; the text says why."""


class TooManyError(ValueError):
    """There are more slices or open clusters than there may be; nothing was counted."""


class MemoryNeededError(Exception):
    """Rows would take more memory than they may; nothing was counted."""

    def __init__(self, needed_bytes: int) -> None:
        """Say how many bytes the summary would have, at most."""
        super().__init__(f"the summary would take {needed_bytes} bytes")
        self.needed_bytes = needed_bytes


_CHARACTER_BYTES: Final = 4


def text_bytes(key: Key) -> int:
    """Return the memory of a text, in bytes, at most; 0 of a number."""
    return 80 + _characters_bytes(key) if isinstance(key, str) else 0


def _characters_bytes(text: str) -> int:
    return len(text) if text.isascii() else _CHARACTER_BYTES * len(text)


@dataclass(frozen=True, slots=True)
class Column:
    """A value of each of N rows: numbers, or texts by their codes."""

    codes: Integers
    """int64, of shape (N)."""
    labels: Sequence[str] | None = None
    """The text of each code, from 0 on; None: the values are the codes themselves."""

    def key(self, row: int) -> Key:
        """Return the value of a row."""
        code = int(self.codes[row])
        return code if self.labels is None else self.labels[code]

    @property
    def longest(self) -> int:
        """The bytes of the longest value as a text, at most."""
        if self.labels is None:
            return len(str(np.iinfo(np.int64).min))
        return max(map(_characters_bytes, self.labels), default=0)

    def text(self, row: int) -> str:
        """Return the value of a row as a text; a number in decimal."""
        return str(self.key(row))

    def distinct(self) -> tuple[list[Key], Integers]:
        """Return the distinct values, and the position of each row's among them."""
        codes = self.codes
        if not len(codes):
            return [], codes
        low, high = int(codes.min()), int(codes.max())
        span = high - low + 1
        if span <= 4 * len(codes) + 1024:
            shifted = codes - low if low else codes
            used = np.flatnonzero(np.bincount(shifted, minlength=span))
            found, at = used + low, shifted
            if len(used) < span:
                position = np.zeros(span, np.int64)
                position[used] = np.arange(len(used))
                at = position[shifted]
        else:
            found, at = np.unique(codes, return_inverse=True)
        if self.labels is None:
            return list(found.tolist()), at
        return self._joined([self.labels[each] for each in found.tolist()], at)

    @staticmethod
    def _joined(labels: list[str], at: Integers) -> tuple[list[Key], Integers]:
        """Let codes of the same text be one value."""
        first: dict[Key, int] = {}
        places = [first.setdefault(each, len(first)) for each in labels]
        if len(first) < len(labels):
            at = np.array(places, np.int64)[at]
        return list(first), at


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """What N rows add, for each of k candidates (1 where there are none)."""

    values: Floats
    """The loss of each row, (k, N). Of rows that do not take part: anything."""
    numerators: Floats | None = None
    """The share of each row in the mean's numerator, (k, N); None: weight times value."""
    denominators: Floats | None = None
    """The share of each row in the mean's denominator, (k, N); None: its weight."""
    weights: Floats | None = None
    """The weight of each row, (N); None: 1 each. A row of weight 0 must not take part."""
    counted: npt.NDArray[np.bool_] | None = None
    """Which rows take part, (k, N); None: all."""
    columns: Mapping[str, Column] = field(default_factory=dict)
    """The columns that the tables name."""
    clusters: Column | None = None
    """The cluster of each row."""
    ids: Column | None = None
    """The id of each row."""
    partition: str = ""
    """The key of the partition that the rows are in."""
    first_row: int = 0
    """The number of the first row in it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a summary is of and what it keeps. Summaries of equal settings merge."""

    loss: str
    options: Mapping[str, evaluation_pb2.OptionValue] = field(default_factory=dict)
    candidates: tuple[str, ...] = ()
    """The names of what is compared; empty: a summary of one."""
    tables: tuple[tuple[str, ...], ...] = ()
    """The columns of each table of slices."""
    scale: int = 6
    """The scale of the sketches."""
    worst: int = 0
    """How many of the worst rows are kept."""
    max_slices: int = MAX_SLICES
    overflow_to_other: bool = False
    """Whether rows of further slices are counted as `other` instead of refused."""
    grouped_clusters: bool = False
    """Whether the rows of a cluster are neighbours."""
    max_open_clusters: int = OPEN_CLUSTERS

    @property
    def width(self) -> int:
        """The number of candidates; 1 where there are none."""
        return max(len(self.candidates), 1)

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """The pairs of candidates, in the order of messages."""
        return list(combinations(range(self.width), 2))
