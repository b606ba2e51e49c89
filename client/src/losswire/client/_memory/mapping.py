"""Memory that a server on this machine made and shares; see docs/protocol.md for the handshake."""

import mmap
import socket
import sys
import weakref
from collections.abc import Callable
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from losswire.client._calls.interrupt import Interrupt
from losswire.client._calls.lease import Lease
from losswire.client._errors import FailedPreconditionError
from losswire.client._memory.receive import receive_and_map
from losswire.client._messages import thresholds
from losswire.client._messages.evaluation import Evaluation
from losswire.client._messages.placed_array import MARK, PlacedArray, check_mark, write_mark
from losswire.client._messages.request import fill_evaluation, serialize
from losswire.v1 import loss_service_pb2, tensor_pb2, tensor_service_pb2
from losswire.wire import MAX_RANK, wire_type_of

Array = npt.NDArray[Any]

HAVE_REGIONS: Final = sys.platform == "linux" and sys.byteorder == "little"
"""Whether this machine supports regions: others have no sealed descriptors, or another byte order
than the wire."""

PAGE_BYTES: Final = mmap.PAGESIZE


def size_with_mark(nbytes: int) -> int:
    """Return the size of a region for some bytes, rounded up to pages, and the mark."""
    return -(-nbytes // PAGE_BYTES) * PAGE_BYTES + len(MARK)


_watched: Final[dict[int, "weakref.ref[Array]"]] = {}
"""References to arrays, by their own `id`: without them nobody would hear of the arrays' end."""


def _call_with_last(root: Array, function: Callable[[], object]) -> None:
    """Call a function with the last reference to an array, and then let go of it.

    Also where an exception of a signal handler takes the place of the call: unlike `finalize`, a
    weak reference drops its callback before it is called.
    """

    def call(reference: "weakref.ref[Array]") -> None:
        _watched.pop(id(reference), None)
        function()

    reference = weakref.ref(root, call)
    _watched[id(reference)] = reference


def _reason(error: Exception) -> str:
    """Say why a region could not be fetched, and what helps."""
    if isinstance(error, ConnectionResetError | BrokenPipeError | TimeoutError):
        return (
            f"it ended the connection ({error}), because it is busy or shuts down, which another "
            "try finds out, or because this process runs as another user"
        )
    return (
        f"{error}; it takes the same machine, the same user, and between containers a shared "
        "folder for the socket"
    )


class SharedMemory:
    """One region, fetched and mapped. The server keeps it for as long as any array in it lives."""

    def __init__(
        self,
        created: tensor_service_pb2.CreateRegionResponse,
        interrupt: Interrupt,
        seconds: float = thresholds.CONNECT_SECONDS,
        *,
        inherited: bool = False,
    ) -> None:
        """Fetch a region that was just created, within some seconds.

        `interrupt` ends the waiting of calls over its lease; `inherited` memory is mapped in forked
        children, too. Raises FailedPreconditionError when it cannot be had from here.
        """
        self.region_id = created.region_id
        self.nbytes: int = (created.size_bytes - len(MARK)) // PAGE_BYTES * PAGE_BYTES
        """Its size, in bytes, without the page that holds the mark."""
        lease = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            lease.settimeout(seconds)
            lease.connect(created.socket_path)
            lease.sendall(created.token)
            self._root: Array | None = receive_and_map(
                lease, created.size_bytes, inherited=inherited
            )
        except (OSError, ValueError) as error:
            lease.close()
            raise FailedPreconditionError(
                f"the server's shared memory cannot be had from here: {_reason(error)}",
                reason="REGION_UNREACHABLE",
            ) from None
        except BaseException:
            lease.close()
            raise
        write_mark(self._root, inherited=inherited)
        self._base: int = self._root.__array_interface__["data"][0]
        # The connection is the lease: without it the server does not know the region. So it
        # stays until the last array in the memory is gone.
        self.lease = Lease(lease, created.max_request_bytes, interrupt)
        _call_with_last(self._root, self.lease.close)

    def check(self) -> None:
        """Check that nobody has emptied it; FailedPreconditionError otherwise."""
        if self._root is not None:
            check_mark(self._root)

    def offset_of(self, array: Array) -> int | None:
        """Return the offset of an array in it; None when it is not in it, or not as on the wire."""
        if self._root is None or not array.size or not array.flags.c_contiguous:
            return None
        offset: int = array.__array_interface__["data"][0] - self._base
        if not 0 <= offset <= self.nbytes - array.nbytes or offset % array.itemsize:
            return None
        if wire_type_of(array.dtype) is None or array.ndim > MAX_RANK or not array.dtype.isnative:
            return None
        return offset

    def place(self, array: Array) -> PlacedArray | None:
        """Return an array with its place; None when it is not in this memory."""
        offset = self.offset_of(array)
        if offset is None:
            return None
        return PlacedArray(array, tensor_pb2.Region(region_id=self.region_id, offset=offset))

    def view(self, offset: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        """Return an array at an offset; ValueError when it does not fit or after `release`."""
        if self._root is None:
            raise ValueError("the region is closed")
        size = dtype.itemsize * int(np.prod(shape, dtype=object))
        if offset + size > self.nbytes:
            raise ValueError(f"{size} bytes do not fit into the {self.nbytes - offset} left")
        return self._root[offset : offset + size].view(dtype).reshape(shape)

    def has_root(self, root: Array) -> bool:
        """Return whether some bytes are this memory's own."""
        return self._root is root

    def barrier(self) -> bytes:
        """Return the request of an evaluation of one number, with its gradient in the last page."""
        one = np.zeros(1, np.float32)
        message = loss_service_pb2.EvaluateRequest()
        evaluation = Evaluation("mse_loss", {"input": one, "target": one}, gradients=["input"])
        fill_evaluation(message.evaluation, evaluation)
        place = tensor_pb2.Region(region_id=self.region_id, offset=self.nbytes)
        message.evaluation.gradient_destinations["input"].CopyFrom(place)
        return serialize(message)

    def release(self) -> None:
        """Release it: the server has it back when the last array in it is gone."""
        self._root = None
