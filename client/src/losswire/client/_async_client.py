"""The client for asyncio."""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from types import TracebackType
from typing import Any, Self, Unpack

import numpy.typing as npt

from losswire.client._calls import operations
from losswire.client._calls.async_runner import AsyncRunner
from losswire.client._calls.identity_arguments import IdentityFields
from losswire.client._calls.many import evaluate_many
from losswire.client._calls.plan import Progress
from losswire.client._calls.process_bound import ProcessBound
from losswire.client._calls.retry import RetryPolicy
from losswire.client._calls.session import open_session
from losswire.client._calls.summarize.request import (
    Candidates,
    SummaryFields,
    request_of,
    some_candidates,
)
from losswire.client._calls.summarize.source import readable
from losswire.client._calls.summarize.steps import summarize
from losswire.client._errors import LosswireError
from losswire.client._memory.evaluate import evaluate
from losswire.client._memory.region import Region
from losswire.client._memory.regions import Regions
from losswire.client._memory.summarize import StagingLender
from losswire.client._messages.arrays import ArrayInput
from losswire.client._messages.catalogue import LossInfo, ServerInfo
from losswire.client._messages.evaluation import Evaluation, EvaluationFields
from losswire.client._messages.resident import AsyncResidentTensor, StoredTensor
from losswire.client._messages.response import EvaluationResult
from losswire.client._messages.thresholds import DEFAULT_TIMEOUT_SECONDS
from losswire.client._runs.shells import AsyncRuns
from losswire.client._streams.async_stream import AsyncStream
from losswire.client._summaries.comparison import Comparison
from losswire.client._summaries.summary import Summary
from losswire.wire import OptionScalar


