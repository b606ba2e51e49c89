"""Resident tensors: kept in memory under their hash until they are forgotten or displaced."""

import threading
import weakref
from collections import OrderedDict
from typing import Final

import numpy as np
import numpy.typing as npt

from losswire.server.catalogue.value_rules import Array
from losswire.server.errors import NotServedError, OverLimitError, OverloadedError
from losswire.wire import TensorSpec, read_elements

TENANT: Final = ""
"""Whose tensors they are, as long as callers have no names."""

Key = tuple[str, bytes]
"""A tenant, and the SHA-256 of a tensor's canonical form."""

_MOST_TENSORS: Final = 16_384
"""The most tensors, however small: each takes about a kilobyte besides its bytes."""

_RETRY_AFTER_MS: Final = 200
"""When to come back: when the evaluations that use what is in the way have ended."""


class Resident:
    """One tensor, whose bytes nobody changes any more."""

    def __init__(self, form: TensorSpec, data: npt.NDArray[np.uint8]) -> None:
        """Take the form and the bytes; MalformedTensorError when they do not go together."""
        data.flags.writeable = False
        self.form = form
        self._data = data
        # Of any number of loans at a time: the first array of the chain that each view has.
        self._root: weakref.ref[Array] | None = None
        self._view()

    def lend(self) -> Array:
        """Give the tensor, read-only; it is in use for as long as any view of it lives."""
        root = None if self._root is None else self._root()
        if root is None:
            root = self._view()
            while isinstance(root.base, np.ndarray):
                root = root.base
            self._root = weakref.ref(root)
        return root.view(self.form.wire_type.numpy).reshape(self.form.shape)

    @property
    def in_use(self) -> bool:
        """Whether somebody holds what was lent."""
        return self._root is not None and self._root() is not None

    def _view(self) -> Array:
        # A view refers to the first array of its chain. Behind a memoryview, that is
        # an array which nobody but the borrowers holds.
        return read_elements(self.form, self._data.data)


class ResidentStore:
    """The resident tensors of a server. May be used by any thread.

    The quota counts everything that is held: also a tensor that was forgotten or
    displaced while an evaluation uses it, until that has ended.
    """

    def __init__(self, quota_bytes: int, most_tensors: int = _MOST_TENSORS) -> None:
        """Take how many bytes may be held, of which 0 keeps nothing, and how many tensors."""
        self.quota_bytes = quota_bytes
        self._most = most_tensors
        self._lock = threading.Lock()
        self._stored: OrderedDict[Key, Resident] = OrderedDict()
        """The least recently used first."""
        self._leaving: list[Resident] = []
        """No longer stored, but in use when they left."""

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
        """Refuse a tensor that can never be stored: NotServedError or OverLimitError."""
        if not self.quota_bytes:
            message = "this server keeps no resident tensors (its quota is 0)"
            raise NotServedError(message)
        if size_bytes > self.quota_bytes:
            message = (
                f"the tensor takes {size_bytes} bytes; "
                f"the server's quota for resident tensors is {self.quota_bytes}"
            )
            raise OverLimitError(message)

    def add(self, key: Key, resident: Resident) -> bool:
        """Store a tensor as the most recently used; tells whether it was stored before.

        What was not used for longest makes room, unless it is in use. Raises what
        `check` raises, and OverloadedError when too much is in use.
        """
        size = resident.form.size_bytes
        self.check(size)
        with self._lock:
            if key in self._stored:
                self._stored.move_to_end(key)
                return True
            self._make_room(size)
            self._stored[key] = resident
            return False

    def lend(self, key: Key) -> Array | None:
        """Give a tensor to an evaluation, as the most recently used; None when it is not stored.

        Raises NotServedError when nothing is ever stored.
        """
        self.check(0)
        with self._lock:
            resident = self._stored.get(key)
            if resident is None:
                return None
            self._stored.move_to_end(key)
            return resident.lend()

    def form(self, key: Key) -> TensorSpec | None:
        """Tell the form of a tensor, without any effect; None when it is not stored."""
        with self._lock:
            resident = self._stored.get(key)
            return None if resident is None else resident.form

    def discard(self, key: Key) -> bool:
        """Forget a tensor; tells whether it was stored."""
        with self._lock:
            if key not in self._stored:
                return False
            self._drop(key)
            return True

    def _held(self) -> int:
        self._leaving = [each for each in self._leaving if each.in_use]
        held = [*self._stored.values(), *self._leaving]
        return sum(each.form.size_bytes for each in held)

    def _make_room(self, size: int) -> None:
        """Displace what was not used for longest; nothing when that would not be enough."""
        excess = self._held() + size - self.quota_bytes
        surplus = len(self._stored) + 1 - self._most
        leave = []
        for key, resident in self._stored.items():
            if excess <= 0 and surplus <= 0:
                break
            if not resident.in_use:
                leave.append(key)
                excess -= resident.form.size_bytes
                surplus -= 1
        if excess > 0 or surplus > 0:
            message = "the quota for resident tensors is taken by tensors in use"
            raise OverloadedError(message, _RETRY_AFTER_MS)
        for key in leave:
            self._drop(key)

    def _drop(self, key: Key) -> None:
        resident = self._stored.pop(key)
        if resident.in_use:
            self._leaving.append(resident)
