"""SummarizeLosses for callers in this process: tensors stay where they are, and nothing is sent.

A batch comes as the message that a call by gRPC has after its tensors' elements were cut out of
it, and these elements beside it: views of the caller's memory. All that follows is the same.
"""

import asyncio
import math
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from typing import Protocol

from google.rpc import status_pb2

from losswire.server.errors import DrainingError
from losswire.server.pipeline.decode import NOTHING_DETACHED, Detached
from losswire.server.rpc.request_id import new_request_id
from losswire.server.rpc.status import call_status, forget_frames
from losswire.server.rpc.summary_parts import read_part
from losswire.server.summaries.accumulate import Response
from losswire.server.summaries.call import Part, Summarizer


class Listener(Protocol):
    """Gets what happens in a call, on the event loop's thread, which it must not hold up."""

    def taken(self) -> None:
        """Hear that the next message was taken."""

    def answered(self, answer: bytes | Response) -> None:
        """Get an answer, which may be serialized."""

    def failed(self, code: int, status: bytes) -> None:
        """Hear that the call has failed: its canonical code, and a google.rpc.Status."""

    def ended(self) -> None:
        """Hear that the call has ended; after `failed` too. Its arrays are not read any more."""


class DirectSummary:
    """A call that is under way. Any thread may use it."""

    def __init__(self, loop: asyncio.AbstractEventLoop, listener: Listener) -> None:
        """Prepare; `DirectSummaries.open` begins it."""
        self._loop = loop
        self._listener = listener
        self._inbox: deque[tuple[bytes, Detached] | None] = deque()
        self._arrived = asyncio.Event()
        self._is_waiting = False
        self._is_cancelled = False
        self._task: asyncio.Task[None] | None = None

    def send(self, message: bytes, elements: Detached = NOTHING_DETACHED) -> None:
        """Add a message, and the elements that it is without, by the paths of their tensors."""
        self._inbox.append((message, elements))
        self._wake()

    def finish(self) -> None:
        """End the messages."""
        self._inbox.append(None)
        self._wake()

    def cancel(self) -> None:
        """End the call, unless it has ended."""
        self._is_cancelled = True
        with suppress(RuntimeError):  # the loop has ended, and the call with it
            self._loop.call_soon_threadsafe(self._cancel)

    def begin(self, summarizer: Summarizer, calls: set[asyncio.Task[None]]) -> None:
        """Begin, on the event loop; `calls` has the task as long as it runs."""
        self._task = asyncio.create_task(self._answer(summarizer))
        calls.add(self._task)
        self._task.add_done_callback(calls.discard)
        # One that is cancelled before it begins tells nobody.
        self._task.add_done_callback(lambda _: self._listener.ended())
        if self._is_cancelled:
            self._task.cancel()

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def _wake(self) -> None:
        # Whoever waits looks again after saying so: nothing is missed.
        if self._is_waiting:
            with suppress(RuntimeError):  # as above
                self._loop.call_soon_threadsafe(self._arrived.set)

    async def _answer(self, summarizer: Summarizer) -> None:
        request_id = new_request_id()
        try:
            # Closed at once when the call is cancelled, not when it is garbage-collected.
            async with aclosing(summarizer.summarize(self._parts(), math.inf)) as answers:
                async for answer in answers:
                    self._listener.answered(answer)
        except asyncio.CancelledError:
            # By the caller, who does not listen any more, or by the end of the server.
            self._fail(call_status(DrainingError(), request_id))
        except Exception as error:  # noqa: BLE001 (the table decides)
            status = call_status(error, request_id)
            forget_frames(error)
            self._fail(status)
        finally:
            self._inbox.clear()

    def _fail(self, status: status_pb2.Status) -> None:
        self._listener.failed(status.code, status.SerializeToString())

    async def _parts(self) -> AsyncGenerator[Part]:
        while (sent := await self._next()) is not None:
            self._listener.taken()
            yield await read_part(*sent)

    async def _next(self) -> tuple[bytes, Detached] | None:
        while not self._inbox:
            self._arrived.clear()
            self._is_waiting = True
            if not self._inbox:
                await self._arrived.wait()
            self._is_waiting = False
        return self._inbox.popleft()


class DirectSummaries:
    """The calls of this process."""

    def __init__(self, summarizer: Summarizer) -> None:
        """Begin without a call."""
        self._summarizer = summarizer
        self._calls: set[asyncio.Task[None]] = set()

    def open(self, loop: asyncio.AbstractEventLoop, listener: Listener) -> DirectSummary:
        """Begin a call on the server's loop, from any thread."""
        call = DirectSummary(loop, listener)
        try:
            loop.call_soon_threadsafe(call.begin, self._summarizer, self._calls)
        except RuntimeError:  # the loop has ended
            status = call_status(DrainingError(), new_request_id())
            listener.failed(status.code, status.SerializeToString())
            listener.ended()
        return call

    async def stop(self, seconds: float) -> None:
        """Wait for the calls to end, after some seconds by ending them."""
        if self._calls:
            _, late = await asyncio.wait(self._calls, timeout=seconds)
            for each in late:
                each.cancel()
            if late:
                await asyncio.wait(late)
