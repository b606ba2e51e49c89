"""Resident tensors: a cache of tensors by their hash, which evicts the least recently used."""

import threading
import weakref
from collections import OrderedDict
from typing import Final

import numpy as np
import numpy.typing as npt

from losswire.server import thresholds
from losswire.server.catalogue.value_rules import Array
from losswire.server.errors import NotServedError, OverLimitError, OverloadedError
from losswire.wire import TensorSpec, read_elements

TENANT: Final = ""
"""The owner of all tensors, until callers have names."""

Key = tuple[str, bytes]
"""A tenant, and the SHA-256 of a tensor's canonical form."""


class Resident:
    """One tensor, whose bytes no longer change."""

    def __init__(self, spec: TensorSpec, data: npt.NDArray[np.uint8]) -> None:
        """Store the spec and the bytes; MalformedTensorError when their sizes differ."""
        data.flags.writeable = False
        self.spec = spec
        self._data = data
        # The first array of the chain of views that every borrower shares.
        self._root: weakref.ref[Array] | None = None
        self._view()

    def lend(self) -> Array:
        """Return the tensor, read-only; it is in use while any view of it exists."""
        root = None if self._root is None else self._root()
        if root is None:
            root = self._view()
            while isinstance(root.base, np.ndarray):
                root = root.base
            self._root = weakref.ref(root)
        return root.view(self.spec.wire_type.numpy).reshape(self.spec.shape)

    @property
    def in_use(self) -> bool:
        """Whether a view that was lent still exists."""
        return self._root is not None and self._root() is not None

    def _view(self) -> Array:
        # A view refers to the first array of its chain. Behind a memoryview, that is
        # an array which only the borrowers hold.
        return read_elements(self.spec, self._data.data)


class ResidentStore:
    """The resident tensors of a server. May be used by any thread.

    The quota counts every tensor that is held, including one that was discarded or
    evicted while an evaluation uses it, until that evaluation has ended.
    """

    def __init__(
        self, quota_bytes: int, max_tensors: int = thresholds.MAX_RESIDENT_TENSORS
    ) -> None:
        """Begin empty; holds at most `quota_bytes`, where 0 stores nothing, and `max_tensors`."""
        self.quota_bytes = quota_bytes
        self._max_tensors = max_tensors
        self._lock = threading.Lock()
        self._stored: OrderedDict[Key, Resident] = OrderedDict()
        """The least recently used first."""
        self._leaving: list[Resident] = []
        """No longer stored, but in use when they were removed."""

    @property
    def held_bytes(self) -> int:
        """The bytes of all tensors that are stored or leaving."""
        with self._lock:
            return self._held()

    @property
    def is_empty(self) -> bool:
        """Whether nothing is stored."""
        return not self._stored

    def check(self, size_bytes: int) -> None:
        """Raise NotServedError or OverLimitError for a tensor that can never be stored."""
        if not self.quota_bytes:
            message = "this server keeps no resident tensors (its quota is 0)"
            raise NotServedError(message)
        if size_bytes > self.quota_bytes:
            message = (
                f"the tensor takes {size_bytes} bytes; "
                f"the server's quota for resident tensors is {self.quota_bytes} "
                "(--resident-quota-mib)"
            )
            raise OverLimitError(message)

    def add(self, key: Key, resident: Resident) -> bool:
        """Store a tensor as the most recently used; returns whether it was stored before.

        Evicts the least recently used tensors that are not in use. Raises the errors of
        `check`, and OverloadedError when too much is in use.
        """
        size = resident.spec.size_bytes
        self.check(size)
        with self._lock:
            if key in self._stored:
                self._stored.move_to_end(key)
                return True
            self._make_room(size)
            self._stored[key] = resident
            return False

    def lend(self, key: Key) -> Array | None:
        """Return a tensor and mark it as the most recently used; None when it is not stored.

        Raises NotServedError when the quota is 0.
        """
        self.check(0)
        with self._lock:
            resident = self._stored.get(key)
            if resident is None:
                return None
            self._stored.move_to_end(key)
            return resident.lend()

    def spec(self, key: Key) -> TensorSpec | None:
        """Return the spec of a tensor, without marking it as used; None when it is not stored."""
        with self._lock:
            resident = self._stored.get(key)
            return None if resident is None else resident.spec

    def in_use(self, key: Key) -> bool:
        """Return whether a tensor is stored and a view of it exists."""
        with self._lock:
            resident = self._stored.get(key)
            return resident is not None and resident.in_use

    def discard(self, key: Key) -> bool:
        """Remove a tensor; returns whether it was stored."""
        with self._lock:
            if key not in self._stored:
                return False
            self._drop(key)
            return True

    def _held(self) -> int:
        self._leaving = [each for each in self._leaving if each.in_use]
        held = [*self._stored.values(), *self._leaving]
        return sum(each.spec.size_bytes for each in held)

    def _make_room(self, size: int) -> None:
        """Evict the least recently used tensors; none when that would not be enough."""
        excess = self._held() + size - self.quota_bytes
        surplus = len(self._stored) + 1 - self._max_tensors
        evicted = []
        for key, resident in self._stored.items():
            if excess <= 0 and surplus <= 0:
                break
            if not resident.in_use:
                evicted.append(key)
                excess -= resident.spec.size_bytes
                surplus -= 1
        if excess > 0 or surplus > 0:
            message = (
                "the quota for resident tensors is taken by tensors in use: come back later, or "
                "serve with a larger --resident-quota-mib"
            )
            raise OverloadedError(message, thresholds.RESIDENT_RETRY_MS)
        for key in evicted:
            self._drop(key)

    def _drop(self, key: Key) -> None:
        resident = self._stored.pop(key)
        if resident.in_use:
            self._leaving.append(resident)
