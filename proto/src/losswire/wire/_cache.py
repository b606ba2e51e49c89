"""A bounded cache, for both sides: entries that are cheap to make again are kept up to a limit."""

import threading
from collections.abc import Callable, Hashable
from typing import Generic, NamedTuple, TypeVar

KeyT = TypeVar("KeyT", bound=Hashable)
ValueT = TypeVar("ValueT")


class _Cost(NamedTuple):
    entries: int
    nbytes: int


class BoundedCache(Generic[KeyT, ValueT]):
    """A mapping with a capacity, which evicts the values that were put first.

    `get` is a plain dictionary lookup: it takes no lock and does not count as a use, so that
    hits cost nothing. Any thread may use the cache.
    """

    get: Callable[[KeyT], ValueT | None]
    """Return the value of a key; None when the cache does not have it."""

    def __init__(self, max_entries: int, max_bytes: int | None = None) -> None:
        """Begin empty; `max_bytes` is None where only the number of entries is limited."""
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._values: dict[KeyT, ValueT] = {}
        self._costs: dict[KeyT, _Cost] = {}
        self._lock = threading.Lock()
        self.entries = 0
        """How many entries the cache has, at most `max_entries`."""
        self.nbytes = 0
        """How many bytes they take, at most `max_bytes`."""
        # The dictionary's own method, because one of ours would double the time of a hit.
        self.get = self._values.get

    def put(self, key: KeyT, value: ValueT, *, entries: int = 1, nbytes: int = 0) -> None:
        """Store a value, in the place of the key's older one.

        `entries` is the number of entries that it counts as. Evicts the oldest values
        until it fits; a value that exceeds the capacity by itself is not stored.
        """
        with self._lock:
            self._drop(key)
            if self._is_full(entries, nbytes, of_empty=True):
                return
            while self._is_full(entries, nbytes):
                self._drop(next(iter(self._values)))
            self._values[key] = value
            self._costs[key] = _Cost(entries, nbytes)
            self.entries += entries
            self.nbytes += nbytes

    def clear(self) -> None:
        """Evict everything."""
        with self._lock:
            self._values.clear()
            self._costs.clear()
            self.entries = self.nbytes = 0

    def _is_full(self, entries: int, nbytes: int, *, of_empty: bool = False) -> bool:
        """Check whether an entry does not fit, beside the others or into an empty cache."""
        if not of_empty:
            entries += self.entries
            nbytes += self.nbytes
        return entries > self._max_entries or (
            self._max_bytes is not None and nbytes > self._max_bytes
        )

    def _drop(self, key: KeyT) -> None:
        """Evict a key, if the cache has it."""
        if key in self._values:
            del self._values[key]
            cost = self._costs.pop(key)
            self.entries -= cost.entries
            self.nbytes -= cost.nbytes
