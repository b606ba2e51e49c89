"""Tells what would go on for ever, such as an open stream, that the server drains."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Drain:
    """Whether the server drains, for those who must hear of it. Belongs to the event loop."""

    def __init__(self) -> None:
        """Begin as a server that serves."""
        self.has_begun = False
        self._told: set[Callable[[], object]] = set()

    def begin(self) -> None:
        """Notify everyone."""
        self.has_begun = True
        for each in tuple(self._told):
            each()

    @contextmanager
    def telling(self, end: Callable[[], object]) -> Iterator[None]:
        """Call `end` when the server drains while this context lasts; at once if it does."""
        if self.has_begun:
            end()
        self._told.add(end)
        try:
            yield
        finally:
            self._told.discard(end)
