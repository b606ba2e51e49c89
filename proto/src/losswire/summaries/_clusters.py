"""Sums by cluster: of clusters that may continue by their key, of complete ones as moments."""

from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet

import numpy as np
import numpy.typing as npt

from losswire.summaries._moments import MomentsTable, sums_by_group
from losswire.summaries._rows import Key, text_bytes
from losswire.v1 import summary_pb2

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


class ClusterTable:
    """Clusters of each of some groups: sums of `dimension` numbers of their rows."""

    def __init__(self, groups: int, dimension: int) -> None:
        """Start without clusters."""
        self.folded = MomentsTable(groups, dimension)
        self._open: dict[Key, dict[int, Floats]] = {}
        """The sums by key and group."""
        self.open_count = 0
        """How many sums are open: clusters in each of their groups."""
        self._text_bytes = 0
        """The memory of the keys that are texts."""

    @property
    def nbytes(self) -> int:
        """The memory of the table, in bytes, about."""
        return self.folded.nbytes + self.open_count * self._sum_bytes + self._text_bytes

    @property
    def _sum_bytes(self) -> int:
        return 400 + 8 * self.folded.dimension

    def bytes_with(self, groups: int, added: int, key_bytes: int) -> int:
        """Return the memory with as many groups and `added` open sums more, at most.

        `key_bytes` is the memory of the largest of their keys.
        """
        more = added * (self._sum_bytes + key_bytes)
        return self.nbytes - self.folded.nbytes + self.folded.bytes_with(groups) + more

    def grow(self, groups: int) -> None:
        """Add groups without clusters."""
        self.folded.grow(groups)

    def add(
        self,
        numbers: Sequence[Floats],
        group: Integers | None,
        keys: Sequence[Key],
        key_of: Integers,
        complete: AbstractSet[Key],
    ) -> None:
        """Add rows: `numbers` are arrays of shape (rows), `group` the group of each.

        `keys[key_of[i]]` is the cluster of row i. Those in `complete` have no further rows.
        """
        groups = len(self.folded.weight)
        code = key_of if group is None else key_of * groups + group
        found, at = np.unique(code, return_inverse=True)
        sums = np.stack([sums_by_group(each, at, len(found)) for each in numbers], axis=1)
        which, where = np.divmod(found, groups)
        # Clusters that begin and end among these rows never need a key.
        inner = np.array([key in complete and key not in self._open for key in keys], bool)[which]
        self._fold(sums[inner], where[inner])
        rest = np.flatnonzero(~inner)
        for position, key, place in zip(
            rest.tolist(), which[rest].tolist(), where[rest].tolist(), strict=True
        ):
            self._add_open(keys[key], place, sums[position])
        for key in [each for each in complete if each in self._open]:
            self._close(key)

    def _add_open(self, key: Key, group: int, sums: Floats) -> None:
        if key not in self._open:
            self._text_bytes += text_bytes(key)
        by_group = self._open.setdefault(key, {})
        if group in by_group:
            by_group[group] = by_group[group] + sums
        else:
            by_group[group] = sums
            self.open_count += 1

    def _close(self, key: Key) -> None:
        """Fold a cluster that is complete."""
        by_group = self._open.pop(key)
        self._text_bytes -= text_bytes(key)
        self.open_count -= len(by_group)
        self._fold(np.stack(list(by_group.values())), np.array(list(by_group), np.int64))

    def _fold(self, sums: Floats, group: Integers) -> None:
        if not len(sums):
            return
        groups = len(self.folded.weight)
        columns = [np.ascontiguousarray(each) for each in sums.T]
        self.folded.merge(MomentsTable.of_rows(columns, group if groups > 1 else None, groups))

    def is_open(self, key: Key, group: int) -> bool:
        """Whether a cluster is open in a group."""
        return group in self._open.get(key, {})

    def shift(self, deltas: Sequence[Floats]) -> None:
        """Measure from other origins; see MomentsTable.shift."""
        self.folded.shift(deltas)
        if not any(each.any() for each in deltas):
            return
        for by_group in self._open.values():
            for group, sums in by_group.items():
                step = np.array([each[group] for each in deltas])
                sums[::2] += step * sums[1::2]

    def merge(self, other: "ClusterTable", into: Integers) -> None:
        """Add the clusters of another table."""
        self.folded.merge(other.folded, into)
        for key, by_group in other._open.items():  # noqa: SLF001 (of the same class)
            for group, sums in by_group.items():
                self._add_open(key, int(into[group]), sums)

    def write(self, group: int, message: summary_pb2.ClusterSummary) -> None:
        """Write the clusters of one group, apart from the open ones, which `write_open` does."""
        self.folded.write(group, message.folded)

    def write_open(self, messages: Mapping[int, summary_pb2.ClusterSummary]) -> None:
        """Write the open clusters to the messages of the groups, in the order of their keys."""
        for key in sorted(self._open, key=_order):
            for group, sums in self._open[key].items():
                entry = messages[group].open.add()
                if isinstance(key, int):
                    entry.number = key
                else:
                    entry.name = key
                entry.sums[:] = sums.tolist()

    def read(self, group: int, message: summary_pb2.ClusterSummary) -> None:
        """Read the clusters of one group."""
        self.folded.read(group, message.folded)
        for key, sums in open_sums(message):
            self._add_open(key, group, sums)


def open_sums(message: summary_pb2.ClusterSummary) -> Iterator[tuple[Key, Floats]]:
    """Yield key and sums of each open cluster of a message."""
    for each in message.open:
        key: Key = each.name if each.WhichOneof("key") == "name" else each.number
        yield key, np.array(each.sums, np.float64)


def all_clusters(message: summary_pb2.ClusterSummary) -> MomentsTable:
    """Return the moments of all clusters of a message, open ones included."""
    dimension = len(message.folded.means)
    sums = [each for _, each in open_sums(message)]
    if sums:
        dimension = len(sums[0])
    table = MomentsTable(1, dimension)
    table.read(0, message.folded)
    if sums:
        columns = [np.ascontiguousarray(each) for each in np.stack(sums).T]
        table.merge(MomentsTable.of_rows(columns, None, 1))
    return table


def _order(key: Key) -> tuple[int, int, str]:
    return (0, key, "") if isinstance(key, int) else (1, 0, key)
