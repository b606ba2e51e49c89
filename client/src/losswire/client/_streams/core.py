"""One long-lived EvaluateStream that survives its connections; the core of both streams.

It runs on an event loop: the stream that blocks has one of its own, in a thread.
"""

import asyncio
import math
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Any

import grpc
import grpc.aio

from losswire.client._calls import operations
from losswire.client._calls.absence import silent_error
from losswire.client._calls.async_runner import AsyncRunner, closed_or_cancelled, is_cancelled
from losswire.client._calls.async_watch import AsyncWatch
from losswire.client._calls.retry import Rotation, delay_before_retry, random
from losswire.client._calls.session import Session, check_timeout
from losswire.client._errors import (
    DeadlineExceededError,
    LosswireError,
    ResourceExhaustedError,
    UnavailableError,
    closed_error,
    error_from_call,
    too_large_error,
)
from losswire.client._messages import thresholds
from losswire.client._messages.catalogue import Limits
from losswire.client._messages.resident import StoredTensor, is_missing
from losswire.client._messages.response import EvaluationResult, read_outcome
from losswire.client._streams.forks import ForkPause

Restore = Callable[[Sequence[StoredTensor], int, float], Awaitable[None]]
"""Stores tensors on the target of an index, where they are missing, within some seconds."""

Outcome = EvaluationResult | LosswireError


def check_max_in_flight(asked: int | None) -> int | None:
    """Return the number of items that may be unanswered; ValueError when it is less than 1."""
    if asked is not None and asked < 1:
        raise ValueError(f"max_in_flight: expected at least 1, got {asked}")
    return asked


def _ended() -> UnavailableError:
    return UnavailableError("the server ended the stream", retryable=True)


@dataclass(slots=True)
class _Item:
    """One evaluation without an answer."""

    request: bytes
    done: Callable[[Outcome], None]
    deadline: float
    """When it has to be answered, by the loop's clock."""
    tensors: Sequence[StoredTensor]
    """The resident tensors that it names."""
    restores: int = 0
    """How often they were missing."""
    is_restoring: bool = False
    """Whether they are being sent, so that the item has to wait."""

    @property
    def max_restores(self) -> int:
        """How often they may be missing."""
        return thresholds.MAX_RESTORES if self.tensors else 0


@dataclass(slots=True)
class _Place:
    """The target of one call."""

    rotation: Rotation
    target: int
    answers: int = 0
    """The number of answers of the call."""
    seen: int = 0
    """Their number when it was asked last."""

    @property
    def patience(self) -> float | None:
        """The seconds without an answer after which it is asked for its health; None: never."""
        return self.rotation.patience

    def is_alive(self, seconds: float) -> bool:
        """Return whether it answers for its health within some seconds; blocks."""
        return self.rotation.is_alive(self.target, seconds)

    def note_answer(self) -> None:
        """Note that it has answered."""
        self.rotation.note_answer(self.target)

    def note_silence(self) -> None:
        """Note that it does not even answer for its health."""
        self.rotation.note_silence(self.target)


