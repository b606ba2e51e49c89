"""The data of a summary on its way: calls one after the other, each from where the last one ended.

The server keeps nothing of a call that ends. Its reports are complete summaries up to a batch; the
batches behind the last one are kept here, and sent again with it when a call breaks, to any server.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import grpc

from losswire import summaries
from losswire.client._calls.cancellation import Cancellation
from losswire.client._calls.retry import Attempts
from losswire.client._calls.session import Session
from losswire.client._calls.summarize.encode import Message, encode_batch, hand_over
from losswire.client._calls.summarize.one_call import (
    Answer,
    CallFailedError,
    DirectCall,
    GrpcCall,
    OneCall,
)
from losswire.client._calls.summarize.pieces import Piece
from losswire.client._calls.summarize.ring import Placed, Ring
from losswire.client._calls.summarize.watcher import Watcher
from losswire.client._calls.summarize.window import Sent, Window
from losswire.client._data.batch import Batch
from losswire.client._errors import (
    CancelledError,
    DeadlineExceededError,
    LosswireError,
    closed_error,
    malformed_error,
    too_large_error,
    unfit_error,
)
from losswire.client._messages import thresholds
from losswire.client._messages.placed_array import is_missing_region
from losswire.v1 import loss_service_pb2, summary_pb2


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """What all calls of a transfer have in common."""

    make_header: Callable[[Batch | None], summary_pb2.SummaryHeader]
    """Returns the header for data with a first batch, or for none, without where its rows begin
    and without what it continues."""
    loss: str
    """The name of the loss."""
    partition: str
    """The key of the partition, for data that has no rows."""
    can_cut: bool
    """Whether the loss allows to cut a batch."""
    max_message_bytes: int
    """The largest message that the server takes."""


class Transfer:
    """Summarizes pieces of data. `run` does it all, and goes on where it was when run again."""

    def __init__(
        self,
        session: Session,
        route: Route,
        pieces: Iterator[Piece],
        watcher: Watcher,
        *,
        resume_from: summary_pb2.LossSummary | None,
        ring: Ring | None,
    ) -> None:
        """Begin without a call; `resume_from` is the summary to continue.

        Large arrays are copied to `ring` instead of being sent, where it is given.
        """
        self.can_go_on = False
        """Whether running it again continues it: its last failure was one of a call."""
        self._session = session
        self._route = route
        self._pieces = pieces
        self._read: list[Piece] = []
        """Pieces that were read and are not sent yet, the next one last."""
        self._watcher = watcher
        self._ring = ring
        self._window = Window()
        if ring is not None:
            self._window.largest_gap = ring.largest_gap
        self._merged: list[summary_pb2.LossSummary] = []
        """Summaries that are too large to be continued by a server."""
        self._last = resume_from
        """The last report."""
        self._header: summary_pb2.SummaryHeader | None = None
        # The rows of a call are neighbours in one partition; others take a call of their own.
        self._is_begun = self._is_done = False
        self._partition = route.partition
        self._next_row = 0
        """The row behind the last report."""
        self._end_row = 0
        """The row behind the last one that was sent."""
        self._covered = 0
        """The number of batches of this call that are reported."""
        self._is_final = False
        self._has_advanced = False
        """Whether a report came since the last failure."""
        self._attempts: Attempts | None = None
        self._silence = 0.0
        """The longest time in seconds that the data took, in this call."""

    @property
    def is_sharing(self) -> bool:
        """Whether batches still go through shared memory."""
        return self._ring is not None

    def run(
        self, channels: Sequence[grpc.Channel], attempts: Attempts, cancellation: Cancellation
    ) -> summary_pb2.LossSummary:
        """Make all calls, each as often as the retry policy allows; returns the summary."""
        begin = self._ways(channels, attempts)
        self.can_go_on = False
        self._attempts = attempts
        while self._begin():
            try:
                self._one_call(begin[attempts.start()], attempts.timeout, cancellation)
            except CallFailedError as failure:
                self._wait_after(failure.error, attempts, cancellation)
            else:
                attempts.pin_target()
                self._is_begun, self._is_done = False, True
        return self._result()

    def _ways(
        self, channels: Sequence[grpc.Channel], attempts: Attempts
    ) -> list[Callable[[bytes], OneCall]]:
        """Return for each target what makes a call of it, given the first message."""
        local = self._session.local
        if local is not None:
            return [lambda header: DirectCall(local, header, self._session)]

        def begin(index: int, header: bytes) -> OneCall:
            return GrpcCall(channels[index], header, self._session, attempts)

        return [partial(begin, index) for index in range(len(channels))]

    def clear(self) -> None:
        """Drop the batches that are kept: an error that is kept must not keep them."""
        self._window = Window()
        self._read.clear()
        self._ring = None

    def _wait_after(
        self, error: LosswireError, attempts: Attempts, cancellation: Cancellation
    ) -> None:
        """Wait before the next try; raises the error when there is to be none."""
        if self._session.closed and isinstance(error, CancelledError):
            raise closed_error() from None
        if self._stop_sharing() and is_missing_region(error):
            return
        if self._silence >= thresholds.SUMMARY_SILENCE_SECONDS and _is_expired(error):
            # The data took longer than the server waits for it.
            return
        if self._has_advanced:
            attempts.restart()
        self._has_advanced = False
        self.can_go_on = True
        if cancellation.wait(attempts.wait_after(error)):
            raise error
        self.can_go_on = False

    def _stop_sharing(self) -> bool:
        """Send batches in messages from now on; returns whether they were shared.

        The server may have been started again, and not have the memory any more.
        """
        if self._ring is None:
            return False
        for sent in self._window:
            if sent.placed is not None:
                sent.message = encode_batch(sent.placed.batch, self._route.loss, report=True)
                sent.placed = None
        self._ring.check()
        self._ring = None
        self._session.forget_server()
        return True

    def _begin(self) -> bool:
        """Begin the next run of neighbouring rows, unless one is begun; false at the end."""
        if self._is_begun:
            return True
        piece = self._peek()
        if piece is not None:
            self._partition = piece.partition
            self._next_row = self._end_row = piece.first_row
        if self._header is None:
            self._header = self._route.make_header(None if piece is None else piece.batch)
        # The server makes the summary of no rows, too.
        self._is_begun = piece is not None or not self._is_done
        return self._is_begun

    def _one_call(
        self, begin: Callable[[bytes], OneCall], seconds: float, cancellation: Cancellation
    ) -> None:
        header = self._first_message()
        try:
            call = begin(header)
        except ValueError:
            # gRPC's error for a channel that another thread closes meanwhile.
            if not self._session.closed:
                raise
            raise closed_error() from None
        cancellation.watch(call)
        self._covered, self._is_final, self._silence = 0, False, 0.0
        try:
            for sent in self._window:
                call.send(sent.message)
            while (message := self._next_message(call, seconds)) is not None:
                call.send(message)
            call.finish()
            while not call.has_ended:
                self._take(call.next_answer(seconds))
        finally:
            call.leave()
        if self._window or not self._is_final:
            raise malformed_error("the call ended without a final report")

    def _first_message(self) -> bytes:
        largest = self._route.max_message_bytes
        message = self._header_with(self._last)
        if len(message) > largest and self._last is not None:
            # The call begins anew, and its summary is merged here.
            self._merged.append(self._last)
            self._last = None
            message = self._header_with(None)
        if len(message) > largest:
            text = f"the server takes at most {largest} bytes; put large shared inputs first"
            raise too_large_error(text, len(message))
        return message

    def _header_with(self, resume_from: summary_pb2.LossSummary | None) -> bytes:
        request = loss_service_pb2.SummarizeLossesRequest(header=self._header)
        request.header.partition = self._partition
        request.header.first_row = self._next_row
        if resume_from is not None:
            request.header.resume_from.CopyFrom(resume_from)
        return request.SerializeToString()

    def _next_message(self, call: OneCall, seconds: float) -> Message | None:
        """Return the next message of a call once there is room for it; None at its end."""
        self._wait_for_room(call, seconds)
        while True:
            piece = self._peek()
            if piece is None or (piece.partition, piece.first_row) != (
                self._partition,
                self._end_row,
            ):
                return None
            self._read.pop()
            batch, nbytes = piece.batch, piece.batch.nbytes
            asks = self._window.wants_report(nbytes)
            placed = self._placed(batch, call, seconds)
            message = self._encoded(batch, placed, report=asks)
            if self._fits(message, piece):
                break
            if placed is not None and self._ring is not None:
                self._ring.free_newest()
        nbytes = len(message) if placed is None else nbytes
        self._window.add(Sent(message, batch.rows, nbytes, placed), asks=asks)
        self._end_row = piece.end_row
        return message

    def _encoded(self, batch: Batch, placed: Placed | None, *, report: bool) -> Message:
        loss = self._route.loss
        if placed is not None:
            return encode_batch(placed.batch, loss, report=report, places=placed.places)
        if self._session.local is not None:
            return hand_over(batch, loss, report=report)
        return encode_batch(batch, loss, report=report)

    def _wait_for_room(self, call: OneCall, seconds: float) -> None:
        """Handle the answers that came, and wait until another message may be sent."""
        while (
            call.has_events
            or not self._window.has_room
            or call.unsent_bytes >= thresholds.SUMMARY_AHEAD_BYTES
        ):
            self._take_next(call, seconds)

    def _placed(self, batch: Batch, call: OneCall, seconds: float) -> Placed | None:
        """Copy a batch to shared memory, once there is room; None where it is to be sent."""
        if self._ring is None or self._ring.never_fits(batch):
            return None
        while not self._ring.has_room_for(batch):
            self._take_next(call, seconds)
        return self._ring.copy(batch)

    def _take_next(self, call: OneCall, seconds: float) -> None:
        self._take(call.next_answer(seconds))
        if call.has_ended:
            raise malformed_error("the server ended the call before its data")

    def _fits(self, message: Message, piece: Piece) -> bool:
        """Return whether a message is small enough; if not, its rows are to be read in halves."""
        largest, rows = self._route.max_message_bytes, piece.batch.rows
        if len(message) <= largest:
            return True
        if not self._route.can_cut or rows == 1:
            raise too_large_error(f"the server takes at most {largest} bytes", len(message))
        self._read += reversed(list(piece.cut(-(-rows // 2))))
        return False

    def _peek(self) -> Piece | None:
        """Return the next piece, which stays the next one; None at the end of the data."""
        if not self._read:
            started = time.monotonic()
            piece = next(self._pieces, None)
            seconds = time.monotonic() - started
            self._silence = max(self._silence, seconds)
            if self._attempts is not None:
                self._attempts.exclude(seconds)
            if piece is None:
                return None
            self._watcher.total_rows = piece.batch.total_rows
            self._read.append(piece)
        return self._read[-1]

    def _take(self, answer: Answer | None) -> None:
        if answer is None:
            return
        if answer.HasField("report"):
            self._take_report(answer.report)
        elif answer.HasField("progress"):
            progress = answer.progress
            rows = progress.rows + sum(map(rows_of, self._merged))
            self._watcher.progress(rows, progress.means, progress.standard_errors)

    def _take_report(self, report: loss_service_pb2.SummaryReport) -> None:
        count = report.batches - self._covered
        if not 0 <= count <= len(self._window):
            raise malformed_error(f"a report covers {report.batches} batches")
        rows = self._window.cover(count, report.ByteSize(), self._free)
        before = 0 if self._last is None else rows_of(self._last)
        if rows_of(report.summary) != before + rows:
            raise unfit_error(f"a report of {rows_of(report.summary)} rows for {before + rows}")
        self._next_row += rows
        self._covered = report.batches
        self._last = report.summary
        self._is_final = report.final
        self._has_advanced = self._has_advanced or count > 0
        self._watcher.report(self._result)

    def _free(self) -> None:
        if self._ring is not None:
            self._ring.free_oldest()

    def _result(self) -> summary_pb2.LossSummary:
        parts = [*self._merged, *([] if self._last is None else [self._last])]
        return parts[0] if len(parts) == 1 else summaries.merge(parts)


def _is_expired(error: LosswireError) -> bool:
    """Return whether a server gave up waiting."""
    return isinstance(error, DeadlineExceededError) and bool(error.request_id)


def rows_of(summary: summary_pb2.LossSummary) -> int:
    """Return the number of rows that a summary covers, whether they take part or not."""
    return sum(rows.end - rows.begin for each in summary.included for rows in each.ranges)
