"""The regions of a server: created on request, leased by a connection, freed when unused.

A region is *waiting* until its token is presented, *leased* while its connection lasts, *ended*
while evaluations still use it, *held* while a caller still has it mapped, and then freed. It
counts in the quota and in the memory budget in all of these states, and its contents are the
caller's until it is freed.
"""

import asyncio
import hmac
import secrets
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from typing import Final

from losswire.server import thresholds
from losswire.server.errors import (
    InvalidRegionError,
    NotServedError,
    OverLimitError,
    OverloadedError,
)
from losswire.server.memory.budget import Budget
from losswire.server.memory.regions.memory import PAGE_BYTES, Bytes, RegionMemory

TOKEN_BYTES: Final = 32
_ID_BITS: Final = 63


@dataclass(slots=True, eq=False)
class Region:
    """One region. Belongs to the event loop; any thread may read its memory."""

    region_id: int
    memory: RegionMemory
    token: bytes
    """The secret that can be exchanged for it, once; empty after that."""
    held: ExitStack
    """The reservation of its memory in the budget and in the quota."""
    bytes: Bytes | None = None
    """Its memory, until the lease ends."""
    timer: asyncio.TimerHandle | None = field(default=None)
    """The timer that ends it when its token expires, or that checks whether it is still mapped."""

    def cancel_timer(self) -> None:
        """Cancel and drop the timer, which refers to the region."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None


class RegionStore:
    """Creates regions, finds them by id, and counts their bytes.

    The quota and the memory budget count a region until its last use has ended, which may be
    after its lease: an evaluation that has begun continues.
    """

    def __init__(self, budget: Budget, quota_bytes: int) -> None:
        """Begin empty; all regions together have `quota_bytes` at most, which the budget counts."""
        self._budget = budget
        self._quota = quota_bytes
        self._regions: dict[int, Region] = {}
        self._making: set[asyncio.Task[Region]] = set()
        self._ended: set[Region] = set()
        """Regions without a lease whose memory is used or mapped, or is being freed."""
        self._closed = False
        self.socket_path = ""
        """The socket where regions are leased; empty while they are not."""
        self.max_request_bytes = 0
        """The longest request over the connection of a lease, in bytes."""
        self.held_bytes = 0
        """The bytes of all regions, including those that are being freed."""

    @property
    def leased(self) -> int:
        """The number of regions that are waiting or leased."""
        return len(self._regions)

    async def create(self, size_bytes: int) -> Region:
        """Create a region that waits a moment for the caller with its token.

        Raises NotServedError, InvalidRegionError, OverLimitError and OverloadedError.
        """
        if not self.socket_path:
            message = "this server shares no memory (region_socket in GetServerInfo is empty)"
            raise NotServedError(message)
        if not size_bytes:
            raise InvalidRegionError("size_bytes", "is 0; a region has at least one byte")
        size = -(-size_bytes // PAGE_BYTES) * PAGE_BYTES
        if size > self._quota:
            message = (
                f"the region takes {size} bytes; "
                f"the server's quota for all is {self._quota} (--region-quota-mib)"
            )
            raise OverLimitError(message)
        count = self.leased + len(self._making) + len(self._ended)
        if self.held_bytes + size > self._quota or count >= thresholds.MAX_REGIONS:
            message = (
                "the quota for regions is taken by other regions: close some, or serve with a "
                "larger --region-quota-mib"
            )
            raise OverloadedError(message, thresholds.REGION_RETRY_MS)
        held = ExitStack()
        held.enter_context(self._budget.hold(size))
        self.held_bytes += size
        held.callback(self._count_back, size)
        making = asyncio.create_task(self._make(size, held))
        self._making.add(making)
        making.add_done_callback(self._made)
        try:
            return await asyncio.shield(making)
        except asyncio.CancelledError:
            making.add_done_callback(self._end_made)  # no caller will ever present its token
            raise

    def _count_back(self, size: int) -> None:
        self.held_bytes -= size

    def _made(self, making: "asyncio.Task[Region]") -> None:
        self._making.discard(making)
        if not making.cancelled():
            making.exception()  # `create` raises it, unless it was cancelled

    def _end_made(self, making: "asyncio.Task[Region]") -> None:
        if not making.cancelled() and making.exception() is None:
            self.end(making.result())

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
            # Runs on the thread of the last user; the loop may be closed when the process ends.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(self._free_when_released, region)

        region.bytes = memory.bytes(when_unused)
        self._regions[region.region_id] = region
        region.timer = loop.call_later(thresholds.TOKEN_SECONDS, self.end, region)
        return region

    def redeem(self, token: bytes) -> Region | None:
        """Return the region of a token, which cannot be used again; None when there is none."""
        found = None
        for region in self._regions.values():
            if region.token and hmac.compare_digest(region.token, token):
                found = region
        if found is not None:
            found.token = b""
            found.cancel_timer()
        return found

    def end(self, region: Region) -> None:
        """End the lease: no evaluation finds the region any more, and it is freed when unused."""
        if self._regions.pop(region.region_id, None) is None:
            return
        region.cancel_timer()
        region.memory.close_caller_descriptor()
        self._ended.add(region)
        region.bytes = None

    def map_region(self, region_id: int) -> Bytes | None:
        """Return a region's memory, on any thread; it stays mapped while any view of it exists."""
        region = self._regions.get(region_id)
        return None if region is None else region.bytes

    def retire(self) -> None:
        """Create no more regions; mapped ones keep their contents, which may be results."""
        self.socket_path = ""
        self._closed = True

    def close(self) -> None:
        """End all leases; regions that callers have mapped keep their contents."""
        self.retire()
        for region in tuple(self._regions.values()):
            self.end(region)
        for region in tuple(self._ended):
            if region.timer is not None:
                region.cancel_timer()
                self._forget(region)

    def _free_when_released(self, region: Region, delay: float | None = None) -> None:
        """Free memory that the server no longer uses, as soon as no caller has it mapped.

        `delay` is the time until the next check, in seconds.
        """
        if delay is None:
            delay = thresholds.FIRST_RELEASE_CHECK_SECONDS
        region.timer = None
        if self._closed:
            self._forget(region)
            return
        loop = asyncio.get_running_loop()
        if region.memory.is_held:
            later = min(2 * delay, thresholds.MAX_RELEASE_CHECK_SECONDS)
            region.timer = loop.call_later(delay, self._free_when_released, region, later)
            return
        # Off the loop: freeing a gigabyte takes a tenth of a second.
        freeing = loop.run_in_executor(None, region.memory.empty)
        freeing.add_done_callback(lambda _: self._forget(region))

    def _forget(self, region: Region) -> None:
        """Stop counting a region, and close its descriptors."""
        self._ended.discard(region)
        region.memory.close()
        region.held.close()
