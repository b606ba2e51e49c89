"""Executes the steps of calls on an event loop."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from contextvars import copy_context
from typing import Any, TypeVar

import grpc
import grpc.aio

from losswire.client._calls import operations
from losswire.client._calls.absence import silent_error
from losswire.client._calls.async_watch import AsyncWatch
from losswire.client._calls.cancellation import Cancellation
from losswire.client._calls.channels import Channels, connect, connect_async
from losswire.client._calls.chunked import transfer
from losswire.client._calls.operations import Operation, Step, Steps
from losswire.client._calls.retry import Attempts
from losswire.client._calls.session import Session
from losswire.client._errors import (
    CancelledError,
    LosswireError,
    closed_error,
    error_from_call,
    too_late_error,
)
from losswire.client._messages import thresholds
from losswire.client._messages.resident import StoredTensor
from losswire.client._messages.response import EvaluationResult

_R = TypeVar("_R")


class AsyncRunner:
    """The channels of a client for asyncio. It belongs to the event loop of its first call."""

    def __init__(self, session: Session) -> None:
        """Prepare to connect; the first call does."""
        self.session = session
        """The facts that all calls have in common."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._channels: Channels[grpc.aio.Channel]
        self._blocking_channels: Channels[grpc.Channel] | None = None
        self._storing = asyncio.Lock()

    async def run(
        self,
        steps: Steps[_R],
        timeout: float | None,  # noqa: ASYNC109 - it covers tries that a cancellation cannot
        attempts: Attempts | None = None,
    ) -> _R:
        """Execute all steps of a call within its timeout, in seconds, and return its value.

        Steps of a step use the attempts of its call. Raises the errors of the steps, and
        RuntimeError when the client cannot be used.
        """
        if self.session.needs_start:
            await asyncio.to_thread(self.session.start)
        attempts = attempts or self.session.attempts(timeout)
        self._connect()
        try:
            step = next(steps)
            while True:
                try:
                    if isinstance(step, Operation):
                        answer = await self._call(step, attempts)
                    else:
                        answer = await self._take(step, attempts)
                except LosswireError as error:
                    step = steps.throw(error)
                else:
                    step = steps.send(answer)
                attempts.pin_target()
        except StopIteration as end:
            result: _R = end.value
            return result
        except BaseException:
            steps.close()
            raise

    async def restore(self, tensors: Sequence[StoredTensor], target: int, seconds: float) -> None:
        """Store, on the target of an index, the tensors that it does not hold."""
        await self._take(
            operations.StoreMissing(tensors), self.session.attempts(seconds, only=target)
        )

    def channels(self) -> Channels[grpc.aio.Channel]:
        """Return the channels, one to each target, on the running loop."""
        return self._connect()

    async def close(self) -> None:
        """Close the channels, which ends the calls over them, and end the others."""
        self.session.end_calls()
        for channel in self._channels.all() if self._loop is not None else ():
            await channel.close()
        if self._blocking_channels is not None:
            for blocking in self._blocking_channels.all():
                blocking.close()

    def _connect(self) -> Channels[grpc.aio.Channel]:
        """Make the channels: gRPC ties them to the running loop, so not before the first call."""
        loop = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = loop
            self._channels = connect_async(self.session)
        elif self._loop is not loop:
            raise RuntimeError("this client belongs to another event loop; make one in each")
        elif self.session.identity.watches:
            self._channels.follow()
        return self._channels

    async def _take(self, step: Step, attempts: Attempts) -> Any:
        """Execute a step that is not one call."""
        match step:
            case operations.LocalStep(work):
                return await _finish_in_thread(work)
            case operations.EachTarget(operation):
                indices = range(len(self.session.targets))
                return [await self._call(operation, attempts.on_target(each)) for each in indices]
            case operations.ChunkedCall():
                return await self._transfer(step, attempts)
            case operations.StreamedCall(work):
                cancellation = Cancellation()
                channels = self._connect_blocking()
                return await _finish_in_thread(
                    lambda: work(channels, attempts, cancellation), cancellation.stop
                )
            case operations.StoreMissing(tensors):
                try:
                    # One at a time: of many tasks that miss a tensor, one sends it.
                    async with asyncio.timeout(attempts.remaining()):
                        await self._storing.acquire()
                except TimeoutError:
                    raise too_late_error() from None
                try:
                    await self.run(operations.put_missing(tensors), None, attempts)
                finally:
                    self._storing.release()
        return None

    async def _transfer(
        self, chunked: operations.ChunkedCall, attempts: Attempts
    ) -> EvaluationResult:
        """Make a chunked call in a thread; once cancelled, nothing is written any more."""
        channels = self._connect_blocking()
        cancellation = Cancellation()
        return await _finish_in_thread(
            lambda: transfer(self.session, channels, chunked, attempts, cancellation),
            cancellation.stop,
        )

    def _connect_blocking(self) -> Channels[grpc.Channel]:
        """Make the channels for calls that block in a thread; returns them."""
        if self._blocking_channels is None:
            self._blocking_channels = connect(self.session)
        return self._blocking_channels

    async def _call(self, operation: Operation[_R], attempts: Attempts) -> _R:
        while True:
            target = await self._start(attempts)
            try:
                answer = await operation.by_lease_async(attempts.remaining())
                if answer is None:
                    answer = operation.method.parsed(await self._send(operation, target, attempts))
            except grpc.RpcError as failure:
                error = error_from_call(failure, len(operation.request))
            except LosswireError as failure:
                error = failure
            except asyncio.CancelledError:
                error = closed_or_cancelled(self.session)
            except grpc.aio.UsageError:
                error = closed_error()
            else:
                attempts.note_answer()
                return operation.read(answer)
            try:
                if not operation.retry:
                    raise error
                delay = attempts.wait_after(error)
            finally:
                # The error has this frame in its traceback: with the error in the frame, neither
                # would be freed before the garbage collector comes.
                del error
            await asyncio.sleep(delay)
            self._channels.follow()

    async def _start(self, attempts: Attempts) -> int:
        """Begin a try; returns the index of a target that is not known to be silent."""
        target = attempts.start()
        for _ in self.session.targets:
            if not attempts.is_doubtful:
                break
            seconds = min(thresholds.RECHECK_SECONDS, attempts.remaining())
            if await asyncio.to_thread(attempts.is_alive, seconds):
                attempts.note_answer()
                break
            target = attempts.pass_over()
        return target

    async def _send(self, operation: Operation[Any], target: int, attempts: Attempts) -> bytes:
        """Make one try by gRPC and return the answer's bytes; RpcError or LosswireError."""
        methods = self._channels.methods[target]  # kept until the call ends: see there
        call = methods[operation.method.path](
            operation.payload(),
            timeout=attempts.remaining(),
            metadata=self.session.metadata_of(operation.request),
        )
        answer: bytes
        if attempts.patience is None:
            answer = await call
            return answer
        watch = AsyncWatch(call, attempts)
        try:
            answer = await call
        except asyncio.CancelledError:
            if not watch.found_silence or is_cancelled():
                raise
            raise silent_error(attempts.target_name) from None
        finally:
            watch.stop()
        return answer


def closed_or_cancelled(session: Session) -> CancelledError:
    """Return the error for an asyncio.CancelledError, or raise that again; for its handlers.

    gRPC raises it when the channel is closed, too. Only a task that was itself cancelled may
    end by it, and then it is raised again.
    """
    if not session.closed or is_cancelled():
        raise  # noqa: PLE0704 - called by handlers only
    return closed_error()


def is_cancelled() -> bool:
    """Return whether the running task was cancelled itself."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


async def _finish_in_thread(work: Callable[[], _R], stop: Callable[[], None] | None = None) -> _R:
    """Call a function in a thread, and wait for its end however often this task is cancelled.

    `stop` is called then, so that the end comes sooner.
    """
    # No task: the end of a loop cancels all of these, and a thread goes on.
    running = asyncio.get_running_loop().run_in_executor(None, copy_context().run, work)
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        if stop is not None:
            stop()
        while not running.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait([running])
        # Asking for the exception keeps the loop from logging that nobody did.
        running.exception()
        raise
