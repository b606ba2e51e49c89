"""The client that blocks."""

import threading
import time
from collections.abc import Iterable, Mapping
from functools import partial
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack
from weakref import WeakSet

import grpc
import numpy.typing as npt

from losswire.client._async_client import AsyncClient
from losswire.client._calls import operations
from losswire.client._calls.batch import Batch, ChunkedPlan
from losswire.client._calls.chunked import (
    Cancellation,
    Progress,
    connect,
    connect_chunked,
    transfer,
)
from losswire.client._calls.retry import Attempts, RetryPolicy
from losswire.client._calls.session import DEFAULT_TIMEOUT, LEAST_SECONDS, Clock, open_session
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
from losswire.client._messages.resident import ResidentTensor, StoredTensor, is_missing
from losswire.client._messages.response import EvaluationResult
from losswire.client._streams.sync_stream import Stream
from losswire.wire import OptionScalar

_R = TypeVar("_R")


class Client:
    """Evaluates losses on one or more Losswire servers.

    One client may be used by any number of threads at once; its calls share a connection to
    each server. It does not survive a fork: make one in each process. Nothing is read from
    the environment.
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
        """Prepare to connect; the first call does.

        `target` is `host:port`, several of these with commas between them, or a gRPC name such
        as `dns:///name:port` or `unix:/path`. Calls go round all addresses, and past those that
        cannot be reached. `timeout` is the default for each call, in seconds, all tries
        included. `credentials` switch TLS on; `token` is sent with each call as
        `authorization: Bearer`. `retry` says when failed calls are tried again.

        Raises TypeError and ValueError for arguments that cannot be right.
        """
        self._session = open_session(target, timeout, token, retry)
        self._async_client = partial(
            AsyncClient, target, timeout=timeout, credentials=credentials, token=token, retry=retry
        )
        self._streams: WeakSet[Stream] = WeakSet()
        self._putting = threading.Lock()
        self._regions = Regions(self._session)
        self._channels = connect(self._session, credentials)
        self._calls = [operations.calls_of(channel) for channel in self._channels]
        self._chunked_calls = connect_chunked(self._channels)

    def evaluate(
        self,
        loss: str,
        inputs: Mapping[str, ArrayInput],
        options: Mapping[str, OptionScalar] | None = None,
        *,
        timeout: float | None = None,
        out: Mapping[str, npt.NDArray[Any]] | None = None,
        progress: Progress | None = None,
        **fields: Unpack[EvaluationFields],
    ) -> EvaluationResult:
        """Evaluate one batch of any size: the loss, and the gradients asked for.

        All arguments but those named here are the fields of `Evaluation`, which describes them:
        `reduction`, `gradients`, `grad_output`, `sample_weight`, `normalizer`,
        `gradient_dtype`, `compute_dtype`, `engine`, `gradient_form`.

        `timeout` is in seconds, all tries included; None: the client's. `out` gives arrays, by
        input name, for gradients to be written into, of the gradient's type and shape; what
        they hold after an error is undefined.

        What is large goes in chunks, by itself: inputs are
        read a few rows at a time, and must not change meanwhile. `progress` is then called with
        the rows that are done and all rows, on the thread that moves them, which may be
        another; an exception from it ends the call. After a failure that is tried again it
        starts over.

        On the server's own machine, what is large goes through shared memory, by itself, unless
        `progress` is given; see `region` for doing without copies. `result.transport` tells the
        way taken.

        Raises TypeError and ValueError for what cannot be sent, LosswireError for everything
        that the server or the way to it refuses, RuntimeError on a closed client.
        """
        evaluation = Evaluation(loss, inputs, options or {}, **fields)
        result = self._evaluate(evaluation, timeout, out, progress)
        operations.check_contents(evaluation, out)
        return result

    def _evaluate(
        self,
        evaluation: Evaluation,
        timeout: float | None,
        out: Mapping[str, npt.NDArray[Any]] | None,
        progress: Progress | None,
    ) -> EvaluationResult:
        """Evaluate by a known form, or else as a batch."""
        if self._regions.want_lease(timeout):
            clock = Clock(self._session, timeout)
            self._run(self._regions.open_lease(), clock.remaining())
            timeout = clock.remaining()
        known = self._regions.known(evaluation, out)
        if known is not None:
            attempts = self._session.attempts(timeout)
            try:
                return self._call(known, attempts)
            except LosswireError as error:
                if not is_missing_region(error):
                    raise
            timeout = max(attempts.remaining(), LEAST_SECONDS)
        clock = Clock(self._session, timeout)
        return self._evaluate_batch(Batch(evaluation, out), clock, progress)

    def _evaluate_batch(
        self, batch: Batch, clock: Clock, progress: Progress | None
    ) -> EvaluationResult:
        """Evaluate what has no known form, by the way that is fastest for its size."""
        if self._regions.may_help(batch):
            steps = self._regions.evaluate(batch, staged=progress is None)
            shared = self._run(steps, clock.remaining())
            if shared is not None:
                return shared
        if batch.is_large:
            plan = batch.plan(self._offer(clock))
            if plan is not None:
                try:
                    result = self._transfer(plan, progress, clock.remaining())
                except LosswireError as error:
                    if not (batch.residents and is_missing(error)):
                        raise
                    # The next try may meet another server: all must hold them.
                    for tensor in batch.residents:
                        self._on_each(operations.put(tensor), clock.remaining())
                    result = self._transfer(plan, progress, clock.remaining())
                return batch.deliver(result)
        return self._run(batch.steps(self._regions.leases), clock.remaining())

    def _transfer(
        self, plan: ChunkedPlan, progress: Progress | None, timeout: float
    ) -> EvaluationResult:
        return transfer(
            self._session,
            self._chunked_calls,
            plan,
            progress=progress,
            timeout=timeout,
            halt=Cancellation(),
        )

    def evaluate_many(
        self, evaluations: Iterable[Evaluation], *, timeout: float | None = None
    ) -> list[EvaluationResult | LosswireError]:
        """Evaluate many small batches in one message.

        Gives a result or a LosswireError for each, in order: one that fails does not fail the
        others, and is not tried again (see `LosswireError.retryable`). At most
        `server_info().limits.max_evaluations_per_call`. Raises as `evaluate` does when the
        call fails as a whole.
        """
        return self._run(operations.evaluate_many(evaluations), timeout)

    def put(self, array: ArrayInput, *, timeout: float | None = None) -> ResidentTensor:
        """Leave an array on the server, to be used in any number of evaluations by name.

        It is sent only if the server does not hold it already. The handle stands for the array
        wherever an evaluation takes one, and refers to it, to send it again: to another server,
        to one that was started again, or when others displaced it there. So the array must not
        change. Raises as `evaluate` does; UnimplementedError when the server keeps no tensors.
        """
        if isinstance(array, StoredTensor):
            raise TypeError("array: this is a resident tensor already")
        tensor = ResidentTensor(to_numpy(array), self)
        check_arrays([tensor.array])
        self._run(operations.store(tensor), timeout)
        return tensor

    def region(self, nbytes: int, *, timeout: float | None = None) -> Region:
        """Make memory of so many bytes that the server on this machine shares.

        Fill arrays that its `array` gives, and pass them as inputs and in `out`: nothing of
        them is copied. Close it when it is no longer needed, or use `with`. Linux only.

        Raises as `evaluate` does: UnimplementedError when the server or this system shares no
        memory, FailedPreconditionError when the memory cannot be had from here,
        ResourceExhaustedError when it is more than the server's quota. ValueError when the
        client has several targets.
        """
        return self._run(self._regions.open(nbytes), timeout)

    def stat(self, tensor: StoredTensor, *, timeout: float | None = None) -> bool:
        """Tell whether every server of the target holds a tensor. Raises as `evaluate` does."""
        held = self._on_each(operations.stat(tensor), timeout)
        return all(held)

    def delete(self, tensor: StoredTensor, *, timeout: float | None = None) -> bool:
        """Make all servers of the target forget a tensor; tells whether any of them held it.

        An evaluation that names it nevertheless sends it again. Raises as `evaluate` does.
        """
        held = self._on_each(operations.delete(tensor), timeout)
        return any(held)

    def losses(self, *, timeout: float | None = None) -> list[LossInfo]:
        """List every loss of the server, ordered by name. Raises as `evaluate` does."""
        return self._run_one(operations.list_losses(), timeout)

    def server_info(self, *, timeout: float | None = None) -> ServerInfo:
        """Tell versions, device, limits and transports. Raises as `evaluate` does."""
        return self._run_one(operations.get_server_info(), timeout)

    def _offer(self, clock: Clock) -> Offer:
        """Tell what the servers offer, asking them once."""
        if self._session.offer is None:
            server = self._session.server or self.server_info(timeout=clock.remaining())
            losses = self.losses(timeout=clock.remaining())
            self._session.offer = Offer(server=server, losses={each.name: each for each in losses})
        return self._session.offer

    def stream(self, *, timeout: float | None = None, max_in_flight: int | None = None) -> Stream:
        """Prepare a stream of evaluations, such as a training loop; `with` opens it.

        One call carries all of them, so that an evaluation costs less than by itself and many
        are under way at once. A stream that breaks is opened again, on another server where
        there is one, and what was not answered is sent again.

        `timeout` is what each evaluation may take, in seconds, from `submit` to its answer
        (None: the client's). `max_in_flight` is how many may be unanswered before `submit`
        waits; at most, and by default, what the server takes.
        """
        self._session.check_usable()
        stream = Stream(self._session, self._async_client, timeout, max_in_flight)
        self._streams.add(stream)
        return stream

    def close(self) -> None:
        """Give up calls under way and close the connections; closing again does nothing.

        Arrays in regions keep their contents. In a child of the process that made the client,
        only the child's own copies of descriptors are closed: connections are the parent's.
        """
        self._session.closed = True
        self._regions.close()
        if self._session.is_inherited:
            return
        for stream in tuple(self._streams):
            stream.abort()
        for channel in self._channels:
            channel.close()

    def __enter__(self) -> Self:
        self._session.check_usable()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<losswire Client of {','.join(self._session.targets)}>"

    def _run(self, steps: operations.Steps[_R], timeout: float | None) -> _R:
        attempts = self._session.attempts(timeout)
        try:
            step = next(steps)
            while True:
                try:
                    answer = self._take(step, attempts)
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

    def _run_one(self, operation: operations.Operation[_R], timeout: float | None) -> _R:
        return self._call(operation, self._session.attempts(timeout))

    def _take(self, step: operations.Step, attempts: Attempts) -> Any:
        if isinstance(step, operations.Operation):
            return self._call(step, attempts)
        if isinstance(step, operations.LocalStep):
            return step.work()
        # One at a time: of many threads that miss a tensor, one sends it.
        if not self._putting.acquire(timeout=attempts.remaining()):
            raise too_late_error()
        try:
            for tensor in step:
                present = self._call(operations.stat(tensor), attempts)
                attempts.stay()
                if not present:
                    self._call(operations.put(tensor), attempts)
                    attempts.stay()
        finally:
            self._putting.release()
        return None

    def _on_each(self, operation: operations.Operation[_R], timeout: float | None) -> list[_R]:
        attempts = self._session.attempts
        indices = range(len(self._channels))
        return [self._call(operation, attempts(timeout, only)) for only in indices]

    def _call(self, operation: operations.Operation[_R], attempts: Attempts) -> _R:
        while True:
            call = self._calls[attempts.start()][operation.method.path]
            try:
                answer = operation.by_lease(attempts.remaining()) or call(
                    operation.sending(),
                    timeout=attempts.remaining(),
                    metadata=self._session.metadata,
                )
            except grpc.RpcError as failure:
                error = error_from_call(failure, len(operation.request))
            except LosswireError as failure:
                error = failure
            except ValueError:
                # gRPC's word for a channel that another thread closes meanwhile.
                if not self._session.closed:
                    raise
                error = closed_error()
            else:
                return operation.read(answer)
            if not operation.retry:
                raise error
            time.sleep(attempts.wait_after(error))
