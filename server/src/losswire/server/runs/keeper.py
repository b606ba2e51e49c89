"""The store of runs of one server: opened at its start, or switched off with a warning."""

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from typing import Final, TypeVar

from losswire.server.errors import NotServedError
from losswire.server.runs.address import StoreAddress
from losswire.server.runs.store import RunStore, StoreOpenError
from losswire.server.runs.threads import StoreThreads

_log = logging.getLogger(__name__)

_R = TypeVar("_R")

_SWITCHED_OFF: Final = (
    "this server keeps no runs: it was started with `--store none`, or its log says why; "
    "`losswire-server serve --store FOLDER` keeps them"
)


class RunKeeper:
    """The runs of one server. Belongs to the event loop, which never waits for the database."""

    def __init__(self, address: StoreAddress | None) -> None:
        """Prepare to keep runs at an address, or none."""
        self._store = RunStore(address) if address else None
        self._threads = StoreThreads()

    async def start(self) -> None:
        """Set the database up.

        A file that cannot be used switches runs off; a database server that does not answer is
        tried again with each call. Both are warnings.
        """
        store = self._store
        if store is None:
            return
        try:
            await asyncio.to_thread(store.open)
        except StoreOpenError as error:
            if store.address.file is None:
                _log.warning("runs are not kept yet, %s: %s", store.address.text, error)
            else:
                _log.warning("no runs are kept, %s: %s", store.address.text, error)
                self._store = None
                store.close()
        else:
            _log.info("runs are kept in %s", store.address.text)

    async def run(self, task: Callable[[RunStore], _R]) -> _R:
        """Call a function with the store, in a thread.

        Raises NotServedError when there is none, OverloadedError when too many calls wait.
        """
        if self._store is None:
            raise NotServedError(_SWITCHED_OFF)
        return await self._threads.run(partial(task, self._store))

    async def stop(self) -> None:
        """Let calls that have begun finish, and close the connections."""
        await self._threads.close()
        if self._store is not None:
            await asyncio.to_thread(self._store.close)
