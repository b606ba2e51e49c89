"""Executes the steps of calls, and blocks for each."""

import threading
import time
from typing import Any, TypeVar

import grpc

from losswire.client._calls import operations
from losswire.client._calls.cancellation import Cancellation
from losswire.client._calls.chunked import connect, connect_chunked, transfer
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

_R = TypeVar("_R")


class Runner:
    """The channels of a client that blocks. Any thread may use it."""

    def __init__(self, session: Session, credentials: grpc.ChannelCredentials | None) -> None:
        """Make a channel to each target; the first call connects."""
        self._session = session
        self._channels = connect(session, credentials)
        self._methods = [operations.calls_of(channel) for channel in self._channels]
        self._chunked_methods = connect_chunked(self._channels)
        self._storing = threading.Lock()

    def run(self, steps: Steps[_R], timeout: float | None, attempts: Attempts | None = None) -> _R:
        """Execute all steps of a call within its timeout, in seconds, and return its value.

        Steps of a step use the attempts of its call. Raises the errors of the steps, and
        RuntimeError when the client cannot be used.
        """
        attempts = attempts or self._session.attempts(timeout)
        try:
            step = next(steps)
            while True:
                try:
                    if isinstance(step, Operation):
                        answer = self._call(step, attempts)
                    else:
                        answer = self._take(step, attempts)
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

    def close(self) -> None:
        """Close the channels, which ends the calls over them, and end the others."""
        self._session.end_calls()
        for channel in self._channels:
            channel.close()

    def _take(self, step: Step, attempts: Attempts) -> Any:
        """Execute a step that is not one call."""
        match step:
            case operations.LocalStep(work):
                return work()
            case operations.EachTarget(operation):
                indices = range(len(self._channels))
                return [self._call(operation, attempts.on_target(each)) for each in indices]
            case operations.ChunkedCall():
                return transfer(
                    self._session, self._chunked_methods, step, attempts, Cancellation()
                )
            case operations.StreamedCall(work):
                return work(self._channels, attempts, Cancellation())
            case operations.StoreMissing(tensors):
                # One at a time: of many threads that miss a tensor, one sends it.
                if not self._storing.acquire(timeout=attempts.remaining()):
                    raise too_late_error()
                try:
                    self.run(operations.put_missing(tensors), None, attempts)
                finally:
                    self._storing.release()
        return None

    def _call(self, operation: Operation[_R], attempts: Attempts) -> _R:
        while True:
            method = self._methods[attempts.start()][operation.method.path]
            try:
                answer = operation.by_lease(attempts.remaining()) or method(
                    operation.payload(),
                    timeout=attempts.remaining(),
                    metadata=self._session.metadata,
                )
            except grpc.RpcError as failure:
                error = error_from_call(failure, len(operation.request))
                if self._session.closed and isinstance(error, CancelledError):
                    error = closed_error()
            except LosswireError as failure:
                error = failure
            except ValueError:
                # gRPC's error for a channel that another thread closes meanwhile.
                if not self._session.closed:
                    raise
                error = closed_error()
            else:
                return operation.read(answer)
            try:
                if not operation.retry:
                    raise error
                delay = attempts.wait_after(error)
            finally:
                # The error has this frame in its traceback: with the error in the frame, neither
                # would be freed before the garbage collector comes.
                del error
            time.sleep(delay)
