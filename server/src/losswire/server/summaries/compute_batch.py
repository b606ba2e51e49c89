"""Computes what the rows of batches add to a summary, on the worker's thread."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from losswire.server.compute.dispatch import Pause, compute
from losswire.server.compute.work import Work
from losswire.server.errors import InvalidEvaluationError
from losswire.server.pipeline.decode import Detached
from losswire.server.pipeline.encode import receipt_of
from losswire.server.summaries.batch import where
from losswire.server.summaries.columns import ReadTensor, SideData, read_side_data
from losswire.server.summaries.header import Plan
from losswire.server.summaries.row_losses import row_count, row_losses, row_weights
from losswire.summaries import Rows
from losswire.v1 import evaluation_pb2, summary_pb2
from losswire.wire import Violation


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """A batch whose evaluations were checked."""

    number: int
    """Its number in the call."""
    message: summary_pb2.SummaryBatch
    detached: Detached
    works: Sequence[Work]
    """The evaluation of each candidate, unreduced."""


@dataclass(frozen=True, slots=True)
class ComputedBatch:
    """What the rows of a batch add. Nothing of the batch's message is read any more."""

    number: int
    rows: Rows
    receipts: Sequence[evaluation_pb2.Receipt]


class BatchComputer:
    """Computes the batches of one call, in order. `compute` runs on the worker."""

    def __init__(self, plan: Plan, device: torch.device, pause: Pause, read: ReadTensor) -> None:
        """Compute on a device, and read other tensors than inputs by `read`."""
        self._plan = plan
        self._device = device
        self._pause = pause
        self._read = read
        resumed = plan.resume_from
        self._clustered = None if resumed is None else resumed.clustered
        """Whether rows have clusters; None: the first ones decide."""
        self._next_row = plan.first_row
        self._failed = False
        self._computing = threading.RLock()
        """Held while a batch is computed."""

    def compute(self, batch: Batch, waited: int) -> ComputedBatch | None:
        """Compute a batch; None when an earlier one was refused.

        Raises InvalidEvaluationError, MissingResidentError and MissingRegionError for its side
        data.
        """
        del waited
        with self._computing:
            if self._failed:
                return None
            self._failed = True
            # NaN and infinite losses are data.
            with np.errstate(all="ignore"):
                computed = self._computed(batch)
            self._failed = False
        self._next_row += computed.rows.values.shape[1]
        return computed

    def stop(self) -> None:
        """Wait for the batch that is computed, and compute no more. Any thread may call."""
        with self._computing:
            self._failed = True

    def _computed(self, batch: Batch) -> ComputedBatch:
        _check_rows(batch)
        side = read_side_data(
            batch.message,
            batch.detached,
            wanted=self._plan.columns,
            shapes=[each.values_shape for each in batch.works],
            where=where(batch.number),
            read=self._read,
        )
        self._check_clusters(side, batch.number)
        outcomes = [compute(work, self._device, self._pause) for work in batch.works]
        found = [
            row_losses(work, outcome, side.weight, batchmean=self._plan.batchmean)
            for work, outcome in zip(batch.works, outcomes, strict=True)
        ]
        weights = row_weights(side.weight)
        ones = np.ones(len(found[0].values))
        each_weight = ones if weights is None else weights
        values = _stacked([each.values for each in found], lambda _: ones)
        if values is None:
            raise TypeError("a batch without values")
        rows = Rows(
            values=values,
            numerators=_stacked(
                [each.numerators for each in found], lambda k: each_weight * found[k].values
            ),
            denominators=_stacked([each.denominators for each in found], lambda _: each_weight),
            weights=weights,
            counted=_stacked([each.counted for each in found], lambda _: ones > 0),
            columns=side.columns,
            clusters=side.clusters,
            ids=side.ids,
            partition=self._plan.partition,
            first_row=self._next_row,
        )
        return ComputedBatch(batch.number, rows, [receipt_of(each) for each in outcomes])

    def _check_clusters(self, side: SideData, number: int) -> None:
        """Refuse clusters in some batches only."""
        found = side.clusters is not None
        if self._clustered is None:
            self._clustered = found
        if self._clustered != found:
            text = "has no meaning here: " if found else "is missing: "
            text += "rows have clusters in all batches or in none"
            raise InvalidEvaluationError([Violation(f"{where(number)}.clusters", text)])


def _check_rows(batch: Batch) -> None:
    """Refuse candidates with different numbers of rows."""
    counts = [row_count(each.values_shape) for each in batch.works]
    wrong = [
        Violation(
            f"{where(batch.number)}.candidates[{candidate}].inputs",
            f"have {count} rows; those of the first candidate have {counts[0]}",
        )
        for candidate, count in enumerate(counts)
        if count != counts[0]
    ]
    if wrong:
        raise InvalidEvaluationError(wrong)


def _stacked(
    arrays: Sequence[npt.NDArray[Any] | None], default: Callable[[int], npt.NDArray[Any]]
) -> npt.NDArray[Any] | None:
    """Return the arrays of all candidates in one; None when none has any."""
    if all(each is None for each in arrays):
        return None
    each = [default(k) if array is None else array for k, array in enumerate(arrays)]
    # One is not copied.
    return np.stack(each) if len(each) > 1 else each[0][np.newaxis]
