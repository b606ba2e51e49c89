"""The client that blocks."""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from types import TracebackType
from typing import Any, Self, Unpack
from weakref import WeakSet

import numpy.typing as npt

from losswire.client._calls import operations
from losswire.client._calls.identity_arguments import IdentityFields
from losswire.client._calls.many import evaluate_many
from losswire.client._calls.plan import Progress
from losswire.client._calls.process_bound import ProcessBound
from losswire.client._calls.retry import RetryPolicy
from losswire.client._calls.runner import Runner
from losswire.client._calls.session import open_session
from losswire.client._calls.summarize.request import (
    Candidates,
    SummaryFields,
    request_of,
    some_candidates,
)
from losswire.client._calls.summarize.steps import summarize
from losswire.client._errors import LosswireError
from losswire.client._memory.evaluate import evaluate
from losswire.client._memory.region import Region
from losswire.client._memory.regions import Regions
from losswire.client._memory.summarize import StagingLender
from losswire.client._messages.arrays import ArrayInput
from losswire.client._messages.catalogue import LossInfo, ServerInfo
from losswire.client._messages.evaluation import Evaluation, EvaluationFields
from losswire.client._messages.resident import ResidentTensor, StoredTensor
from losswire.client._messages.response import EvaluationResult
from losswire.client._messages.thresholds import DEFAULT_TIMEOUT_SECONDS
from losswire.client._runs.shells import Runs
from losswire.client._streams.sync_stream import Stream
from losswire.client._summaries.comparison import Comparison
from losswire.client._summaries.summary import Summary
from losswire.wire import OptionScalar


