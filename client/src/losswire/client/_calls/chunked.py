"""A chunked call on the wire: rows go out and gradients come in at the same time.

gRPC's blocking interface sends from a thread of its own, so that both overlap. The
client for asyncio uses it too, from a worker thread: it keeps the copying of large
arrays off the event loop, and gRPC's own asyncio interface replaces the status of a
call that ends while something is being sent (https://github.com/grpc/grpc/issues/36066).
"""

from collections.abc import Iterator, Sequence
from typing import Any

import grpc
import numpy as np
from google.protobuf.message import DecodeError

from losswire.client._calls.abandoned import end_call
from losswire.client._calls.absence import silent_error
from losswire.client._calls.cancellation import Cancellation, Watch
from losswire.client._calls.operations import EVALUATE_CHUNKED, ChunkedCall
from losswire.client._calls.plan import ChunkedPlan, Progress
from losswire.client._calls.retry import Attempts
from losswire.client._calls.session import Session
from losswire.client._errors import CancelledError, closed_error, error_from_call, malformed_error
from losswire.client._messages.response import EvaluationResult, FactoredGradient, read_result
from losswire.wire import GRADIENT_ROWS, ROWS, bytes_of

_FACTORS = ("lse", "scale", "lse_tail")
"""The parts of a factored gradient, in the order of packing."""


def transfer(
    session: Session,
    channels: Sequence[grpc.Channel],
    chunked: ChunkedCall,
    attempts: Attempts,
    cancellation: Cancellation,
) -> EvaluationResult:
    """Make a chunked call, as a whole as often as the retry policy allows."""
    while True:
        once = _Try(chunked.plan, chunked.progress)
        channel = channels[attempts.start()]
        try:
            method: Any = channel.stream_stream(EVALUATE_CHUNKED.path, None, None)
            call = method(once.requests(), timeout=attempts.remaining(), metadata=session.metadata)
        except ValueError:
            # gRPC's error for a channel that another thread closes meanwhile.
            if not session.closed:
                raise
            raise closed_error() from None
        cancellation.watch(call)
        try:
            with Watch(call, attempts, once.moves) as watch:
                for answer in call:
                    once.take(answer)
            attempts.note_answer()
            return once.result()
        except grpc.RpcError as failure:
            if once.failure is not None:
                raise once.failure from None
            error = error_from_call(failure, len(chunked.plan.header))
            if session.closed and isinstance(error, CancelledError):
                raise closed_error() from None
            if watch.found_silence:
                error = silent_error(attempts.target_name)
        finally:
            end_call(call)
        if cancellation.wait(attempts.wait_after(error)):
            raise error


class _Try:
    """One try of a chunked call: the messages sent and the rows received."""

    def __init__(self, plan: ChunkedPlan, progress: Progress | None) -> None:
        self._plan = plan
        self._progress = progress
        self._done = 0
        self._kept = [*plan.outputs.values()]
        """The arrays for the rows that are received: the gradients, or their factors."""
        if plan.rebuild is not None:
            self._kept = [np.empty(spec.shape, np.float64) for spec in plan.packing.specs]
        self._last: EvaluationResult | None = None
        self._moves = 0
        self.failure: Exception | None = None
        """The exception of the sending thread, which is gRPC's."""

    def moves(self) -> int:
        """Return the number of messages that were sent and received."""
        return self._moves

    def requests(self) -> Iterator[bytes]:
        """Yield the messages to send."""
        try:
            yield from self._messages()
        except Exception as error:
            self.failure = error
            raise

    def _messages(self) -> Iterator[bytes]:
        plan = self._plan
        self._moves += 1
        yield plan.header
        for start in range(0, plan.rows, plan.step):
            stop = min(start + plan.step, plan.rows)
            self._moves += 1
            yield ROWS.encode([bytes_of(array[start:stop]) for array in plan.arrays])
            if not plan.outputs:
                # Nothing comes back before the end, so progress is the number of rows sent.
                self._report(stop)

    def take(self, answer: bytes) -> None:
        """Read one message that was received."""
        self._moves += 1
        try:
            part = GRADIENT_ROWS.decode(answer)
        except DecodeError as error:
            raise malformed_error("a message does not parse") from error
        if isinstance(part, memoryview):
            self._store(part)
        elif part.HasField("result"):
            self._last = read_result(part.result.result, "chunked")

    def _store(self, payload: memoryview) -> None:
        plan = self._plan
        row_bytes = plan.packing.row_bytes
        if not row_bytes or payload.nbytes % row_bytes:
            raise malformed_error(f"{payload.nbytes} bytes are not whole rows of gradients")
        stop = self._done + payload.nbytes // row_bytes
        if stop > plan.rows:
            raise malformed_error(f"more gradients came than the {plan.rows} rows that were sent")
        parts = plan.packing.split(payload)
        if plan.rebuild is not None:
            [output] = plan.outputs.values()
            plan.rebuild.rows(output, parts, self._done)
        for kept, rows in zip(self._kept, parts, strict=True):
            kept[self._done : stop] = rows
        self._done = stop
        self._report(stop)

    def _report(self, done: int) -> None:
        if self._progress is not None:
            self._progress(done, self._plan.rows)

    def result(self) -> EvaluationResult:
        """Return the result, once all messages came; InternalError when some are missing."""
        plan = self._plan
        if self._last is None:
            raise malformed_error("the call ended without a result")
        if plan.outputs and self._done < plan.rows and plan.packing.row_bytes:
            raise malformed_error(f"gradients of {self._done} of {plan.rows} rows came")
        self._last.gradients.update(plan.outputs)
        if plan.rebuild is not None:
            factors = FactoredGradient(**dict(zip(_FACTORS, self._kept, strict=False)))
            self._last.factored_gradients.update(dict.fromkeys(plan.outputs, factors))
        return self._last
