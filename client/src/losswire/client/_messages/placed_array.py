"""Arrays in memory that a server shares, and the mark that shows whether their contents are there.

A mark behind the caller's part of each region disappears with its contents. So the mark shows
whether somebody has emptied a region, and no number is returned that came from emptied memory.
"""

import os
import weakref
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from losswire.client._errors import FailedPreconditionError, LosswireError
from losswire.v1 import tensor_pb2
from losswire.wire import wire_type_of

Array = npt.NDArray[Any]

MARK: Final = b"losswire"
"""The last bytes of a region that nobody has emptied."""

_GONE: Final = "REGION_CONTENTS_GONE"
_MISSING: Final = ("MISSING_REGION", _GONE)

_PENDING: Final = "GRADIENT_PENDING"

_roots: "list[_Root]" = []
"""All shared memory that holds arrays of this process, or of the one that it was forked from."""

_unsettled: "list[weakref.ref[Array]]" = []
"""Shared memory that a server may still write into: its call ended here without an answer."""


ALIGNMENT: Final = 64
"""The alignment of arrays in shared memory, in bytes: a cache line."""


def aligned(size: int) -> int:
    """Round up to where the next array may begin."""
    return -(-size // ALIGNMENT) * ALIGNMENT


class _Root(weakref.ref[Array]):
    """A reference to the bytes of a region."""

    __slots__ = ("only_in",)

    only_in: int | None
    """The process that has it mapped; None: those that are forked from it, too."""


def _mapped() -> Iterator[Array]:
    """Yield all shared memory that is mapped in this process."""
    process = os.getpid()
    for reference in tuple(_roots):
        root = reference()
        if root is not None and reference.only_in in (None, process):
            yield root


@dataclass(frozen=True, slots=True, eq=False)
class PlacedArray:
    """An array in memory that a server shares."""

    array: Array
    region: tensor_pb2.Region
    """The region and the offset, as the server knows them."""

    def reference(self) -> tensor_pb2.Tensor:
        """Return the tensor message that refers to it by region and offset."""
        wire_type = wire_type_of(self.array.dtype)
        if wire_type is None:
            raise TypeError(f"dtype {self.array.dtype} cannot be sent")
        return tensor_pb2.Tensor(
            data_type=wire_type.data_type, shape=self.array.shape, region=self.region
        )


def is_missing_region(error: LosswireError) -> bool:
    """Return whether an evaluation failed because a server does not have a region (any more)."""
    return error.reason in _MISSING


def write_mark(root: Array, *, inherited: bool) -> None:
    """Write the mark at the end of a region's bytes, and check it from now on.

    `inherited` memory is mapped in forked children, too.
    """
    root[-len(MARK) :] = np.frombuffer(MARK, np.uint8)
    reference = _Root(root, _roots.remove)
    reference.only_in = None if inherited else os.getpid()
    _roots.append(reference)


def check_mark(root: Array) -> None:
    """Check that nobody has emptied a region; FailedPreconditionError otherwise."""
    if root[-len(MARK) :].tobytes() != MARK:
        raise FailedPreconditionError(
            "an array lies in shared memory whose contents are gone: something emptied it after "
            "the server ended the lease; make a new region and fill it again",
            reason=_GONE,
        )


def check_arrays(arrays: Iterable[object]) -> None:
    """Check that arrays which were read or written are not in shared memory that was emptied.

    No server of this version empties memory that a process still has mapped. Another version may,
    and so may another process with the descriptor. Raises FailedPreconditionError.
    """
    for root in _mapped():
        if root[-len(MARK) :].tobytes() == MARK:
            continue
        for array in arrays:
            if hasattr(array, "__array__") and np.may_share_memory(np.asarray(array), root):
                check_mark(root)


def mark_unsettled(arrays: Iterable[object]) -> None:
    """Note that a call was given up whose gradients may still be written into some arrays."""
    for root in _mapped():
        if any(each() is root for each in _unsettled):
            continue
        if _overlap(arrays, root):
            _unsettled.append(weakref.ref(root, _unsettled.remove))


def find_unsettled(arrays: Iterable[object]) -> list[Array]:
    """Return the shared memory under some arrays that a given-up call may still write into."""
    if not _unsettled:
        return []
    roots = [root for reference in tuple(_unsettled) if (root := reference()) is not None]
    return [root for root in roots if _overlap(arrays, root)]


def mark_settled(root: Array) -> None:
    """Note that nothing will be written into some memory any more."""
    _unsettled[:] = [each for each in _unsettled if each() is not root]


def pending_error() -> FailedPreconditionError:
    """Return the error of an `out` that a given-up call may still write into."""
    return FailedPreconditionError(
        "an evaluation that was given up may still write its gradient into an array of `out`, and "
        "the region it is in is closed or another client's; use another array",
        reason=_PENDING,
    )


def _overlap(arrays: Iterable[object], root: Array) -> bool:
    return any(isinstance(each, np.ndarray) and np.may_share_memory(each, root) for each in arrays)
