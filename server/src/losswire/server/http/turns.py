"""Lets few requests begin in each round of the event loop, so that others have their turn."""

import asyncio
from collections import deque

from losswire.server.http import limits


class Turns:
    """The requests of one server that are about to begin, the oldest first.

    What waits for the event loop otherwise, such as a health check, would wait for all of them, and
    again at each of its own steps.
    """

    def __init__(self) -> None:
        """Begin without any."""
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._left = limits.HTTP_CALLS_IN_A_ROUND
        self._is_counting = False

    async def wait(self) -> None:
        """Wait until the request may begin."""
        if not self._is_counting:
            self._is_counting = True
            asyncio.get_running_loop().call_soon(self._next_round)
        if self._left > 0:
            self._left -= 1
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        await turn

    def _next_round(self) -> None:
        """Start the next ones."""
        self._left = limits.HTTP_CALLS_IN_A_ROUND
        self._is_counting = bool(self._waiting)
        while self._waiting and self._left:
            turn = self._waiting.popleft()
            if not turn.done():
                self._left -= 1
                turn.set_result(None)
        if self._is_counting:
            asyncio.get_running_loop().call_soon(self._next_round)
