"""Executes the steps of calls, and blocks for each."""

import threading
import time
from typing import Any, TypeVar

import grpc

from losswire.client._calls import operations
from losswire.client._calls.abandoned import abandon, close_beside, end_call, was_interrupted
from losswire.client._calls.absence import silent_error
from losswire.client._calls.cancellation import Cancellation
from losswire.client._calls.channels import connect
from losswire.client._calls.chunked import transfer
from losswire.client._calls.operations import Operation, Step, Steps
from losswire.client._calls.retry import Attempts
from losswire.client._calls.session import Session
from losswire.client._errors import (
    CancelledError,
    LosswireError,
    closed_error,
    code_of,
    error_from_call,
    too_late_error,
)
from losswire.client._messages import thresholds

_R = TypeVar("_R")


class Runner:
    """The channels of a client that blocks. Any thread may use it."""

    def __init__(self, session: Session) -> None:
        """Make a channel to each target; the first call connects."""
        self._session = session
        self._abandoned: list[grpc.Channel] = []
        self._channels = connect(session)
        self._long: set[int] = set()
        """The sizes of requests that took long, each as its number of bits."""
        self._storing = threading.Lock()

    def run(self, steps: Steps[_R], timeout: float | None, attempts: Attempts | None = None) -> _R:
        """Execute all steps of a call within its timeout, in seconds, and return its value.

        Steps of a step use the attempts of its call. Raises the errors of the steps, and
        RuntimeError when the client cannot be used.
        """
        attempts = attempts or self._session.attempts(timeout)
        if self._session.identity.watches:
            self._channels.follow()
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
            if was_interrupted():
                abandon(self._channels)
                self._abandoned += self._channels
                self._channels = connect(self._session)
            steps.close()
            raise

    def close(self) -> None:
        """Close the channels, which ends the calls over them, and end the others."""
        self._session.end_calls()
        for channel in self._channels.all():
            channel.close()
        if self._abandoned:
            close_beside(self._abandoned)

    def _take(self, step: Step, attempts: Attempts) -> Any:
        """Execute a step that is not one call."""
        match step:
            case operations.LocalStep(work):
                return work()
            case operations.EachTarget(operation):
                indices = range(len(self._channels))
                return [self._call(operation, attempts.on_target(each)) for each in indices]
            case operations.ChunkedCall():
                return transfer(self._session, self._channels, step, attempts, Cancellation())
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
            # The only target is never passed over, and small calls are short.
            is_only = len(self._channels.methods) == 1
            target = attempts.start() if is_only else self._start(attempts)
            try:
                answer = operation.by_lease(attempts.remaining()) or operation.method.parsed(
                    self._send(operation, target, attempts)
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
            time.sleep(delay)
            self._channels.follow()

    def _start(self, attempts: Attempts) -> int:
        """Begin a try; returns the index of a target that is not known to be silent."""
        target = attempts.start()
        for _ in self._channels:
            if not attempts.is_doubtful:
                break
            seconds = min(thresholds.RECHECK_SECONDS, attempts.remaining())
            if attempts.is_alive(seconds):
                attempts.note_answer()
                break
            target = attempts.pass_over()
        return target

    def _send(self, operation: Operation[Any], target: int, attempts: Attempts) -> bytes:
        """Make one try by gRPC and return the answer's bytes; RpcError or LosswireError."""
        methods = self._channels.methods[target]  # kept until the call ends: see there
        method = methods[operation.method.path]
        patience, seconds = attempts.patience, attempts.remaining()
        if patience is None:
            return self._send_with(method, operation, seconds)
        size = len(operation.request).bit_length()
        is_small = operation.parts is None and len(operation.request) <= thresholds.INLINE_BYTES
        # A call that any thread can end takes a fifth longer. So small ones are first made with
        # little time, and again when they turn out to take more.
        if is_small and size not in self._long and attempts.rotation.was_heard:
            try:
                return self._send_with(method, operation, min(patience, seconds))
            except grpc.RpcError as failure:
                is_late = code_of(failure) is grpc.StatusCode.DEADLINE_EXCEEDED
                if not is_late or patience >= seconds:
                    raise
            self._check_alive(attempts)
            self._long.add(size)
        started = time.monotonic()
        call = method.future(
            operation.payload(),
            timeout=attempts.remaining(),
            metadata=self._session.metadata_of(operation.request),
        )
        try:
            answer = self._wait(call, attempts)
        finally:
            end_call(call)
        if time.monotonic() - started < patience:
            self._long.discard(size)
        return answer

    def _send_with(self, method: Any, operation: Operation[Any], seconds: float) -> bytes:
        answer: bytes = method(
            operation.payload(),
            timeout=seconds,
            metadata=self._session.metadata_of(operation.request),
        )
        return answer

    def _wait(self, call: Any, attempts: Attempts) -> bytes:
        """Wait for a call for as long as its server answers for its health."""
        while True:
            try:
                answer: bytes = call.result(timeout=attempts.patience)
            except grpc.FutureTimeoutError:
                self._check_alive(attempts)
            except grpc.FutureCancelledError:
                raise closed_error() from None
            else:
                return answer

    def _check_alive(self, attempts: Attempts) -> None:
        """Ask a target for its health; its `silent_error` when it does not answer."""
        seconds = min(thresholds.HEALTH_SECONDS, attempts.remaining())
        if attempts.is_alive(seconds):
            attempts.note_answer()
        elif attempts.patience is not None:
            attempts.note_silence()
            raise silent_error(attempts.target_name)
