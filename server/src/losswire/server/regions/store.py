"""The regions of a server: made on request, leased by a connection, freed when it ends."""

import asyncio
import hmac
import secrets
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from typing import Final

from losswire.server.admit import Admission
from losswire.server.errors import (
    InvalidRegionError,
    NotServedError,
    OverLimitError,
    OverloadedError,
)
from losswire.server.regions.memory import PAGE_BYTES, Bytes, RegionMemory

TOKEN_BYTES: Final = 32
TOKEN_SECONDS: Final = 2.0
"""How long a region waits for its caller, who has everything needed to come at once."""

_MOST_REGIONS: Final = 256
"""The most regions, however small: each takes two descriptors."""

_ID_BITS: Final = 63
_RETRY_AFTER_MS: Final = 1000
"""When to come back: regions are not freed as often as evaluations end."""


@dataclass(slots=True, eq=False)
class Region:
    """One region. Belongs to the event loop, except that any thread may borrow it."""

    region_id: int
    memory: RegionMemory
    token: bytes
    """The secret that fetches it, once; empty when that has happened."""
    held: ExitStack
    """What its memory holds of the budget."""
    bytes: Bytes | None = None
    """Its memory, for as long as the lease lasts."""
    expiry: asyncio.TimerHandle | None = field(default=None)


class RegionStore:
    """Makes regions, finds them by number, and counts them.

    The quota and the memory budget count a region until its last use has ended, which may be
    after its lease: an evaluation that is under way goes on.
    """

    def __init__(self, admission: Admission, quota_bytes: int) -> None:
        """Take the budget that regions count in, and how many bytes they may have together."""
        self._admission = admission
        self._quota = quota_bytes
        self._regions: dict[int, Region] = {}
        self._making: set[asyncio.Task[Region]] = set()
        self._freeing: set[asyncio.Future[None]] = set()
        self._closed = False
        self.socket_path = ""
        """Where regions are handed out; empty as long as they are not."""
        self.max_request_bytes = 0
        """How long a request over the connection of a lease may be."""
        self.held_bytes = 0
        """The bytes of all regions, also of those that are being freed."""

    async def create(self, size_bytes: int) -> Region:
        """Make a region that waits a moment for whoever presents its token.

        Raises NotServedError, InvalidRegionError, OverLimitError and OverloadedError.
        """
        if not self.socket_path:
            message = "this server shares no memory (region_socket in GetServerInfo is empty)"
            raise NotServedError(message)
        if not size_bytes:
            raise InvalidRegionError("size_bytes", "is 0; a region has at least one byte")
        size = -(-size_bytes // PAGE_BYTES) * PAGE_BYTES
        if size > self._quota:
            message = f"the region takes {size} bytes; the server's quota for all is {self._quota}"
            raise OverLimitError(message)
        count = len(self._regions) + len(self._making)
        if self.held_bytes + size > self._quota or count >= _MOST_REGIONS:
            message = "the quota for regions is taken by other regions"
            raise OverloadedError(message, _RETRY_AFTER_MS)
        held = ExitStack()
        held.enter_context(self._admission.hold(size))
        self.held_bytes += size
        held.callback(self._count_back, size)
        # A caller who leaves meanwhile leaves a region that nobody fetches, like any other.
        making = asyncio.create_task(self._make(size, held))
        self._making.add(making)
        making.add_done_callback(self._made)
        return await asyncio.shield(making)

    def _count_back(self, size: int) -> None:
        self.held_bytes -= size

    def _made(self, making: "asyncio.Task[Region]") -> None:
        self._making.discard(making)
        if not making.cancelled():
            making.exception()  # told to whoever waits, if anybody still does

    async def _make(self, size: int, held: ExitStack) -> Region:
        try:
            memory = await asyncio.to_thread(RegionMemory, size)
        except BaseException:
            held.close()
            raise
        region = Region(
            region_id=secrets.randbits(_ID_BITS) or 1,
            memory=memory,
            token=secrets.token_bytes(TOKEN_BYTES),
            held=held,
        )
        loop = asyncio.get_running_loop()

        def when_unused() -> None:
            # On the thread that let go last; the loop may be gone when the process ends.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(self._free, region)

        region.bytes = memory.bytes(when_unused)
        self._regions[region.region_id] = region
        region.expiry = loop.call_later(TOKEN_SECONDS, self.end, region)
        return region

    def claim(self, token: bytes) -> Region | None:
        """Give the region of a token, which is then used up; None when there is none."""
        found = None
        for region in self._regions.values():
            if region.token and hmac.compare_digest(region.token, token):
                found = region
        if found is not None:
            found.token = b""
            if found.expiry is not None:
                found.expiry.cancel()
        return found

    def end(self, region: Region) -> None:
        """End the lease: nobody finds the region any more, and it is freed when unused."""
        self._regions.pop(region.region_id, None)
        region.bytes = None

    def borrow(self, region_id: int) -> Bytes | None:
        """Give a region's memory, from any thread; it stays for as long as any view of it."""
        region = self._regions.get(region_id)
        return None if region is None else region.bytes

    def retire(self) -> None:
        """Make no more, and leave what callers hold as it is: it may be their results."""
        self.socket_path = ""
        self._closed = True

    def close(self) -> None:
        """End all leases."""
        self.retire()
        for region in tuple(self._regions.values()):
            self.end(region)

    def _free(self, region: Region) -> None:
        """Give the memory back, then its bytes to the budget."""
        if self._closed:
            region.memory.close_descriptor()
            region.held.close()
            return
        loop = asyncio.get_running_loop()
        # Off the loop: freeing a gigabyte takes a tenth of a second.
        freeing = loop.run_in_executor(None, region.memory.empty)
        self._freeing.add(freeing)

        def freed(done: "asyncio.Future[None]") -> None:
            self._freeing.discard(done)
            region.held.close()

        freeing.add_done_callback(freed)
