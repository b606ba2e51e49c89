"""The stream that blocks: a thread with an event loop, and a `StreamCore` on it."""

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Iterator
from concurrent.futures import Future
from functools import partial
from types import TracebackType
from typing import Any, Self, TypeVar

from losswire.client._calls import operations
from losswire.client._calls.async_runner import AsyncRunner
from losswire.client._calls.process_bound import ProcessBound
from losswire.client._calls.session import Session
from losswire.client._errors import LosswireError, closed_error
from losswire.client._messages.evaluation import Evaluation
from losswire.client._messages.factored import completing
from losswire.client._messages.fit import Fit
from losswire.client._messages.response import EvaluationResult
from losswire.client._streams.core import Outcome, StreamCore, check_max_in_flight, open_core

_R = TypeVar("_R")


class Stream(ProcessBound):
    """Evaluates many batches over one call. Made by `Client.stream`, opened by `with`.

    Any number of threads may submit at once. The end of the `with` block waits for all answers; an
    exception that leaves the block cancels them.

    Example:
        >>> items = [Evaluation("mse_loss", {"input": [x], "target": [0.0]}) for x in (1.0, 2.0)]
        >>> with client.stream(max_in_flight=2) as stream:
        ...     futures = [stream.submit(each) for each in items]
        >>> [float(each.result().loss) for each in futures]
        [1.0, 4.0]
    """

    def __init__(
        self,
        session: Session,
        timeout: float | None,
        max_in_flight: int | None,
    ) -> None:
        """Prepare; see `Client.stream`."""
        self._session = session
        self._timeout = timeout
        self._max_in_flight = check_max_in_flight(max_in_flight)
        self._core: StreamCore | None = None
        self._lock = threading.Lock()

    def submit(self, evaluation: Evaluation) -> Future[EvaluationResult]:
        """Send an evaluation, after waiting while `max_in_flight` are unanswered.

        The future returns an EvaluationResult or raises a LosswireError, such as
        InvalidArgumentError, DeadlineExceededError or CancelledError (the stream was closed). It
        cannot be cancelled, and its callbacks run on the stream's own thread, where they must not
        wait or submit. Raises TypeError and ValueError for arguments that cannot be sent,
        RuntimeError on a stream that is not open.

        Example:
            >>> item = Evaluation("mse_loss", {"input": [3.0], "target": [1.0]})
            >>> with client.stream() as stream:
            ...     float(stream.submit(item).result().loss)
            4.0
        """
        core = self._opened()
        number = core.next_number()
        request, tensors, fit = operations.stream_item(number, evaluation)
        self._window.acquire()
        future: Future[EvaluationResult] = Future()
        future.set_running_or_notify_cancel()
        settle = completing(evaluation, partial(self._settle, future, fit))
        with self._lock:
            if self._core is not None:
                self._loop.call_soon_threadsafe(core.add, number, request, settle, tensors)
                return future
        settle(closed_error())  # another thread closed the stream while this one waited
        return future

    def map(self, evaluations: Iterable[Evaluation]) -> Iterator[Outcome]:
        """Evaluate a sequence; yields a result or a LosswireError for each, in order.

        The sequence is read at most `max_in_flight` items ahead of the last yielded result.
        Raises as `submit` does.

        Example:
            >>> batches = ({"input": [x], "target": [0.0]} for x in (1.0, 2.0))
            >>> items = [Evaluation("mse_loss", each) for each in batches]
            >>> with client.stream() as stream:
            ...     [float(each.loss) for each in stream.map(items)]
            [1.0, 4.0]
        """
        pending: deque[Future[EvaluationResult]] = deque()
        for evaluation in evaluations:
            if len(pending) == self._in_flight:
                yield self._outcome(pending.popleft())
            pending.append(self.submit(evaluation))
            while pending and pending[0].done():
                yield self._outcome(pending.popleft())
        while pending:
            yield self._outcome(pending.popleft())

    def abort(self) -> None:
        """End the stream now; evaluations without an answer get CancelledError.

        Example:
            >>> with client.stream() as stream:
            ...     stream.abort()
        """
        self._end(StreamCore.abort)

    def __enter__(self) -> Self:
        self._session.check_usable()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="losswire-stream", daemon=True
        )
        self._thread.start()
        self._runner = AsyncRunner(self._session.beside())
        try:
            core = self._await(open_core(self._runner, self._timeout))
        except BaseException:
            self._stop()
            raise
        self._in_flight = core.in_flight(self._max_in_flight)
        self._window = threading.Semaphore(self._in_flight)
        self._core = core
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._end(StreamCore.close if error is None else StreamCore.abort)

    def _end(self, end: Callable[[StreamCore], Coroutine[Any, Any, None]]) -> None:
        if self._session.is_inherited:
            return  # the call, and the thread that carries it, are the parent's
        with self._lock:
            core, self._core = self._core, None
        if core is None:
            return
        try:
            self._await(end(core))
        except BaseException:  # such as Ctrl-C while waiting for answers
            self._await(core.abort())
            raise
        finally:
            self._stop()

    def _stop(self) -> None:
        self._runner.session.closed = True
        self._await(self._runner.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _await(self, work: Coroutine[Any, Any, _R]) -> _R:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def _opened(self) -> StreamCore:
        self._session.check_usable()
        if self._core is None:
            raise RuntimeError("this stream is not open; use it inside of its `with`")
        return self._core

    def _settle(self, future: Future[EvaluationResult], fit: Fit, outcome: Outcome) -> None:
        self._window.release()
        outcome = fit.check_outcome(outcome)
        if isinstance(outcome, LosswireError):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)

    @staticmethod
    def _outcome(future: Future[EvaluationResult]) -> Outcome:
        try:
            return future.result()
        except LosswireError as error:
            return error