class Client(ProcessBound):
    """Evaluates losses on one or more Losswire servers.

    One client may be used by any number of threads at once; its calls share a connection to
    each server. It does not survive a fork: make one in each process. A process that forks
    while calls of more than some kilobytes are under way sets `GRPC_ENABLE_FORK_SUPPORT=0` before
    it imports gRPC, which may end its children otherwise; they cannot have a client then. It reads
    no variables of the environment but those of `IdentityFields`.

    Example:
        >>> with Client(address) as own:
        ...     result = own.evaluate("mse_loss", {"input": [1.0, 2.0], "target": [0.0, 0.0]})
        >>> float(result.loss)
        2.5
    """

    def __init__(
        self,
        target: str,
        *,
        timeout: float = DEFAULT_TIMEOUT_SECONDS,
        retry: RetryPolicy | None = None,
        wait_for_ready: float | bool | None = None,
        **identity: Unpack[IdentityFields],
    ) -> None:
        """Prepare to connect; the first call does.

        `target` is `host:port`, several of these with commas between them, or a gRPC name such
        as `dns:///name:port` or `unix:/path`. Calls go round all addresses, and past those that
        cannot be reached; of one name's, rather to servers that report less load. `local:`
        evaluates in this process and needs losswire-server installed: the first call of all such
        clients starts the service on threads of its own, which imports torch and takes seconds that
        `timeout` does not count. `local:?threads=2&device=cpu` says how many threads torch uses on
        which device: `auto`, `cpu` or `cuda`.

        `timeout` is the default for each call, in seconds, greater than 0, all tries included.
        `retry` says when failed calls are tried again. Until a server has answered once, calls end
        by UnavailableError after 2 or `wait_for_ready` seconds (True: their timeout); then they are
        tried again until their timeout. `token` or `token_file`, `tls`, `tls_ca`, `tls_cert` and
        `tls_key` or `credentials`, described by `IdentityFields`, say who the client is and whom it
        trusts; else variables such as `LOSSWIRE_TOKEN` do. Files are read again when they change.

        Raises TypeError and ValueError for arguments that cannot be right, ModuleNotFoundError for
        `local:` without losswire-server, RuntimeError in a process that was forked where gRPC does
        not support it, and for `local:` in one that was forked when its parent's was running.
        """
        self._session = open_session(
            target, timeout, retry, identity, wait_for_ready=wait_for_ready
        )
        self._regions = Regions(self._session)
        self._lender = StagingLender(self._regions)
        self._runner = Runner(self._session)
        self._streams: WeakSet[Stream] = WeakSet()
        self.runs = Runs(self._runner)
        """The runs that the server keeps."""

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

        `timeout` is in seconds, greater than 0, all tries included; None: the client's. `out` maps
        input names to arrays for their gradients: of the gradient's dtype and shape, writable,
        contiguous in C order. After an error their contents are undefined.

        A large batch is sent in chunks automatically: inputs are read a few rows at a time, and
        must not change meanwhile. `progress` is then called with the rows done and all rows, on
        the thread that moves them, which may be another; an exception from it ends the call. A try
        after a failure starts over.

        On the server's own machine, a large batch passes through shared memory automatically,
        unless `progress` is given; see `region` for no copies at all. `result.transport` names the
        transport.

        Raises TypeError and ValueError for arguments that cannot be sent, RuntimeError on a closed
        client, and a subclass of LosswireError when the server refuses or cannot be reached:
        InvalidArgumentError, NotFoundError (no such loss), ResourceExhaustedError (a limit),
        FailedPreconditionError (contents of shared memory are gone), DeadlineExceededError,
        UnavailableError, CancelledError (the client was closed).

        Example:
            >>> logits = np.zeros((2, 4), np.float32)
            >>> result = client.evaluate(
            ...     "cross_entropy", {"input": logits, "target": [0, 3]}, gradients=["input"]
            ... )
            >>> round(float(result.loss), 4), result.gradients["input"].shape
            (1.3863, (2, 4))
        """
        evaluation = Evaluation(loss, inputs, options or {}, **fields)
        steps = evaluate(self._regions, evaluation, timeout, out, progress)
        return self._runner.run(steps, timeout)

    def evaluate_many(
        self, evaluations: Iterable[Evaluation], *, timeout: float | None = None
    ) -> list[EvaluationResult | LosswireError]:
        """Evaluate many small batches in one message.

        Returns a result or a LosswireError for each, in order: one that fails does not fail the
        others, and is not tried again (see `LosswireError.retryable`). At most
        `server_info().limits.max_evaluations_per_call` evaluations, and 2 GiB together. `timeout`
        is in seconds. Raises as `evaluate` does when the call fails as a whole.

        Example:
            >>> item = Evaluation("mse_loss", {"input": [3.0], "target": [1.0]})
            >>> [float(each.loss) for each in client.evaluate_many([item, item])]
            [4.0, 4.0]
        """
        return self._runner.run(evaluate_many(evaluations), timeout)

    def summarize(
        self,
        loss: str,
        batches: Any,
        options: Mapping[str, OptionScalar] | None = None,
        *,
        resume_from: Summary | None = None,
        on_report: Callable[[Summary], object] | None = None,
        timeout: float | None = None,
        **fields: Unpack[SummaryFields],
    ) -> Summary:
        """Summarize a loss over a data set of any size, in bounded memory.

        `batches`: a dict of arrays with N rows each, which has the loss's inputs by name and the
        columns named below; a data frame or table of any library with `__arrow_c_stream__`; a
        pyarrow dataset; paths of Parquet, Arrow, CSV and JSON lines files, folders and `s3://`
        addresses; or an iterable of these. It is read on the calling thread, once.

        - `shared`: inputs that all batches share, such as class weights. `columns`: the columns of
          inputs that have another name, such as `{"input": "logits"}`.
        - `slices`: columns whose values make slices, at most 16; a tuple for the cross of several.
          `max_slices` in [1, 4096], the default, of each; beyond, `overflow`: `"refuse"` or
          `"other"`. `ids`, `sample_weight`, `cluster`: the columns of each row's id, its weight
          (at least 0; a row of weight 0 takes no part) and its cluster, such as a document or a
          user. `clusters_grouped`: the rows of a cluster are neighbours, which needs less memory.
          `nulls`: `"refuse"` them, or `"skip"` their rows.
        - `worst`: the number of worst rows to keep, 0 to 1000, default 20. `accuracy` of quantiles,
          relative, in [0.0014, 0.5], default 0.01.
        - `reduction`: `"mean"` or, of kl_div, `"batchmean"`; `engine`, `compute_dtype`: as in
          `Evaluation`.
        - `partition`: the key of the rows, by which summaries of the same rows are not merged;
          None: a new one for each call, unknown to `resume_from`. Files have keys of their own.
        - `progress`: True for a line on stderr, if that is a terminal; or a callable, which gets
          a `SummaryProgress` after each batch. `on_report` gets the summary so far, every few
          seconds. `resume_from`: a summary to continue: rows that it covers, by their keys, are
          skipped.

        `timeout` is in seconds without progress, not for the whole; None: the client's. A call
        that breaks is continued where it was, on another server where there is one: no batch is
        lost or counted twice. The last 64 MiB of batches are kept for that.

        Raises TypeError and ValueError for arguments and data that cannot be sent, errors of
        `batches` and callbacks as they are, and otherwise as `evaluate` does:
        InvalidArgumentError, NotFoundError, ResourceExhaustedError (also for too many slices),
        DeadlineExceededError, UnavailableError, CancelledError.

        Example:
            >>> batches = [
            ...     {"input": [1.0, 3.0], "target": [0.0, 0.0], "country": ["DE", "FR"]},
            ...     {"input": [2.0], "target": [0.0], "country": ["DE"]},
            ... ]
            >>> summary = client.summarize("mse_loss", batches, slices=["country"], worst=1)
            >>> summary.count, round(summary.mean, 4), summary.slices["country"]["DE"].mean
            (3, 4.6667, 2.5)
            >>> summary.worst[0].value, summary.worst[0].row, summary.worst[0].labels
            (9.0, 1, {'country': 'FR'})
        """
        request = request_of(loss, options, fields)
        steps = summarize(self._lender, Summary, request, batches, resume_from, on_report=on_report)
        return self._runner.run(steps, timeout)

    def compare(
        self,
        loss: str,
        batches: Any,
        options: Mapping[str, OptionScalar] | None = None,
        *,
        candidates: Candidates,
        resume_from: Comparison | None = None,
        on_report: Callable[[Comparison], object] | None = None,
        timeout: float | None = None,
        **fields: Unpack[SummaryFields],
    ) -> Comparison:
        """Compare 2 to 8 candidates, such as models, over the same rows in one pass.

        `candidates` maps each name to the candidate's own inputs: the name of a column of
        `batches`, or an array that all batches share. Differences are taken row by row, so their
        intervals are those of paired samples. All else is as in `summarize`.

        Example:
            >>> batch = {"old": [1.0, 3.0], "new": [1.0, 2.0], "target": [0.0, 0.0]}
            >>> candidates = {"new": {"input": "new"}, "old": {"input": "old"}}
            >>> comparison = client.compare("mse_loss", [batch], candidates=candidates)
            >>> difference = comparison.difference("new", "old")
            >>> difference.mean, difference.wins, difference.ties, difference.losses
            (-2.5, 1, 1, 0)
        """
        request = request_of(loss, options, fields, some_candidates(candidates))
        steps = summarize(
            self._lender, Comparison, request, batches, resume_from, on_report=on_report
        )
        return self._runner.run(steps, timeout)

    def put(self, array: ArrayInput, *, timeout: float | None = None) -> ResidentTensor:
        """Store an array on the server, for use in any number of evaluations by reference.

        An array of any shape with at most 8 axes and any dtype of the wire. It is sent only if
        the server does not hold it already. An evaluation takes the handle in place of the array.
        The handle keeps the array, to send it again: to another server, to one that was started
        again, or to one that evicted it for others. So the array must not change. `timeout` is in
        seconds.

        Raises as `evaluate` does; UnimplementedError when the server keeps no tensors.

        Example:
            >>> target = client.put(np.zeros(2, np.float32))
            >>> float(client.evaluate("mse_loss", {"input": [1.0, 2.0], "target": target}).loss)
            2.5
        """
        make = partial(ResidentTensor, client=self)
        return self._runner.run(operations.store(array, make), timeout)

    def region(self, nbytes: int, *, timeout: float | None = None) -> Region:
        """Make memory of at least `nbytes` bytes that the server on this machine shares.

        Fill arrays made by its `array` method, and pass them as inputs and in `out`: nothing of
        them is copied. Close it when it is no longer needed, or use `with`. `timeout` is in
        seconds. Linux only.

        Raises as `evaluate` does: UnimplementedError when the server or this system shares no
        memory, FailedPreconditionError when the memory cannot be had from here,
        ResourceExhaustedError when it is more than the server's quota. ValueError when `nbytes`
        is less than 1 or the client has several targets.

        Example:
            >>> with client.region(4096) as region:
            ...     inputs = {name: region.array(2) for name in ("input", "target")}
            ...     inputs["input"][...] = 1.0, 2.0
            ...     float(client.evaluate("mse_loss", inputs).loss)
            2.5
        """
        return self._runner.run(self._regions.open(nbytes), timeout)

    def stat(self, tensor: StoredTensor, *, timeout: float | None = None) -> bool:
        """Return whether every server of the target holds a tensor.

        `timeout` is in seconds, for all of them. Raises as `evaluate` does.

        Example:
            >>> client.stat(client.put([1.0, 2.0]))
            True
        """
        return self._runner.run(operations.is_held_by_all(tensor), timeout)

    def delete(self, tensor: StoredTensor, *, timeout: float | None = None) -> bool:
        """Delete a tensor from all servers of the target; returns whether any of them held it.

        An evaluation that names it afterwards sends it again. `timeout` is in seconds, for all
        servers. Raises as `evaluate` does.

        Example:
            >>> tensor = client.put([1.0, 2.0])
            >>> client.delete(tensor), client.delete(tensor)
            (True, False)
        """
        return self._runner.run(operations.delete_from_all(tensor), timeout)

    def losses(self, *, timeout: float | None = None) -> list[LossInfo]:
        """List every loss of the server, ordered by name: inputs, shapes, dtypes and options.

        `timeout` is in seconds. Raises as `evaluate` does.

        Example:
            >>> [each.name for each in client.losses() if each.name.startswith("mse")]
            ['mse_loss']
        """
        return self._runner.run(operations.single(operations.list_losses()), timeout)

    def server_info(self, *, timeout: float | None = None) -> ServerInfo:
        """Return the server's versions, device, limits (in bytes and counts) and transports.

        `timeout` is in seconds. Raises as `evaluate` does.

        Example:
            >>> client.server_info().device
            'cpu'
        """
        return self._runner.run(operations.single(operations.get_server_info()), timeout)

    def stream(self, *, timeout: float | None = None, max_in_flight: int | None = None) -> Stream:
        """Prepare a stream of evaluations, such as a training loop; `with` opens it.

        One call carries all of them, so that an evaluation costs less than by itself and many
        are under way at once. A stream that breaks is opened again, on another server where
        there is one, and evaluations without an answer are sent again.

        `timeout` is for each evaluation, in seconds, from `submit` to its answer (None: the
        client's). `max_in_flight`, at least 1, is how many may be unanswered before `submit`
        waits; at most, and by default, as many as the server takes.

        Raises ValueError for `max_in_flight`, RuntimeError on a closed client.

        Example:
            >>> item = Evaluation("mse_loss", {"input": [3.0], "target": [1.0]})
            >>> with client.stream() as stream:
            ...     float(stream.submit(item).result().loss)
            4.0
        """
        self._session.check_usable()
        stream = Stream(self._session, timeout, max_in_flight)
        self._streams.add(stream)
        return stream

    def close(self) -> None:
        """End calls under way and close the connections; closing again does nothing.

        Arrays in regions keep their contents. In a child of the process that made the client,
        only the child's own copies of descriptors are closed: connections are the parent's.

        Example:
            >>> own = Client(address)
            >>> own.close()
        """
        self._session.closed = True
        self._regions.close()
        if self._session.is_inherited:
            return
        for stream in tuple(self._streams):
            stream.abort()
        self._runner.close()

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
