"""The event loop of a server, on which bulk transfers step behind everything else.

gRPC copies each message on the event loop, which takes about a millisecond for one of 4 MiB. A
small call passes the loop in several steps; each would wait behind a copy of every large call.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context, ContextVar
from typing import Any, Final, TypeVar, TypeVarTuple

from losswire.server import thresholds

ArgumentTs = TypeVarTuple("ArgumentTs")
ResultT = TypeVar("ResultT")

_in_bulk: Final[ContextVar[bool]] = ContextVar("losswire-in-bulk", default=False)


def step_behind() -> None:
    """Let this task, and those that it starts from now on, step behind others on the event loop."""
    _in_bulk.set(True)


class EventLoop(asyncio.SelectorEventLoop):
    """Runs the steps of bulk transfers one at a time, and other steps that are ready before each.

    A step of a bulk transfer runs at the latest after `thresholds.BULK_TURNS_PASSED` turns.
    """

    def __init__(self) -> None:
        super().__init__()
        self._bulk: deque[asyncio.Handle] = deque()
        """The steps of bulk transfers that are ready, the oldest first."""
        self._is_due = False
        """Whether `_take_turn` is about to be called."""
        self._others_came = False
        """Whether another step became ready since the last turn."""
        self._passed = 0
        """Turns in a row in which others went first."""

    def call_soon(
        self,
        callback: Callable[[*ArgumentTs], object],
        *args: *ArgumentTs,
        context: Context | None = None,
    ) -> asyncio.Handle:
        """Call a function soon, and one in the context of a bulk transfer after others."""
        # The steps of tasks come with their context, and make all the difference.
        if context is None or not context.get(_in_bulk, False):
            self._others_came = True
            return super().call_soon(callback, *args, context=context)
        handle = asyncio.Handle(callback, args, self, context)
        self._bulk.append(handle)
        if not self._is_due:
            self._is_due = True
            super().call_soon(self._take_turn)
        return handle

    def _take_turn(self) -> None:
        """Run the next step of a bulk transfer, unless others go first."""
        goes_first = self._others_came and self._passed < thresholds.BULK_TURNS_PASSED
        self._others_came = False
        try:
            if goes_first:
                self._passed += 1
            else:
                self._passed = 0
                handle = self._bulk.popleft()
                if not handle.cancelled():
                    handle._run()  # noqa: SLF001 (as the loop itself does)
        finally:
            self._is_due = bool(self._bulk)
            if self._is_due:
                super().call_soon(self._take_turn)


def run(main: Coroutine[Any, Any, ResultT]) -> ResultT:
    """Run a coroutine on a loop of its own, as `asyncio.run` does; returns its result."""
    with asyncio.Runner(loop_factory=EventLoop) as runner:
        return runner.run(main)
