"""The regions of a server: made on request, leased by a connection, freed when nobody holds them.

A region is *waiting* until its token is presented, *leased* while its connection lasts, *ended*
while evaluations still use it, *held* while a caller still has it mapped, and then freed. It
counts in the quota and in the memory budget through all of these, and its contents are the
caller's until it is freed.
"""

import asyncio
import hmac
import secrets
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from typing import Final

from losswire.server.errors import (
    InvalidRegionError,
    NotServedError,
    OverLimitError,
    OverloadedError,
)
from losswire.server.memory.regions.memory import PAGE_BYTES, Bytes, RegionMemory
from losswire.server.pipeline.admit import Admission

TOKEN_BYTES: Final = 32
TOKEN_SECONDS: Final = 2.0
"""How long a region waits for its caller, who has everything needed to come at once."""

_MOST_REGIONS: Final = 256
"""The most regions, however small: each takes two descriptors."""

_FIRST_LOOK_SECONDS: Final = 0.005
_LONGEST_LOOK_SECONDS: Final = 0.25
"""How soon the store looks whether an ended region is still held: soon, then less and less often,
but often enough for a caller's death to be seen within a second."""

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
    timer: asyncio.TimerHandle | None = field(default=None)
    """What happens to it by itself: its token expires, or the store looks who holds it."""

    def cancel_timer(self) -> None:
        """Drop the timer, which refers to the region."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None


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
        self._ended: set[Region] = set()
        """Regions without a lease whose memory is used or held, or is being freed."""
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
        count = len(self._regions) + len(self._making) + len(self._ended)
        if self.held_bytes + size > self._quota or count >= _MOST_REGIONS:
            message = "the quota for regions is taken by other regions"
            raise OverloadedError(message, _RETRY_AFTER_MS)
        held = ExitStack()
        held.enter_context(self._admission.hold(size))
        self.held_bytes += size
        held.callback(self._count_back, size)
        making = asyncio.create_task(self._make(size, held))
        self._making.add(making)
        making.add_done_callback(self._made)
        try:
            return await asyncio.shield(making)
        except asyncio.CancelledError:
            making.add_done_callback(self._end_made)  # nobody will ever fetch it
            raise

    def _count_back(self, size: int) -> None:
        self.held_bytes -= size

    def _made(self, making: "asyncio.Task[Region]") -> None:
        self._making.discard(making)
        if not making.cancelled():
            making.exception()  # told to whoever waits, if anybody still does

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
            # On the thread that let go last; the loop may be gone when the process ends.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(self._free_when_released, region)

        region.bytes = memory.bytes(when_unused)
        self._regions[region.region_id] = region
        region.timer = loop.call_later(TOKEN_SECONDS, self.end, region)
        return region

    def redeem(self, token: bytes) -> Region | None:
        """Give the region of a token, which is then used up; None when there is none."""
        found = None
        for region in self._regions.values():
            if region.token and hmac.compare_digest(region.token, token):
                found = region
        if found is not None:
            found.token = b""
            found.cancel_timer()
        return found

    def end(self, region: Region) -> None:
        """End the lease: nobody finds the region any more, and it is freed when unused."""
        if self._regions.pop(region.region_id, None) is None:
            return
        region.cancel_timer()
        region.memory.close_caller_descriptor()
        self._ended.add(region)
        region.bytes = None

    def map_region(self, region_id: int) -> Bytes | None:
        """Give a region's memory, from any thread; it stays for as long as any view of it."""
        region = self._regions.get(region_id)
        return None if region is None else region.bytes

    def retire(self) -> None:
        """Make no more, and leave what callers hold as it is: it may be their results."""
        self.socket_path = ""
        self._closed = True

    def close(self) -> None:
        """End all leases; what callers hold stays as it is."""
        self.retire()
        for region in tuple(self._regions.values()):
            self.end(region)
        for region in tuple(self._ended):
            if region.timer is not None:
                region.cancel_timer()
                self._forget(region)

    def _free_when_released(self, region: Region, delay: float = _FIRST_LOOK_SECONDS) -> None:
        """Free memory that the server does not use any more, as soon as no caller holds it."""
        region.timer = None
        if self._closed:
            self._forget(region)
            return
        loop = asyncio.get_running_loop()
        if region.memory.is_held:
            later = min(2 * delay, _LONGEST_LOOK_SECONDS)
            region.timer = loop.call_later(delay, self._free_when_released, region, later)
            return
        # Off the loop: freeing a gigabyte takes a tenth of a second.
        freeing = loop.run_in_executor(None, region.memory.empty)
        freeing.add_done_callback(lambda _: self._forget(region))

    def _forget(self, region: Region) -> None:
        """Stop counting a region."""
        self._ended.discard(region)
        region.memory.close()
        region.held.close()
