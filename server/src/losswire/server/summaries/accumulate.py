"""Accumulates the computed batches of one SummarizeLosses."""

import numpy as np

from losswire.server.compute.native.summary_rows import KERNELS
from losswire.server.errors import InvalidEvaluationError, OverLimitError
from losswire.server.summaries.batch import where
from losswire.server.summaries.compute_batch import ComputedBatch
from losswire.server.summaries.header import Plan
from losswire.summaries import MergeError, SummaryState, TooManyError
from losswire.v1 import loss_service_pb2
from losswire.wire import Violation

Response = loss_service_pb2.SummarizeLossesResponse


class Accumulator:
    """The summary of one call so far. By any thread, but by one at a time."""

    def __init__(self, plan: Plan) -> None:
        """Begin without rows."""
        self._plan = plan
        self._state = SummaryState(plan.settings, kernels=KERNELS)
        self._batches = 0

    def resume(self, *, limit_bytes: int) -> int:
        """Continue the summary of the header, if there is one; returns the state's bytes.

        Raises InvalidEvaluationError when that summary does not fit, and MemoryNeededError where
        it might be larger than `limit_bytes`.
        """
        if self._plan.resume_from is not None:
            try:
                self._state = SummaryState.resume(
                    self._plan.resume_from, self._plan.settings, KERNELS, limit_bytes
                )
            except (MergeError, TooManyError) as error:
                raise _wrong("header.resume_from", str(error)) from None
        return self._state.nbytes

    def add(self, batch: ComputedBatch, *, progress: bool, limit_bytes: int) -> Response | None:
        """Add the rows of a batch; returns the progress if it is asked for.

        Raises MemoryNeededError where the summary might become larger than `limit_bytes`,
        OverLimitError for too many slices or clusters, and InvalidEvaluationError for rows that
        are counted already, before any of them is counted.
        """
        for receipt in batch.receipts:
            self._state.note_receipt(receipt)
        try:
            with np.errstate(all="ignore"):
                self._state.add(batch.rows, limit_bytes)
        except TooManyError as error:
            message = f"{where(batch.number)}: {error}"
            raise OverLimitError(message) from None
        except MergeError as error:
            raise _wrong(where(batch.number), str(error)) from None
        self._batches += 1
        return self._progress() if progress else None

    def _progress(self) -> Response:
        means, errors = self._state.progress()
        return Response(
            progress=loss_service_pb2.SummaryProgress(
                batches=self._batches,
                rows=self._state.rows,
                means=means,
                standard_errors=errors,
            )
        )

    def report(self, *, final: bool = False) -> bytes:
        """Return the serialized report of all rows so far."""
        report = loss_service_pb2.SummaryReport(
            summary=self._state.message(), batches=self._batches, final=final
        )
        return Response(report=report).SerializeToString()


def _wrong(field: str, description: str) -> InvalidEvaluationError:
    return InvalidEvaluationError([Violation(field, description)])
