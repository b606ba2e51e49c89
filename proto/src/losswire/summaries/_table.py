"""A table of slices: everything that is kept of each slice. The total is one of one slice."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations

import numpy as np
import numpy.typing as npt

from losswire.summaries._clusters import ClusterTable
from losswire.summaries._distribution import CandidateRows, DistributionTable
from losswire.summaries._kernels import NUMPY, Kernels
from losswire.summaries._moments import MomentsTable
from losswire.summaries._pairs import PairTable
from losswire.summaries._rows import Column, Key, Rows, Settings, TooManyError, text_bytes
from losswire.summaries._sketch import Extent
from losswire.v1 import summary_pb2

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

Labels = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Clustered:
    """The clusters of some rows."""

    keys: Sequence[Key]
    """The distinct clusters."""
    key_of: Integers
    """The position of each row's, (N)."""
    complete: frozenset[Key]
    """Those that have no further rows."""


@dataclass(frozen=True)
class Prepared:
    """Some rows, with what all tables select of them."""

    rows: Rows
    candidates: tuple[CandidateRows, ...]
    joint: Flags | None
    """Which rows are finite in all candidates, (N); None: all."""
    clustered: Clustered | None

    def terms(self, tables: Sequence[DistributionTable], group: Integers | None) -> list[Floats]:
        """Return n - origin x d and d of each candidate, of the joint rows.

        The origins are those of the tables, by the group of each row, (N).
        """
        found: list[Floats] = []
        for each, table in zip(self.candidates, tables, strict=True):
            ours = None if group is None else group if each.which is None else group[each.which]
            found += each.measured(table.origin_of_rows(ours))
        width = len(self.candidates)
        return [self._of_joint(self.candidates[at // 2], found[at]) for at in range(2 * width)]

    def both(self, first: int, second: int) -> Flags | None:
        """Return which rows are finite in two candidates, (N); None: all."""
        if self.joint is None:
            return None
        return self.candidates[first].finite & self.candidates[second].finite

    def difference(
        self, first: int, second: int, group: Integers | None
    ) -> tuple[Floats, Integers | None, Floats | None]:
        """Return the differences of the rows that are finite in both, their groups and weights."""
        both = self.both(first, second)
        left, right = (self.candidates[each].all_values for each in (first, second))
        weights = self.rows.weights
        if both is None:
            return left - right, group, weights
        return (
            left[both] - right[both],
            None if group is None else group[both],
            None if weights is None else weights[both],
        )

    @cached_property
    def extents(self) -> tuple[Extent | None, ...]:
        """The buckets of the differences of each pair."""
        scale = self.candidates[0].scale
        pairs = combinations(range(len(self.candidates)), 2)
        return tuple(Extent.of(self.difference(a, b, None)[0], scale) for a, b in pairs)

    def _of_joint(self, candidate: CandidateRows, array: Floats) -> Floats:
        """Return the joint rows of an array of a candidate's finite rows."""
        if self.joint is None or len(self.candidates) == 1:
            return array
        return array[self.joint if candidate.which is None else self.joint[candidate.which]]

    def of_joint(self, array: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
        """Return the joint rows of an array of all rows."""
        return array if self.joint is None else array[self.joint]


@dataclass(frozen=True, slots=True)
class Placement:
    """Where rows go in a table."""

    group: Integers | None
    """The group of each row, (N); None: there is one."""
    labels: list[Labels | None]
    """The slices that they need, in the order of their groups; None: the other slices."""


def _label_bytes(labels: Labels | None) -> int:
    """Return the memory of the labels of a slice, in bytes, at most."""
    return 300 + sum(map(text_bytes, labels or ()))


class GroupTable:
    """The slices of one table."""

    def __init__(
        self,
        settings: Settings,
        columns: Sequence[str],
        *,
        clustered: bool,
        kernels: Kernels = NUMPY,
    ) -> None:
        """Start without slices; a table without columns is the total, of one slice."""
        self.columns = tuple(columns)
        self._settings = settings
        width, scale = settings.width, settings.scale
        self._groups: dict[Labels | None, int] = {}
        self._label_bytes = 0
        self.distributions = [DistributionTable(0, scale, kernels) for _ in range(width)]
        self.joint = MomentsTable(0, 2 * width) if width > 1 else None
        self.pairs = [PairTable(0, scale) for _ in settings.pairs]
        self.clusters = ClusterTable(0, 2 * width) if clustered else None
        if not columns:
            self._grow([()])

    @property
    def nbytes(self) -> int:
        """The memory of the table, in bytes, about."""
        parts = [*self.distributions, *self.pairs, self.joint, self.clusters]
        return sum(each.nbytes for each in parts if each) + self._label_bytes

    def bytes_with(self, prepared: Prepared, placement: Placement, added: int) -> int:
        """Return the memory of the table with rows where they were placed, at most.

        `added` is the number of open sums that they add, at most.
        """
        new = {each for each in placement.labels if each not in self._groups}
        groups = len(self._groups) + len(new)
        total = self._label_bytes + sum(map(_label_bytes, new))
        for table, found in zip(self.distributions, prepared.candidates, strict=True):
            total += table.bytes_with(found.bucketed.extent, groups)
        for pair, extent in zip(self.pairs, prepared.extents, strict=True):
            total += pair.bytes_with(extent, groups)
        if self.joint is not None:
            total += self.joint.bytes_with(groups)
        clusters = prepared.rows.clusters
        if self.clusters is not None and clusters is not None:
            total += self.clusters.bytes_with(groups, added, 80 + clusters.longest)
        return total

    def place(self, rows: Rows) -> Placement:
        """Return where rows go, without changing anything; TooManyError for too many slices."""
        if not self.columns:
            return Placement(None, [()])
        labels, group = self._labels_of([rows.columns[name] for name in self.columns])
        named = sum(each is not None for each in self._groups)
        room = self._settings.max_slices - named
        chosen: list[Labels | None] = []
        for each in labels:
            if each in self._groups:
                chosen.append(each)
            elif room > 0:
                room -= 1
                chosen.append(each)
            elif self._settings.overflow_to_other:
                chosen.append(None)
            else:
                raise TooManyError(
                    f"{' x '.join(self.columns)} has more than {self._settings.max_slices} slices"
                )
        return Placement(group, chosen)

    @staticmethod
    def _labels_of(columns: Sequence[Column]) -> tuple[list[Labels], Integers]:
        """Return the distinct labels of rows, and the position of each row's."""
        keys, group = columns[0].distinct()
        labels: list[Labels] = [(str(each),) for each in keys]
        for column in columns[1:]:
            keys, at = column.distinct()
            # Numbered anew after each column: products of the numbers of all could overflow.
            used, group = np.unique(group * len(keys) + at, return_inverse=True)
            pairs = [divmod(each, len(keys)) for each in used.tolist()]
            labels = [(*labels[first], str(keys[second])) for first, second in pairs]
        return labels, group

    def add(self, prepared: Prepared, placement: Placement) -> None:
        """Add rows where they were placed."""
        self._grow(placement.labels)
        group = placement.group
        if group is not None:
            group = np.array([self._groups[each] for each in placement.labels])[group]
        for table, found in zip(self.distributions, prepared.candidates, strict=True):
            table.add(found, group)
        ours = None if group is None else np.asarray(prepared.of_joint(group), np.int64)
        if self.joint is None and self.clusters is None:
            return
        terms = prepared.terms(self.distributions, group)
        if self.joint is not None and len(terms[0]):
            self.joint.merge(MomentsTable.of_rows(terms, ours, len(self._groups)))
        for pair, (a, b) in zip(self.pairs, self._settings.pairs, strict=True):
            pair.add(*prepared.difference(a, b, group))
        if self.clusters is not None and prepared.clustered is not None:
            clusters = prepared.clustered
            key_of = np.asarray(prepared.of_joint(clusters.key_of), np.int64)
            self.clusters.add(terms, ours, clusters.keys, key_of, clusters.complete)

    def new_clusters(self, prepared: Prepared, placement: Placement, enough: int) -> int:
        """Return how many sums these rows will add to the open ones, at most.

        Exact where they might be more than `enough`.
        """
        clusters, table = prepared.clustered, self.clusters
        if clusters is None or table is None:
            return 0
        lasting = np.array([each not in clusters.complete for each in clusters.keys], bool)
        places = len(placement.labels)
        most = min(len(clusters.key_of), int(lasting.sum()) * places)
        if most <= enough:
            return most
        key_of = np.asarray(prepared.of_joint(clusters.key_of), np.int64)
        code = key_of * places
        if placement.group is not None:
            code = code + np.asarray(prepared.of_joint(placement.group), np.int64)
        found = np.unique(code[lasting[key_of]]).tolist()
        pairs = {(at // places, placement.labels[at % places]) for at in found}
        return sum(
            not table.is_open(clusters.keys[key], self._groups.get(labels, -1))
            for key, labels in pairs
        )

    def _grow(self, labels: Sequence[Labels | None]) -> None:
        """Add the slices that are not there."""
        before = len(self._groups)
        for each in labels:
            if each not in self._groups:
                self._groups[each] = len(self._groups)
                self._label_bytes += _label_bytes(each)
        groups = len(self._groups)
        if groups == before:
            return
        for part in (*self.distributions, *self.pairs, self.joint, self.clusters):
            if part is not None:
                part.grow(groups)

    def merge(self, other: "GroupTable") -> None:
        """Add the rows of another table of the same columns, for which `check_room` is called."""
        labels = list(other._groups)  # noqa: SLF001 (of the same class)
        if any(each is not None and each not in self._groups for each in labels):
            labels = self._with_room(labels)
        self._grow(labels)
        into = np.array([self._groups[each] for each in labels], np.int64)
        if len(set(labels)) < len(labels):
            self._merge_one_by_one(other, into)
            return
        self._merge_into(other, into)

    def check_room(self, other: "GroupTable") -> None:
        """Raise TooManyError where there would be too many slices, unless they may be joined.

        They may where some are already, whatever the settings.
        """
        every = {*self._groups, *other._groups}  # noqa: SLF001 (of the same class)
        may_join = self._settings.overflow_to_other or None in every
        if len(every) > self._settings.max_slices and not may_join:
            raise TooManyError(
                f"{' x '.join(self.columns)} has more than {self._settings.max_slices} slices"
            )

    def _with_room(self, labels: Sequence[Labels | None]) -> list[Labels | None]:
        """Return where slices go, of which those beyond the limit are joined."""
        room = self._settings.max_slices - sum(each is not None for each in self._groups)
        chosen: list[Labels | None] = []
        for each in labels:
            if each is not None and each not in self._groups:
                room -= 1
                chosen.append(each if room >= 0 else None)
            else:
                chosen.append(each)
        return chosen

    def _merge_one_by_one(self, other: "GroupTable", into: Integers) -> None:
        """Merge where several slices go to one: indexing would keep the last of them only."""
        for position, place in enumerate(into.tolist()):
            single = GroupTable(
                self._settings, self.columns or ("",), clustered=self.clusters is not None
            )
            message = other.message_of(position)
            single._read(message, tuple(message.labels))
            self._merge_into(single, np.array([place], np.int64))

    def _merge_into(self, other: "GroupTable", into: Integers) -> None:
        both = list(zip(self.distributions, other.distributions, strict=True))
        deltas = [ours.deltas_to(theirs, into) for ours, theirs in both]
        for (ours, theirs), delta in zip(both, deltas, strict=True):
            ours.merge(theirs, into, delta)
        for pair, added in zip(self.pairs, other.pairs, strict=True):
            pair.merge(added, into)
        if self.joint is not None and other.joint is not None:
            other.joint.shift(deltas)
            self.joint.merge(other.joint, into)
        if self.clusters is not None and other.clusters is not None:
            other.clusters.shift(deltas)
            self.clusters.merge(other.clusters, into)

    def message_of(self, group: int) -> summary_pb2.GroupSummary:
        """Return the message of one group, with its open clusters."""
        message = self._message(group, ())
        if self.clusters is not None:
            every = {each: summary_pb2.ClusterSummary() for each in self._groups.values()}
            every[group] = message.clusters
            self.clusters.write_open(every)
        return message

    def _message(self, group: int, labels: Labels) -> summary_pb2.GroupSummary:
        """Return the message of one group, without its open clusters."""
        message = summary_pb2.GroupSummary(labels=labels)
        for table in self.distributions:
            table.write(group, message.distributions.add())
        for pair in self.pairs:
            pair.write(group, message.pairs.add())
        if self.joint is not None:
            self.joint.write(group, message.joint)
        if self.clusters is not None:
            self.clusters.write(group, message.clusters)
        return message

    def messages(self) -> dict[Labels | None, summary_pb2.GroupSummary]:
        """Return the message of each slice, in the order of the labels, the other ones last."""
        order = sorted(self._groups, key=lambda each: (each is None, each or ()))
        found = {each: self._message(self._groups[each], each or ()) for each in order}
        if self.clusters is not None:
            self.clusters.write_open(
                {self._groups[each]: message.clusters for each, message in found.items()}
            )
        return found

    def read(self, messages: Sequence[summary_pb2.GroupSummary]) -> None:
        """Read slices from their messages."""
        self._grow([tuple(each.labels) for each in messages])
        for each in messages:
            self._read(each, tuple(each.labels))

    def read_other(self, message: summary_pb2.GroupSummary) -> None:
        """Read the other slices from their message."""
        self._read(message, None)

    def _read(self, message: summary_pb2.GroupSummary, labels: Labels | None) -> None:
        self._grow([labels])
        group = self._groups[labels]
        for table, each in zip(self.distributions, message.distributions, strict=True):
            table.read(group, each)
        for pair, found in zip(self.pairs, message.pairs, strict=True):
            pair.read(group, found)
        if self.joint is not None:
            self.joint.read(group, message.joint)
        if self.clusters is not None:
            self.clusters.read(group, message.clusters)
