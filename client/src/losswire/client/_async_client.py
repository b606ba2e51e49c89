"""The client for asyncio."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack

import grpc
import grpc.aio
import numpy.typing as npt

from losswire.client._calls import operations
from losswire.client._calls.batch import Batch, ChunkedPlan
from losswire.client._calls.chunked import (
    Calls,
    Cancellation,
    Progress,
    connect,
    connect_chunked,
    transfer,
)
from losswire.client._calls.retry import Attempts, RetryPolicy
from losswire.client._calls.session import (
    CHANNEL_OPTIONS,
    DEFAULT_TIMEOUT,
    LEAST_SECONDS,
    Clock,
    check_timeout,
    open_session,
)
from losswire.client._errors import (
    LosswireError,
    closed_error,
    error_from_call,
    too_late_error,
)
from losswire.client._memory.mapping import check_arrays, is_missing_region
from losswire.client._memory.region import Region
from losswire.client._memory.regions import Regions
from losswire.client._messages.arrays import ArrayInput, to_numpy
from losswire.client._messages.catalogue import LossInfo, Offer, ServerInfo
from losswire.client._messages.evaluation import Evaluation, EvaluationFields
from losswire.client._messages.resident import AsyncResidentTensor, StoredTensor, is_missing
from losswire.client._messages.response import EvaluationResult
from losswire.client._streams.async_stream import AsyncStream
from losswire.client._streams.core import StreamCore, StreamMethod, closed_or_cancelled
from losswire.wire import OptionScalar

_R = TypeVar("_R")


class AsyncClient:
    """Evaluates losses on one or more Losswire servers, from asyncio.

    The same as `Client`, with awaits. It belongs to the event loop of its first call, and may
    be used by any number of that loop's tasks at once. Arrays are converted on the loop.
    """

    def __init__(
        self,
        target: str,
        *,
        timeout: float = DEFAULT_TIMEOUT,
        credentials: grpc.ChannelCredentials | None = None,
        token: str | None = None,
        retry: RetryPolicy | None = None,
    ) -> None:
        """Prepare to connect; arguments and errors are those of `Client`."""
        self._session = open_session(target, timeout, token, retry)
        self._credentials = credentials
        self._loop: asyncio.AbstractEventLoop | None = None
        self._channels: list[grpc.aio.Channel] = []
        self._blocking_channels: list[grpc.Channel] = []
        self._chunked_calls: Calls = ()
        self._calls: list[dict[str, Any]] = []
        self._putting = asyncio.Lock()
        self._regions = Regions(self._session)

    async def evaluate(
        self,
        loss: str,
        inputs: Mapping[str, ArrayInput],
        options: Mapping[str, OptionScalar] | None = None,
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - it covers tries that a cancellation cannot
        out: Mapping[str, npt.NDArray[Any]] | None = None,
        progress: Progress | None = None,
        **fields: Unpack[EvaluationFields],
    ) -> EvaluationResult:
        """Evaluate one batch of any size, as `Client.evaluate` does.

        What goes in chunks is moved by another thread, which also calls `progress`; so is what
        goes through shared memory.
        """
        evaluation = Evaluation(loss, inputs, options or {}, **fields)
        result = await self._evaluate(evaluation, timeout, out, progress)
        operations.check_contents(evaluation, out)
        return result

    async def _evaluate(
        self,
        evaluation: Evaluation,
        timeout: float | None,  # noqa: ASYNC109 - as in evaluate
        out: Mapping[str, npt.NDArray[Any]] | None,
        progress: Progress | None,
    ) -> EvaluationResult:
        """Evaluate by a known form, or else as a batch."""
        if self._regions.want_lease(timeout):
            clock = Clock(self._session, timeout)
            await self._run(self._regions.open_lease(), clock.remaining())
            timeout = clock.remaining()
        known = self._regions.known(evaluation, out)
        if known is not None:
            attempts = self._session.attempts(timeout)
            self._connect()
            try:
                return await self._call(known, attempts)
            except LosswireError as error:
                if not is_missing_region(error):
                    raise
            timeout = max(attempts.remaining(), LEAST_SECONDS)
        clock = Clock(self._session, timeout)
        return await self._evaluate_batch(Batch(evaluation, out), clock, progress)

    async def _evaluate_batch(
        self, batch: Batch, clock: Clock, progress: Progress | None
    ) -> EvaluationResult:
        """Evaluate what has no known form, by the way that is fastest for its size."""
        if self._regions.may_help(batch):
            steps = self._regions.evaluate(batch, staged=progress is None)
            shared = await self._run(steps, clock.remaining())
            if shared is not None:
                return shared
        if batch.is_large:
            plan = batch.plan(await self._offer(clock))
            if plan is not None:
                try:
                    result = await self._transfer(plan, progress, clock.remaining())
                except LosswireError as error:
                    if not (batch.residents and is_missing(error)):
                        raise
                    # The next try may meet another server: all must hold them.
                    for tensor in batch.residents:
                        await self._on_each(operations.put(tensor), clock.remaining())
                    result = await self._transfer(plan, progress, clock.remaining())
                return batch.deliver(result)
        return await self._run(batch.steps(self._regions.leases), clock.remaining())

    async def _offer(self, clock: Clock) -> Offer:
        """Tell what the servers offer, asking them once."""
        if self._session.offer is None:
            server = self._session.server
            server = server or await self.server_info(timeout=clock.remaining())
            losses = await self.losses(timeout=clock.remaining())
            self._session.offer = Offer(server=server, losses={each.name: each for each in losses})
        return self._session.offer

    async def _transfer(
        self,
        plan: ChunkedPlan,
        progress: Progress | None,
        timeout: float,  # noqa: ASYNC109 - as in evaluate
    ) -> EvaluationResult:
        """Make a chunked call in a thread; once cancelled, nothing is written any more."""
        if not self._blocking_channels:
            self._blocking_channels = connect(self._session, self._credentials)
            self._chunked_calls = connect_chunked(self._blocking_channels)
        halt = Cancellation()
        work = asyncio.ensure_future(
            asyncio.to_thread(
                transfer,
                self._session,
                self._chunked_calls,
                plan,
                progress=progress,
                timeout=timeout,
                halt=halt,
            )
        )
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            halt.stop()
            await asyncio.gather(work, return_exceptions=True)
            raise

    async def evaluate_many(
        self,
        evaluations: Iterable[Evaluation],
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - as in evaluate
    ) -> list[EvaluationResult | LosswireError]:
        """Evaluate many small batches in one message, as `Client.evaluate_many` does."""
        return await self._run(operations.evaluate_many(evaluations), timeout)

    async def put(
        self,
        array: ArrayInput,
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - as in evaluate
    ) -> AsyncResidentTensor:
        """Leave an array on the server, as `Client.put` does. It is hashed in a thread."""
        if isinstance(array, StoredTensor):
            raise TypeError("array: this is a resident tensor already")
        tensor = await asyncio.to_thread(AsyncResidentTensor, to_numpy(array), self)
        check_arrays([tensor.array])
        await self._run(operations.store(tensor), timeout)
        return tensor

    async def region(
        self,
        nbytes: int,
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - as in evaluate
    ) -> Region:
        """Make memory that the server on this machine shares, as `Client.region` does."""
        return await self._run(self._regions.open(nbytes), timeout)

    async def stat(
        self,
        tensor: StoredTensor,
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - as in evaluate
    ) -> bool:
        """Tell whether every server of the target holds a tensor."""
        held = await self._on_each(operations.stat(tensor), timeout)
        return all(held)

    async def delete(
        self,
        tensor: StoredTensor,
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - as in evaluate
    ) -> bool:
        """Make all servers of the target forget a tensor, as `Client.delete` does."""
        held = await self._on_each(operations.delete(tensor), timeout)
        return any(held)

    async def losses(
        self,
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - as in evaluate
    ) -> list[LossInfo]:
        """List every loss of the server, ordered by name."""
        return await self._run_one(operations.list_losses(), timeout)

    async def server_info(
        self,
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - as in evaluate
    ) -> ServerInfo:
        """Tell versions, device, limits and transports."""
        return await self._run_one(operations.get_server_info(), timeout)

    def stream(
        self, *, timeout: float | None = None, max_in_flight: int | None = None
    ) -> AsyncStream:
        """Prepare a stream; `async with` opens it. Arguments are those of `Client.stream`."""
        return AsyncStream(self._session, self._open_stream_core, timeout, max_in_flight)

    async def _open_stream_core(
        self,
        timeout: float | None,  # noqa: ASYNC109 - as in evaluate
    ) -> StreamCore:
        """Give a stream its core; the stream that blocks calls this, too."""
        seconds = check_timeout(timeout, self._session.timeout)
        info = await self.server_info()
        method = operations.EVALUATE_STREAM
        methods: list[StreamMethod] = [
            channel.stream_stream(method.path, None, method.parse) for channel in self._channels
        ]
        return StreamCore(self._session, methods, seconds, info.limits, self._heal)

    async def close(self) -> None:
        """Give up calls under way and close the connections; closing again does nothing."""
        self._session.closed = True
        self._regions.close()
        if self._session.is_inherited:
            return
        for channel in self._channels:
            await channel.close()
        for blocking in self._blocking_channels:
            blocking.close()

    async def __aenter__(self) -> Self:
        self._session.check_usable()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"<losswire AsyncClient of {','.join(self._session.targets)}>"

    def _connect(self) -> None:
        """Make the channels: gRPC ties them to the running loop, so not before the first call."""
        loop = asyncio.get_running_loop()
        if self._loop is loop:
            return
        if self._loop is not None:
            raise RuntimeError("this client belongs to another event loop; make one in each")
        self._loop = loop
        self._channels = [
            grpc.aio.insecure_channel(name, CHANNEL_OPTIONS)
            if self._credentials is None
            else grpc.aio.secure_channel(name, self._credentials, CHANNEL_OPTIONS)
            for name in self._session.targets
        ]
        self._calls = [operations.calls_of(channel) for channel in self._channels]

    async def _run(
        self,
        steps: operations.Steps[_R],
        timeout: float | None,  # noqa: ASYNC109 - as in evaluate
    ) -> _R:
        attempts = self._session.attempts(timeout)
        self._connect()
        try:
            step = next(steps)
            while True:
                try:
                    answer = await self._take(step, attempts)
                except LosswireError as error:
                    step = steps.throw(error)
                else:
                    step = steps.send(answer)
                attempts.stay()
        except StopIteration as end:
            result: _R = end.value
            return result
        finally:
            steps.close()

    async def _run_one(
        self,
        operation: operations.Operation[_R],
        timeout: float | None,  # noqa: ASYNC109 - as in evaluate
    ) -> _R:
        attempts = self._session.attempts(timeout)
        self._connect()
        return await self._call(operation, attempts)

    async def _take(self, step: operations.Step, attempts: Attempts) -> Any:
        if isinstance(step, operations.Operation):
            return await self._call(step, attempts)
        if isinstance(step, operations.LocalStep):
            return await _aside(step)
        try:
            # One at a time: of many tasks that miss a tensor, one sends it.
            async with asyncio.timeout(attempts.remaining()):
                await self._putting.acquire()
        except TimeoutError:
            raise too_late_error() from None
        try:
            for tensor in step:
                present = await self._call(operations.stat(tensor), attempts)
                attempts.stay()
                if not present:
                    await self._call(operations.put(tensor), attempts)
                    attempts.stay()
        finally:
            self._putting.release()
        return None

    async def _heal(self, tensors: Sequence[StoredTensor], target: int, seconds: float) -> None:
        """See to it that one server holds some tensors; for streams."""
        await self._take(tuple(tensors), self._session.attempts(seconds, only=target))

    async def _on_each(
        self,
        operation: operations.Operation[_R],
        timeout: float | None,  # noqa: ASYNC109 - as in evaluate
    ) -> list[_R]:
        self._session.check_usable()
        self._connect()
        attempts = self._session.attempts
        indices = range(len(self._channels))
        return [await self._call(operation, attempts(timeout, only)) for only in indices]

    async def _call(self, operation: operations.Operation[_R], attempts: Attempts) -> _R:
        while True:
            call = self._calls[attempts.start()][operation.method.path]
            try:
                answer = await operation.by_lease_async(attempts.remaining()) or await call(
                    operation.sending(),
                    timeout=attempts.remaining(),
                    metadata=self._session.metadata,
                )
            except grpc.RpcError as failure:
                error = error_from_call(failure, len(operation.request))
            except LosswireError as failure:
                error = failure
            except asyncio.CancelledError:
                error = closed_or_cancelled(self._session)
            except grpc.aio.UsageError:
                error = closed_error()
            else:
                return operation.read(answer)
            if not operation.retry:
                raise error
            await asyncio.sleep(attempts.wait_after(error))


async def _aside(step: operations.LocalStep) -> Any:
    """Do something in a thread, to its end even when this task is cancelled meanwhile."""
    work = asyncio.ensure_future(asyncio.to_thread(step.work))
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        await asyncio.gather(work, return_exceptions=True)
        raise
