"""`client.runs`: the runs that a server keeps, for both clients."""

from collections.abc import AsyncIterator, Iterator, Mapping
from datetime import datetime
from typing import Any

from losswire.client._calls.async_runner import AsyncRunner
from losswire.client._calls.operations import single
from losswire.client._calls.process_bound import ProcessBound
from losswire.client._calls.runner import Runner
from losswire.client._runs import calls
from losswire.client._runs.run import Run


class Runs(ProcessBound):
    """The runs that a server keeps; an attribute of `Client`.

    A server that keeps none answers UnimplementedError, and one whose database does not answer
    UnavailableError, once the client's timeout is over.

    Example:
        >>> run = client.runs.save(summary, name="example")
        >>> [each.name for each in client.runs.list(name="example", limit=1)]
        ['example']
    """

    def __init__(self, runner: Runner) -> None:
        self._runner = runner

    def save(
        self,
        summary: Any,
        name: str = "",
        labels: Mapping[str, str] | None = None,
        *,
        run_id: str | None = None,
        started: datetime | None = None,
        ended: datetime | None = None,
        timeout: float | None = None,
    ) -> Run:
        """Keep a summary or a comparison, and return it as the server has it.

        `name` has at most 256 bytes, several runs may have the same; `labels` are at most 64 texts,
        keys of 1 to 128 bytes and values of at most 1024. `run_id` is 1 to 128 letters, digits,
        `.`, `_` and `-`, the first a letter or digit; None: a UUID is made. `started` and `ended`
        are times with a time zone. Runs never change: saving the same run again succeeds, so that
        a program may try again with the same `run_id`. `timeout` is in seconds.

        Raises TypeError and ValueError for arguments that cannot be sent; AlreadyExistsError when
        another run has the id, InvalidArgumentError (a limit), ResourceExhaustedError (too large,
        or the disk is full), UnimplementedError, UnavailableError.

        Example:
            >>> run = client.runs.save(summary, "nightly", {"model": "b"}, run_id="nightly-17")
            >>> run == client.runs.save(summary, "nightly", {"model": "b"}, run_id="nightly-17")
            True
        """
        operation = calls.save(summary, name, labels, run_id=run_id, started=started, ended=ended)
        return self._runner.run(single(operation), timeout)

    def get(self, run_id: str, *, timeout: float | None = None) -> Run:
        """Return a run with its summary. `timeout` is in seconds.

        Raises NotFoundError when there is none of this id, and as `save` does.

        Example:
            >>> saved = client.runs.save(summary, run_id="example-get")
            >>> client.runs.get("example-get").figures[0].mean
            3.0
        """
        return self._runner.run(single(calls.get(run_id)), timeout)

    def list(
        self,
        *,
        loss: str = "",
        name: str = "",
        labels: Mapping[str, str] | None = None,
        limit: int | None = None,
        timeout: float | None = None,
    ) -> Iterator[Run]:
        """Yield runs without their summaries, the one saved last first.

        Only those of the loss, of the name and with all of the labels that are given, and at most
        `limit` of them. Pages are fetched as they are needed, each within `timeout` seconds; runs
        that are saved meanwhile are not among them. Raises as `get` does.

        Example:
            >>> saved = client.runs.save(summary, labels={"model": "example"})
            >>> next(client.runs.list(labels={"model": "example"})) == saved
            False
            >>> next(client.runs.list(labels={"model": "example"})).run_id == saved.run_id
            True
        """
        return self._pages(calls.Listing(loss, name, labels, limit), timeout)

    def delete(self, run_id: str, *, timeout: float | None = None) -> bool:
        """Delete a run; returns whether there was one.

        After a failure that was tried again, False may also mean that the first try deleted it.
        `timeout` is in seconds. Raises as `get` does, but NotFoundError.

        Example:
            >>> saved = client.runs.save(summary)
            >>> client.runs.delete(saved.run_id), client.runs.delete(saved.run_id)
            (True, False)
        """
        return self._runner.run(single(calls.delete(run_id)), timeout)

    def _pages(self, listing: calls.Listing, timeout: float | None) -> Iterator[Run]:
        while not listing.done:
            yield from self._runner.run(single(listing.page()), timeout)


class AsyncRuns(ProcessBound):
    """The runs that a server keeps; an attribute of `AsyncClient`. The contract of `Runs`.

    Example:
        >>> run = await async_client.runs.save(summary, name="example")
        >>> [each.name async for each in async_client.runs.list(name="example", limit=1)]
        ['example']
    """

    def __init__(self, runner: AsyncRunner) -> None:
        self._runner = runner

    async def save(
        self,
        summary: Any,
        name: str = "",
        labels: Mapping[str, str] | None = None,
        *,
        run_id: str | None = None,
        started: datetime | None = None,
        ended: datetime | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - it covers all tries
    ) -> Run:
        """Keep a summary or a comparison; the contract of `Runs.save`.

        Example:
            >>> run = await async_client.runs.save(summary, "nightly", {"model": "b"})
            >>> run.labels["model"]
            'b'
        """
        operation = calls.save(summary, name, labels, run_id=run_id, started=started, ended=ended)
        return await self._runner.run(single(operation), timeout)

    async def get(
        self,
        run_id: str,
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - as in save
    ) -> Run:
        """Return a run with its summary; the contract of `Runs.get`.

        Example:
            >>> saved = await async_client.runs.save(summary)
            >>> (await async_client.runs.get(saved.run_id)).figures[0].mean
            3.0
        """
        return await self._runner.run(single(calls.get(run_id)), timeout)

    def list(
        self,
        *,
        loss: str = "",
        name: str = "",
        labels: Mapping[str, str] | None = None,
        limit: int | None = None,
        timeout: float | None = None,
    ) -> AsyncIterator[Run]:
        """Yield runs without their summaries; the contract of `Runs.list`.

        Example:
            >>> saved = await async_client.runs.save(summary, "example-async")
            >>> [each.name async for each in async_client.runs.list(name="example-async", limit=1)]
            ['example-async']
        """
        return self._pages(calls.Listing(loss, name, labels, limit), timeout)

    async def delete(
        self,
        run_id: str,
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - as in save
    ) -> bool:
        """Delete a run; the contract of `Runs.delete`.

        Example:
            >>> saved = await async_client.runs.save(summary)
            >>> await async_client.runs.delete(saved.run_id)
            True
        """
        return await self._runner.run(single(calls.delete(run_id)), timeout)

    async def _pages(
        self,
        listing: calls.Listing,
        timeout: float | None,  # noqa: ASYNC109 - as in save
    ) -> AsyncIterator[Run]:
        while not listing.done:
            for each in await self._runner.run(single(listing.page()), timeout):
                yield each
