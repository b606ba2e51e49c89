"""The newest runs of a store, whole, for those who look again and again."""

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Final

from losswire.server.errors import LosswireServerError
from losswire.server.runs.content import whole_run
from losswire.server.runs.keeper import RunKeeper
from losswire.server.runs.store import Filters, RunStore
from losswire.v1.run_service_pb2 import Run

_ALL: Final = Filters(loss="", name="", labels={})


class NewestRuns:
    """The newest runs of a tenant. Belongs to the event loop; runs never change once saved."""

    def __init__(
        self, keeper: RunKeeper, tenant: str, *, count: int, max_run_bytes: int, page_bytes: int
    ) -> None:
        """Read at most `count` runs; those of more than `max_run_bytes` are left out."""
        self._keeper = keeper
        self._tenant = tenant
        self._count = count
        self._max_run_bytes = max_run_bytes
        self._page_bytes = page_bytes
        self._known: dict[str, Run | None] = {}
        """The runs read last time, by their ids; None for one that is left out."""
        self._reading = asyncio.Lock()

    async def read(self) -> Sequence[Run]:
        """Return the newest runs, the newest first; none while the store does not answer."""
        async with self._reading:
            try:
                self._known = await self._keeper.run(partial(self._read, dict(self._known)))
            except LosswireServerError:
                return ()
        return [run for run in self._known.values() if run is not None]

    def _read(self, known: dict[str, Run | None], store: RunStore) -> dict[str, Run | None]:
        """Read those that are not known, in a thread of the store."""
        page = store.list(self._tenant, _ALL, None, self._count, self._page_bytes)
        ids = [Run.FromString(listing).run_id for listing in page.listings]
        return {each: known[each] if each in known else self._get(each, store) for each in ids}

    def _get(self, run_id: str, store: RunStore) -> Run | None:
        """Return one run; None when it is too large, or was deleted in the meantime."""
        try:
            if store.size(self._tenant, run_id) > self._max_run_bytes:
                return None
            return Run.FromString(whole_run(*store.get(self._tenant, run_id)))
        except LosswireServerError:
            return None
