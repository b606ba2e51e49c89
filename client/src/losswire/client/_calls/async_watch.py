"""Ends a call on an event loop that does not move, and whose server is silent altogether."""

import asyncio
from collections.abc import Callable
from typing import Any, Protocol

from losswire.client._messages import thresholds


class Target(Protocol):
    """The target of a call."""

    @property
    def patience(self) -> float | None:
        """The seconds without an answer after which it is asked for its health; None: never."""

    def is_alive(self, seconds: float) -> bool:
        """Return whether it answers for its health within some seconds; blocks."""

    def note_answer(self) -> None:
        """Note that it has answered."""

    def note_silence(self) -> None:
        """Note that it does not even answer for its health."""


class AsyncWatch:
    """Cancels one call when it has not moved for a while and its server is silent."""

    def __init__(
        self,
        call: Any,
        target: Target,
        has_moved: Callable[[], bool] = lambda: False,
    ) -> None:
        """Begin; `has_moved` returns whether anything came since it was asked last."""
        self.found_silence = False
        """Whether the call was cancelled."""
        self._call = call
        self._target = target
        self._has_moved = has_moved
        self._timer: asyncio.TimerHandle | None = None
        self._question: asyncio.Task[None] | None = None
        self._wait()

    def stop(self) -> None:
        """End the watch."""
        if self._timer is not None:
            self._timer.cancel()
        if self._question is not None:
            self._question.cancel()

    def _wait(self) -> None:
        patience = self._target.patience
        if patience is not None:
            self._timer = asyncio.get_running_loop().call_later(patience, self._look)

    def _look(self) -> None:
        if self._has_moved():
            self._wait()
        else:
            self._question = asyncio.create_task(self._ask())

    async def _ask(self) -> None:
        if await asyncio.to_thread(self._target.is_alive, thresholds.HEALTH_SECONDS):
            self._target.note_answer()
            self._wait()
        elif self._target.patience is not None:
            self._target.note_silence()
            self.found_silence = True
            self._call.cancel()