class StreamCore:
    """Sends items over one call at a time until each has an outcome.

    Not safe across threads: everything happens on the loop that made it.
    """

    def __init__(
        self,
        session: Session,
        channels: Sequence[grpc.aio.Channel],
        timeout: float,
        limits: Limits,
        restore: Restore,
    ) -> None:
        """Start without a call; the first item makes one."""
        self.limits = limits
        """The server's limits."""
        self._session = session
        self._channels = channels
        self._timeout = timeout
        self._restore = restore
        self._restorers: set[asyncio.Task[None]] = set()
        self._items: dict[int, _Item] = {}
        """The items without an outcome, in the order of their deadlines."""
        self._loop = asyncio.get_running_loop()
        # One for all items: it is set again when it has run, not for each of them.
        self._timer: asyncio.TimerHandle | None = None
        self._unsent: deque[int] = deque()
        self._numbers = count()
        self._work = asyncio.Event()  # there is something to send, or nothing more to come
        self._idle = asyncio.Event()  # there is nothing to wait for
        self._idle.set()
        self._closing = False
        self._failures = 0  # since the last answer
        self._broken_by: LosswireError | None = None
        self._began = 0.0
        """When the last call began."""
        self._forks = ForkPause()
        self._driver = asyncio.create_task(self._drive())
        # Items without an answer fail then: none can come any more.
        self._driver.add_done_callback(lambda _: self._finish())

    def in_flight(self, asked: int | None) -> int:
        """Return how many items may be unanswered: no more than the server takes."""
        allowed = max(1, self.limits.max_in_flight_per_stream)
        return allowed if asked is None else min(asked, allowed)

    def next_number(self) -> int:
        """Return a number that no other item has; the one method for any thread."""
        return next(self._numbers)

    def add(
        self,
        number: int,
        request: bytes,
        done: Callable[[Outcome], None],
        tensors: Sequence[StoredTensor] = (),
    ) -> None:
        """Add an item with its resident tensors; the callback `done` gets its outcome, once."""
        if len(request) > self.limits.max_message_bytes:
            # If it were sent, it would end the call, and so fail all other items.
            limit = f"the server takes {self.limits.max_message_bytes} bytes in one message"
            done(too_large_error(limit, len(request)))
            return
        if self._driver.done():
            done(closed_error())
            return
        deadline = self._loop.time() + self._timeout
        if self._timer is None:
            self._timer = self._loop.call_at(deadline, self._expire)
        self._items[number] = _Item(request, done, deadline, tensors)
        self._unsent.append(number)
        self._idle.clear()
        self._work.set()

    async def close(self) -> None:
        """Wait for the outcomes of all items, then end the call."""
        self._closing = True
        self._work.set()
        try:
            await self._idle.wait()
            # The server ends a call that has no more items; one that hangs is left.
            await asyncio.wait([self._driver], timeout=thresholds.STREAM_CLOSE_SECONDS)
        finally:
            await self.abort()

    async def abort(self) -> None:
        """End the call; items without an answer get CancelledError."""
        self._driver.cancel()
        for restorer in self._restorers:
            restorer.cancel()
        await asyncio.wait([self._driver, *self._restorers])

    def _settle(self, number: int, outcome: Outcome) -> None:
        item = self._items.pop(number, None)
        if item is None:  # it expired before
            return
        item.done(outcome)
        if self._closing:
            self._work.set()
        if not self._items:
            self._idle.set()

    def _settle_all(self, error: LosswireError) -> None:
        for number in tuple(self._items):
            self._settle(number, error)

    def _finish(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._broken_by = None
        self._settle_all(closed_error())

    def _expire(self) -> None:
        """Fail items that are overdue, and set the timer for the next."""
        self._timer = None
        now = self._loop.time()
        why = f"; the connection is down: {self._broken_by.message}" if self._broken_by else ""
        while self._items:
            number, item = next(iter(self._items.items()))
            if item.deadline > now:
                self._timer = self._loop.call_at(item.deadline, self._expire)
                return
            message = f"no answer within {self._timeout:g} s{why}"
            self._settle(number, DeadlineExceededError(message))

    async def _drive(self) -> None:
        """Keep a call open for as long as there is something to send or to wait for."""
        while not self._session.closed:
            await self._work.wait()
            if self._closing and not self._items:
                return
            await self._forks.wait()
            target = await self._next_target()
            error = await self._one_call(target)
            if self._forks.was_cut:
                self._resend()
                continue
            if error.retryable and not isinstance(error, ResourceExhaustedError):
                self._session.rotation.set_aside(target)
            await self._wait_after(error)
            self._resend()

    async def _next_target(self) -> int:
        """Return the index of a target that is not known to be silent."""
        rotation = self._session.rotation
        target = rotation.take()
        for _ in self._session.targets:
            if not rotation.is_doubtful(target):
                break
            if await asyncio.to_thread(rotation.is_alive, target, thresholds.RECHECK_SECONDS):
                rotation.note_answer(target)
                break
            rotation.note_silence(target)
            target = rotation.take()
        return target

    async def _wait_after(self, error: LosswireError) -> None:
        """Wait before the next call, or fail all items when there is to be none for them."""
        if self._session.identity.is_renewed(error, self._began):
            return
        self._failures += 1
        # Items expire by themselves; the next call may always be tried for later ones.
        delay = delay_before_retry(self._session.retry, self._failures, error, math.inf, random)
        if delay is None:
            self._failures = 0
            self._settle_all(error)
        elif self._items or not self._closing:
            self._broken_by = error
            await asyncio.sleep(delay)

    def _resend(self) -> None:
        """Prepare the next call: all items without an outcome are sent again."""
        self._unsent = deque(
            number for number, item in self._items.items() if not item.is_restoring
        )
        if self._unsent or self._closing:
            self._work.set()
        else:
            self._work.clear()

    def _take(self, number: int, outcome: Outcome, target: int) -> None:
        """Settle an item, unless its missing resident tensors can be sent again."""
        item = self._items.get(number)
        if item is None or not is_missing(outcome) or item.restores == item.max_restores:
            self._settle(number, outcome)
        elif not item.is_restoring:
            item.restores += 1
            item.is_restoring = True
            restorer = asyncio.create_task(self._send_missing(number, item, target))
            self._restorers.add(restorer)
            restorer.add_done_callback(self._restorers.discard)

    async def _send_missing(self, number: int, item: _Item, target: int) -> None:
        """Send the resident tensors of an item, then the item again."""
        left = item.deadline - self._loop.time()
        try:
            if left > 0 and not self._session.closed:
                await self._restore(item.tensors, target, left)
        except LosswireError as error:
            self._settle(number, error)
        finally:
            item.is_restoring = False
            if number in self._items:
                self._unsent.append(number)
            self._work.set()

    async def _one_call(self, target: int) -> LosswireError:
        """Run one call to its end; returns the error that ended it."""
        self._began = time.monotonic()
        method, channel = operations.EVALUATE_STREAM, self._channels[target]
        found_silence = False
        try:
            # Answers are bytes: grpc.aio would log the exceptions of a parser, and go on.
            begin: Any = channel.stream_stream(method.path, None, None)
            call = begin(metadata=self._session.metadata)
            self._forks.watch(call)
            place = _Place(self._session.rotation, target)
            sender = asyncio.create_task(self._send(call))
            watch = AsyncWatch(call, place, partial(self._has_moved, place))
            try:
                while (answer := await call.read()) is not grpc.aio.EOF:
                    self._failures = 0
                    self._broken_by = None
                    place.answers += 1
                    message = method.parsed(answer)
                    self._take(message.id, read_outcome(message.outcome, "stream"), target)
            finally:
                found_silence = watch.found_silence
                watch.stop()
                call.cancel()
                self._forks.forget()
                sender.cancel()
                await asyncio.wait([sender])
        except LosswireError as error:
            return error
        except grpc.RpcError as failure:
            return error_from_call(failure)
        except asyncio.CancelledError:
            is_ours = not self._session.closed and not is_cancelled()
            if not is_ours or not (self._forks.was_cut or found_silence):
                return closed_or_cancelled(self._session)
            return silent_error(self._session.targets[target]) if found_silence else _ended()
        except grpc.aio.UsageError:
            return closed_error()
        return _ended()

    def _has_moved(self, place: "_Place") -> bool:
        """Return whether a call had an answer since it was asked last, or none to wait for."""
        seen, place.seen = place.seen, place.answers
        return place.answers != seen or not self._items

    async def _send(self, call: Any) -> None:
        """Write items as they come; a failed write just ends it: the reader gets the error."""
        try:
            while True:
                await self._work.wait()
                while self._unsent:
                    item = self._items.get(self._unsent.popleft())
                    if item is not None:
                        await call.write(item.request)
                # An item with resident tensors may have to be sent again on this call.
                if self._closing and not any(item.tensors for item in self._items.values()):
                    await call.done_writing()
                    return
                self._work.clear()
        except (grpc.RpcError, grpc.aio.UsageError, asyncio.InvalidStateError):
            return


async def open_core(
    runner: AsyncRunner,
    timeout: float | None,  # noqa: ASYNC109 - of each evaluation
) -> StreamCore:
    """Make a core on the running loop; `timeout` is each evaluation's, in seconds."""
    seconds = check_timeout(timeout, runner.session.timeout)
    info = await runner.run(operations.single(operations.get_server_info()), None)
    return StreamCore(runner.session, runner.channels(), seconds, info.limits, runner.restore)
