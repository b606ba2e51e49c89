"""The order in which the states of parts are merged: the same, whichever part is done first.

Sums of floats depend on their order. So the parts are put in the order of their keys, neighbours
are merged in groups of `fan_in`, and the results again, until one is left.
"""

from collections.abc import Callable, Sequence
from typing import Final, Generic, TypeVar

StateT = TypeVar("StateT")

FAN_IN: Final = 16
"""How many states are merged at once by default."""


class MergeTree(Generic[StateT]):
    """Merges the states of parts as they come, in an order that depends on their number alone."""

    def __init__(
        self, parts: int, fan_in: int, merge: Callable[[Sequence[StateT]], StateT]
    ) -> None:
        """Wait for a number of parts; `merge` gets 2 to `fan_in` states in order.

        Raises ValueError for a `fan_in` below 2.
        """
        self._fan_in = check_fan_in(fan_in)
        self._merge = merge
        self._sizes = [parts]
        while self._sizes[-1] > 1:
            self._sizes.append(-(-self._sizes[-1] // fan_in))
        self._waiting: dict[tuple[int, int], dict[int, StateT | None]] = {}
        """What is known of each group that is not complete, by its level and number."""
        self.root: StateT | None = None
        """The state of all parts, once all are settled; None when no part has one."""

    def settle(self, part: int, state: StateT | None) -> None:
        """Add the state of a part, once for each part; None where a part has none."""
        for level, size in enumerate(self._sizes):
            if size == 1:
                break
            group, place = divmod(part, self._fan_in)
            known = self._waiting.setdefault((level, group), {})
            known[place] = state
            if len(known) < min(self._fan_in, size - group * self._fan_in):
                return
            del self._waiting[level, group]
            there = [each for _, each in sorted(known.items(), key=_place) if each is not None]
            part, state = group, self._joined(there)
        self.root = state

    def _joined(self, states: Sequence[StateT]) -> StateT | None:
        if len(states) > 1:
            return self._merge(states)
        return states[0] if states else None


def _place(item: tuple[int, object]) -> int:
    return item[0]


def check_fan_in(fan_in: int) -> int:
    """Return how many states are merged at once; ValueError unless it is an integer above 1."""
    if fan_in < 2:  # noqa: PLR2004 - one is nothing to merge
        raise ValueError(f"fan_in: expected an integer of at least 2, got {fan_in!r}")
    return fan_in