class AsyncClient(ProcessBound):
    """Evaluates losses on one or more Losswire servers, from asyncio.

    The same as `Client`, with awaits: shapes, dtypes, units and errors are described there. It
    belongs to the event loop of its first call, and may be used by any number of that loop's tasks
    at once. Arrays are converted on the loop. A process that forks while calls are under way sets
    `GRPC_ENABLE_FORK_SUPPORT=0` before it imports gRPC, which may end its children otherwise.

    Example:
        >>> async def main():
        ...     async with AsyncClient(address) as client:
        ...         batch = {"input": [1.0, 2.0], "target": [0.0, 0.0]}
        ...         return await client.evaluate("mse_loss", batch)
        >>> float(asyncio.run(main()).loss)
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
        """Prepare to connect; arguments and errors are those of `Client`."""
        self._session = open_session(
            target, timeout, retry, identity, wait_for_ready=wait_for_ready
        )
        self._regions = Regions(self._session)
        self._lender = StagingLender(self._regions)
        self._runner = AsyncRunner(self._session)
        self.runs = AsyncRuns(self._runner)
        """The runs that the server keeps."""

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
        """Evaluate one batch of any size; arguments and errors are those of `Client.evaluate`.

        Chunks and copies through shared memory are moved by another thread, which also calls
        `progress`. A call that is cancelled waits until that thread has stopped, so that nothing
        is written into `out` any more.

        Example:
            >>> batch = {"input": [1.0, 2.0], "target": [0.0, 0.0]}
            >>> result = await async_client.evaluate("mse_loss", batch, gradients=["input"])
            >>> result.gradients["input"].tolist()
            [1.0, 2.0]
        """
        evaluation = Evaluation(loss, inputs, options or {}, **fields)
        steps = evaluate(self._regions, evaluation, timeout, out, progress)
        return await self._runner.run(steps, timeout)

    async def evaluate_many(
        self,
        evaluations: Iterable[Evaluation],
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - as in evaluate
    ) -> list[EvaluationResult | LosswireError]:
        """Evaluate many small batches in one message; the contract of `Client.evaluate_many`.

        Example:
            >>> item = Evaluation("mse_loss", {"input": [3.0], "target": [1.0]})
            >>> [float(each.loss) for each in await async_client.evaluate_many([item, item])]
            [4.0, 4.0]
        """
        return await self._runner.run(evaluate_many(evaluations), timeout)

    async def summarize(
        self,
        loss: str,
        batches: Any,
        options: Mapping[str, OptionScalar] | None = None,
        *,
        resume_from: Summary | None = None,
        on_report: Callable[[Summary], object] | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - it is for each step, not for the whole
        **fields: Unpack[SummaryFields],
    ) -> Summary:
        """Summarize a loss over a data set; arguments and errors are those of `Client.summarize`.

        `batches` may be an asynchronous iterable, too, which is read on the loop. Everything else
        is read by another thread, which also calls `progress` and `on_report`. A call that is
        cancelled waits until that thread has stopped, which it does between two batches.

        Example:
            >>> batches = [{"input": [1.0, 3.0], "target": [0.0, 0.0]}]
            >>> (await async_client.summarize("mse_loss", batches)).mean
            5.0
        """
        request = request_of(loss, options, fields)
        source = readable(batches)
        steps = summarize(self._lender, Summary, request, source, resume_from, on_report=on_report)
        return await self._runner.run(steps, timeout)

    async def compare(
        self,
        loss: str,
        batches: Any,
        options: Mapping[str, OptionScalar] | None = None,
        *,
        candidates: Candidates,
        resume_from: Comparison | None = None,
        on_report: Callable[[Comparison], object] | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - as in summarize
        **fields: Unpack[SummaryFields],
    ) -> Comparison:
        """Compare candidates over the same rows; the contract of `Client.compare`.

        `batches` and threads are as in `summarize`.

        Example:
            >>> batch = {"old": [1.0, 3.0], "new": [1.0, 2.0], "target": [0.0, 0.0]}
            >>> candidates = {"new": {"input": "new"}, "old": {"input": "old"}}
            >>> compared = await async_client.compare("mse_loss", [batch], candidates=candidates)
            >>> compared.difference("new", "old").mean
            -2.5
        """
        request = request_of(loss, options, fields, some_candidates(candidates))
        source = readable(batches)
        steps = summarize(
            self._lender, Comparison, request, source, resume_from, on_report=on_report
        )
        return await self._runner.run(steps, timeout)

    async def put(
        self,
        array: ArrayInput,
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - as in evaluate
    ) -> AsyncResidentTensor:
        """Store an array on the server; the contract of `Client.put`. A thread hashes it.

        Example:
            >>> target = await async_client.put(np.zeros(2, np.float32))
            >>> batch = {"input": [1.0, 2.0], "target": target}
            >>> float((await async_client.evaluate("mse_loss", batch)).loss)
            2.5
        """
        make = partial(AsyncResidentTensor, client=self)
        return await self._runner.run(operations.store(array, make), timeout)

    async def region(
        self,
        nbytes: int,
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - as in evaluate
    ) -> Region:
        """Make memory that the server on this machine shares; the contract of `Client.region`.

        Example:
            >>> with await async_client.region(4096) as region:
            ...     region.nbytes
            4096
        """
        return await self._runner.run(self._regions.open(nbytes), timeout)

    async def stat(
        self,
        tensor: StoredTensor,
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - as in evaluate
    ) -> bool:
        """Return whether every server of the target holds a tensor; as `Client.stat`.

        Example:
            >>> await async_client.stat(await async_client.put([1.0, 2.0]))
            True
        """
        return await self._runner.run(operations.is_held_by_all(tensor), timeout)

    async def delete(
        self,
        tensor: StoredTensor,
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - as in evaluate
    ) -> bool:
        """Delete a tensor from all servers of the target; the contract of `Client.delete`.

        Example:
            >>> tensor = await async_client.put([1.0, 2.0])
            >>> await async_client.delete(tensor), await async_client.delete(tensor)
            (True, False)
        """
        return await self._runner.run(operations.delete_from_all(tensor), timeout)

    async def losses(
        self,
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - as in evaluate
    ) -> list[LossInfo]:
        """List every loss of the server, ordered by name; the contract of `Client.losses`.

        Example:
            >>> "mse_loss" in [each.name for each in await async_client.losses()]
            True
        """
        return await self._runner.run(operations.single(operations.list_losses()), timeout)

    async def server_info(
        self,
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - as in evaluate
    ) -> ServerInfo:
        """Return versions, device, limits and transports; as `Client.server_info`.

        Example:
            >>> (await async_client.server_info()).device
            'cpu'
        """
        return await self._runner.run(operations.single(operations.get_server_info()), timeout)

    def stream(
        self, *, timeout: float | None = None, max_in_flight: int | None = None
    ) -> AsyncStream:
        """Prepare a stream; `async with` opens it. The contract of `Client.stream`.

        Example:
            >>> item = Evaluation("mse_loss", {"input": [3.0], "target": [1.0]})
            >>> async with async_client.stream() as stream:
            ...     float((await (await stream.submit(item))).loss)
            4.0
        """
        return AsyncStream(self._runner, timeout, max_in_flight)

    async def close(self) -> None:
        """End calls under way and close the connections; closing again does nothing.

        Example:
            >>> own = AsyncClient(address)
            >>> await own.close()
        """
        self._session.closed = True
        self._regions.close()
        if not self._session.is_inherited:
            await self._runner.close()

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
