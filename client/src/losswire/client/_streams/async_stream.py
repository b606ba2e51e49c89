"""The stream for asyncio."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterable
from functools import partial
from types import TracebackType
from typing import Self

from losswire.client._calls import operations
from losswire.client._calls.async_runner import AsyncRunner
from losswire.client._calls.process_bound import ProcessBound
from losswire.client._errors import CLIENT_CLOSED, LosswireError
from losswire.client._messages.evaluation import Evaluation
from losswire.client._messages.factored import completing
from losswire.client._messages.fit import Fit
from losswire.client._messages.response import EvaluationResult
from losswire.client._streams.core import Outcome, StreamCore, check_max_in_flight, open_core


class AsyncStream(ProcessBound):
    """Evaluates many batches over one call. Made by `AsyncClient.stream`, opened by `async with`.

    The end of the block waits for all answers; an exception that leaves the block cancels them.

    Example:
        >>> items = [Evaluation("mse_loss", {"input": [x], "target": [0.0]}) for x in (1.0, 2.0)]
        >>> async with async_client.stream(max_in_flight=2) as stream:
        ...     futures = [await stream.submit(each) for each in items]
        >>> [float(each.result().loss) for each in futures]
        [1.0, 4.0]
    """

    def __init__(
        self,
        runner: AsyncRunner,
        timeout: float | None,
        max_in_flight: int | None,
    ) -> None:
        """Prepare; see `AsyncClient.stream`."""
        self._runner = runner
        self._timeout = timeout
        self._max_in_flight = check_max_in_flight(max_in_flight)
        self._core: StreamCore | None = None

    async def submit(self, evaluation: Evaluation) -> asyncio.Future[EvaluationResult]:
        """Send an evaluation, after waiting while `max_in_flight` are unanswered.

        The future returns an EvaluationResult or raises a LosswireError, such as
        InvalidArgumentError, DeadlineExceededError or CancelledError (the stream was closed).
        Raises TypeError and ValueError for arguments that cannot be sent, RuntimeError on a stream
        that is not open.

        Example:
            >>> item = Evaluation("mse_loss", {"input": [3.0], "target": [1.0]})
            >>> async with async_client.stream() as stream:
            ...     future = await stream.submit(item)
            ...     float((await future).loss)
            4.0
        """
        core = self._opened()
        number = core.next_number()
        request, tensors, fit = operations.stream_item(number, evaluation)
        await self._window.acquire()
        future: asyncio.Future[EvaluationResult] = asyncio.get_running_loop().create_future()
        settle = completing(evaluation, partial(self._settle, future, fit))
        core.add(number, request, settle, tensors)
        return future

    async def map(self, evaluations: Iterable[Evaluation]) -> AsyncIterator[Outcome]:
        """Evaluate a sequence; yields a result or a LosswireError for each, in order.

        The sequence is read at most `max_in_flight` items ahead of the last yielded result.
        Raises as `submit` does.

        Example:
            >>> batches = ({"input": [x], "target": [0.0]} for x in (1.0, 2.0))
            >>> items = [Evaluation("mse_loss", each) for each in batches]
            >>> async with async_client.stream() as stream:
            ...     [float(each.loss) async for each in stream.map(items)]
            [1.0, 4.0]
        """
        pending: deque[asyncio.Future[EvaluationResult]] = deque()
        try:
            for evaluation in evaluations:
                if len(pending) == self._in_flight:
                    yield await self._outcome(pending.popleft())
                pending.append(await self.submit(evaluation))
                while pending and pending[0].done():
                    yield await self._outcome(pending.popleft())
            while pending:
                yield await self._outcome(pending.popleft())
        finally:
            for future in pending:
                future.cancel()

    async def __aenter__(self) -> Self:
        self._core = await open_core(self._runner, self._timeout)
        self._in_flight = self._core.in_flight(self._max_in_flight)
        self._window = asyncio.Semaphore(self._in_flight)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        core, self._core = self._core, None
        if core is not None:
            await (core.close() if error is None else core.abort())

    def _opened(self) -> StreamCore:
        self._runner.session.check_usable()
        if self._core is None:
            raise RuntimeError("this stream is not open; use it inside of its `async with`")
        return self._core

    def _settle(self, future: asyncio.Future[EvaluationResult], fit: Fit, outcome: Outcome) -> None:
        self._window.release()
        if future.done():  # cancelled by its owner
            return
        outcome = fit.check_outcome(outcome)
        if isinstance(outcome, LosswireError):
            future.set_exception(outcome)
            if outcome.reason == CLIENT_CLOSED:
                # Given up by the end of the block or of the client. Asking for the exception keeps
                # the loop from logging that nobody did.
                future.exception()
        else:
            future.set_result(outcome)

    @staticmethod
    async def _outcome(future: asyncio.Future[EvaluationResult]) -> Outcome:
        try:
            return await future
        except LosswireError as error:
            return error
