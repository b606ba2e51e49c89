"""The state of a summary: rows are added, states are merged, messages are read and written."""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from losswire.summaries._distribution import CandidateRows
from losswire.summaries._form import check_message
from losswire.summaries._included import Included
from losswire.summaries._kernels import NUMPY, Kernels
from losswire.summaries._memory import bytes_of
from losswire.summaries._rows import (
    MAX_OPEN_CLUSTERS,
    MemoryNeededError,
    MergeError,
    Rows,
    Settings,
    TooManyError,
)
from losswire.summaries._table import Clustered, GroupTable, Placement, Prepared
from losswire.summaries._worst import WorstRows
from losswire.summaries.statistics import estimate_of
from losswire.v1 import evaluation_pb2, summary_pb2

Floats = npt.NDArray[np.float64]

_beyond_float64 = np.errstate(over="ignore", invalid="ignore")
"""Squares of losses beyond 1e154 are infinite: the variance then is, or is NaN."""


class SummaryState:
    """What is kept of all rows so far. Its size does not grow with their number."""

    def __init__(self, settings: Settings, *, kernels: Kernels = NUMPY) -> None:
        """Start without rows."""
        self.settings = settings
        self._kernels = kernels
        self.clustered: bool | None = None
        """Whether rows have clusters; None: not known before the first."""
        self.included = Included()
        self.receipts: dict[bytes, evaluation_pb2.Receipt] = {}
        self._tables: list[GroupTable] = []
        limit = settings.worst
        self._worst = [
            WorstRows(limit, lambda row, k=k: row.values[k])  # type: ignore[misc]
            for k in range(settings.width)
        ]
        self._differing = [
            WorstRows(limit, lambda row, a=a, b=b: abs(row.values[a] - row.values[b]))  # type: ignore[misc]
            for a, b in settings.pairs
        ]
        self._first_cluster: int | str | None = None
        self._last_cluster: int | str | None = None

    def _empty_tables(self, *, clustered: bool) -> list[GroupTable]:
        every = ((), *self.settings.tables)
        return [
            GroupTable(self.settings, each, clustered=clustered, kernels=self._kernels)
            for each in every
        ]

    @property
    def rows(self) -> int:
        """How many rows it covers."""
        return self.included.rows

    @property
    def nbytes(self) -> int:
        """The memory of the state, in bytes, about."""
        kept = sum(each.nbytes for each in (*self._worst, *self._differing))
        return sum(each.nbytes for each in self._tables) + self.included.nbytes + kept

    @_beyond_float64
    def add(self, rows: Rows, limit_bytes: int | None = None) -> None:
        """Add rows. Raises MergeError or TooManyError before anything has changed.

        So it does MemoryNeededError, where the summary might become larger than `limit_bytes`.
        """
        count = rows.values.shape[1]
        self.included.check(rows.partition, rows.first_row, rows.first_row + count)
        if self.clustered is None:
            self.clustered = rows.clusters is not None
            self._tables = self._empty_tables(clustered=self.clustered)
        if self.clustered != (rows.clusters is not None):
            raise MergeError("rows must have clusters in all batches, or in none")
        if not count:
            return
        prepared = self._prepare(rows)
        places = [each.place(rows) for each in self._tables]
        added = self._check_clusters(prepared, places)
        if limit_bytes is not None:
            self._check_memory(prepared, places, added, limit_bytes)
        for table, place in zip(self._tables, places, strict=True):
            table.add(prepared, place)
        self._add_worst(prepared)
        self.included.add(rows.partition, rows.first_row, rows.first_row + count)
        if prepared.clustered is not None and rows.clusters is not None:
            if self._first_cluster is None:
                self._first_cluster = rows.clusters.key(0)
            self._last_cluster = rows.clusters.key(count - 1)

    def _prepare(self, rows: Rows) -> Prepared:
        scale = self.settings.scale
        candidates = tuple(
            CandidateRows(rows, each, scale, self._kernels) for each in range(self.settings.width)
        )
        joint = None
        if any(each.which is not None for each in candidates):
            joint = np.logical_and.reduce([each.finite for each in candidates])
        return Prepared(rows, candidates, joint, self._clustered(rows))

    def _clustered(self, rows: Rows) -> Clustered | None:
        if rows.clusters is None:
            return None
        keys, key_of = rows.clusters.distinct()
        if not self.settings.grouped_clusters:
            return Clustered(keys, key_of, frozenset())
        complete = set(keys)
        if self._last_cluster is not None:
            complete.add(self._last_cluster)
        # A neighbouring partition may continue the first and the last one.
        first = self._first_cluster if self._first_cluster is not None else rows.clusters.key(0)
        complete -= {first, rows.clusters.key(len(key_of) - 1)}
        return Clustered(keys, key_of, frozenset(complete))

    def _check_memory(
        self, prepared: Prepared, places: list[Placement], added: int, limit_bytes: int
    ) -> None:
        """Raise MemoryNeededError where the summary might become larger than a limit."""
        rows = prepared.rows
        count = rows.values.shape[1]
        columns = (*rows.columns.values(), *([] if rows.ids is None else [rows.ids]))
        size = len(rows.partition.encode()) + 16 * len(rows.values)
        size += sum(40 + each.longest for each in columns) + sum(map(len, rows.columns))
        needed = self.included.nbytes + 400 + 2 * len(rows.partition)
        needed += sum(each.bytes_with(count, size) for each in (*self._worst, *self._differing))
        for table, place in zip(self._tables, places, strict=True):
            needed += table.bytes_with(prepared, place, added)
        if needed > limit_bytes:
            raise MemoryNeededError(needed)

    def _check_clusters(self, prepared: Prepared, places: list[Placement]) -> int:
        """Return how many open sums rows add to a table, at most; TooManyError for too many."""
        if prepared.clustered is None:
            return 0
        limit = self.settings.max_open_clusters
        open_sums = sum(each.clusters.open_count for each in self._tables if each.clusters)
        enough = (limit - open_sums) // len(self._tables)
        both = zip(self._tables, places, strict=True)
        added = [each.new_clusters(prepared, at, enough) for each, at in both]
        if open_sums + sum(added) > limit:
            raise TooManyError(
                f"more than {limit} clusters would be open over all slices; sort the rows by "
                "cluster and say that they are grouped"
            )
        return max(added)

    def _add_worst(self, prepared: Prepared) -> None:
        if not self.settings.worst:
            return
        rows = prepared.rows

        def make(row: int) -> summary_pb2.RowLoss:
            return _row_loss(rows, row)

        for worst, found in zip(self._worst, prepared.candidates, strict=True):
            worst.add(found.all_values, rows.ids, make, found.counted)
        for differing, (a, b) in zip(self._differing, self.settings.pairs, strict=True):
            with np.errstate(invalid="ignore"):
                scores = np.abs(rows.values[a] - rows.values[b])
            differing.add(scores, rows.ids, make, prepared.both(a, b))

    def progress(self) -> tuple[list[float], list[float]]:
        """Return the mean of each candidate so far and its standard error, clusters aside."""
        if not self._tables:
            nothing = [float("nan")] * self.settings.width
            return nothing, nothing
        means, errors = [], []
        for table in self._tables[0].distributions:
            message = summary_pb2.LossDistribution()
            for name, counts in table.counts.items():
                setattr(message, name, int(counts[0]))
            message.mean_numerator = float(table.sums["mean_numerator"][0])
            message.mean_denominator = float(table.sums["mean_denominator"][0])
            table.terms.write(0, message.terms)
            found = estimate_of(message)
            means.append(found.mean)
            errors.append(found.standard_error)
        return means, errors

    def note_receipt(self, receipt: evaluation_pb2.Receipt) -> None:
        """Note how and by what rows were computed; the same again changes nothing."""
        self.receipts.setdefault(receipt.SerializeToString(deterministic=True), receipt)

    @_beyond_float64
    def merge(self, message: summary_pb2.LossSummary, limit_bytes: int | None = None) -> None:
        """Add the rows of a summary.

        Raises MergeError when it does not fit, TooManyError for too many slices, and
        MemoryNeededError where it might be larger than `limit_bytes`, before anything has changed.
        """
        self._check_fit(message)
        if limit_bytes is not None and (needed := bytes_of(message)) > limit_bytes:
            raise MemoryNeededError(needed)
        self.included.check_all(message.included)
        if _is_empty(message):
            self._note_receipts(message)
            return
        ours = self._tables or self._empty_tables(clustered=message.clustered)
        added = self._read(message)
        for table, theirs in zip(ours, added, strict=True):
            table.check_room(theirs)
        self.clustered, self._tables = message.clustered, ours
        for table, theirs in zip(ours, added, strict=True):
            table.merge(theirs)
        for worst, each in zip(self._worst, message.total.distributions, strict=True):
            worst.merge(each.worst)
        for differing, pair in zip(self._differing, message.total.pairs, strict=True):
            differing.merge(pair.most_different)
        self.included.add_all(message.included)
        self._note_receipts(message)

    def _note_receipts(self, message: summary_pb2.LossSummary) -> None:
        for receipt in message.receipts:
            self.note_receipt(receipt)

    def _read(self, message: summary_pb2.LossSummary) -> list[GroupTable]:
        """Return the tables of a message: the total, and those of slices."""
        added = [GroupTable(self.settings, (), clustered=message.clustered)]
        added[0].read([message.total])
        for table in message.tables:
            added.append(GroupTable(self.settings, table.columns, clustered=message.clustered))
            added[-1].read(table.slices)
            if table.HasField("other"):
                added[-1].read_other(table.other)
        return added

    def _check_fit(self, message: summary_pb2.LossSummary) -> None:
        """Raise MergeError when a summary is of something else."""
        settings = self.settings
        pairs = (
            ("the loss", message.loss, settings.loss),
            ("the options", _options(message.options), _options(settings.options)),
            ("the candidates", tuple(message.candidates), settings.candidates),
            ("the slices", tuple(tuple(t.columns) for t in message.tables), settings.tables),
            ("the accuracy's scale", message.scale, settings.scale),
            ("the number of worst rows", message.worst, settings.worst),
        )
        for name, theirs, ours in pairs:
            if theirs != ours:
                raise MergeError(f"{name} differ: {theirs!r} and {ours!r}")
        fits = self.clustered in (None, message.clustered)
        if not fits and not _is_empty(message):
            raise MergeError("one has clusters, and the other has none")
        check_message(message)

    @classmethod
    def resume(
        cls,
        message: summary_pb2.LossSummary,
        settings: Settings,
        kernels: Kernels = NUMPY,
        limit_bytes: int | None = None,
    ) -> "SummaryState":
        """Return the state of a summary; raises as `merge` does."""
        state = cls(settings, kernels=kernels)
        state.merge(message, limit_bytes)
        return state

    def message(self) -> summary_pb2.LossSummary:
        """Return the summary of all rows so far."""
        settings = self.settings
        tables = self._tables or self._empty_tables(clustered=False)
        message = summary_pb2.LossSummary(
            loss=settings.loss,
            options=settings.options,
            candidates=settings.candidates,
            scale=settings.scale,
            worst=settings.worst,
            clustered=bool(self.clustered),
            included=self.included.messages(),
            receipts=[self.receipts[key] for key in sorted(self.receipts)],
        )
        [total] = tables[0].messages().values()
        message.total.CopyFrom(total)
        for worst, each in zip(self._worst, message.total.distributions, strict=True):
            each.worst.extend(worst.rows)
        for differing, pair in zip(self._differing, message.total.pairs, strict=True):
            pair.most_different.extend(differing.rows)
        for table in tables[1:]:
            added = message.tables.add(columns=table.columns)
            for labels, group in table.messages().items():
                if labels is None:
                    added.other.CopyFrom(group)
                else:
                    added.slices.append(group)
        return message


def _row_loss(rows: Rows, row: int) -> summary_pb2.RowLoss:
    """Return the message of one row."""
    message = summary_pb2.RowLoss(
        partition=rows.partition,
        row=rows.first_row + row,
        values=rows.values[:, row].tolist(),
        weight=1.0 if rows.weights is None else float(rows.weights[row]),
        labels={name: each.text(row) for name, each in rows.columns.items()},
    )
    if rows.ids is not None:
        key = rows.ids.key(row)
        if isinstance(key, int):
            message.number = key
        else:
            message.name = key
    return message


def _is_empty(message: summary_pb2.LossSummary) -> bool:
    """Whether a summary covers no rows, so that it fits to those with clusters and without."""
    counts = (each.count or each.ignored_count for each in message.total.distributions)
    return not message.included and not any(counts)


def _options(options: object) -> dict[str, bytes]:
    found: dict[str, evaluation_pb2.OptionValue] = dict(options)  # type: ignore[call-overload]
    return {name: each.SerializeToString(deterministic=True) for name, each in found.items()}


def settings_of(message: summary_pb2.LossSummary) -> Settings:
    """Return the settings of a summary, with the widest limits; MergeError when it is malformed."""
    check_message(message)
    return Settings(
        loss=message.loss,
        options=dict(message.options),
        candidates=tuple(message.candidates),
        tables=tuple(tuple(each.columns) for each in message.tables),
        scale=message.scale,
        worst=message.worst,
        overflow_to_other=any(each.HasField("other") for each in message.tables),
        max_open_clusters=MAX_OPEN_CLUSTERS,
    )


def merge(messages: Iterable[summary_pb2.LossSummary]) -> summary_pb2.LossSummary:
    """Merge summaries of other rows of the same evaluation.

    Counts, buckets, extremes and worst rows do not depend on the order; sums do in their last
    bits. Raises MergeError where they differ in what they summarize, and where rows would be
    counted twice, of which it says the partition; ValueError where there are none.
    """
    state: SummaryState | None = None
    for each in messages:
        if state is None:
            state = SummaryState(settings_of(each))
        state.merge(each)
    if state is None:
        raise ValueError("there is no summary to merge")
    return state.message()
