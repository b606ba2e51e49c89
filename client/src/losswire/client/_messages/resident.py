"""Handles of tensors that stay on the servers."""

import sys
from collections.abc import Iterable, Iterator
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from losswire.client._errors import DataLossError, FailedPreconditionError, LosswireError
from losswire.client._messages import thresholds
from losswire.v1 import tensor_pb2, tensor_service_pb2
from losswire.wire import DATA_TYPES, MAX_RANK, begin_identity, wire_type_of

_MISSING = "MISSING_RESIDENT_TENSOR"


class StoredTensor:
    """An array that servers hold under its hash. Made by `put`; does no I/O."""

    __slots__ = ("_array", "_wire_type", "id")

    def __init__(self, array: npt.NDArray[Any]) -> None:
        wire_type = wire_type_of(array.dtype)
        if wire_type is None:
            known = ", ".join(each.name for each in DATA_TYPES.values())
            raise TypeError(f"array: dtype {array.dtype} cannot be sent; the wire has {known}")
        if array.ndim > MAX_RANK:
            raise ValueError(f"array: {array.ndim} axes; at most {MAX_RANK} can be sent")
        self._array = array
        self._wire_type = wire_type
        self.id: bytes = self._identity()
        """The SHA-256 of its canonical form, which every server computes for it."""

    @property
    def array(self) -> npt.NDArray[Any]:
        """The caller's array."""
        return self._array

    @property
    def dtype(self) -> np.dtype[Any]:
        """The element type."""
        return self._wire_type.numpy

    @property
    def shape(self) -> tuple[int, ...]:
        """The length of each axis."""
        return self._array.shape

    @property
    def nbytes(self) -> int:
        """Its size, in bytes."""
        return self._array.nbytes

    def reference(self) -> tensor_pb2.Tensor:
        """Return the tensor message that refers to it by its hash."""
        return tensor_pb2.Tensor(
            data_type=self._wire_type.data_type,
            shape=self.shape,
            resident=tensor_pb2.TensorId(sha256=self.id),
        )

    def parts(self) -> Iterator[bytes]:
        """Yield the messages that store it, one by one."""
        header = tensor_service_pb2.PutTensorHeader(
            data_type=self._wire_type.data_type, shape=self.shape
        )
        yield tensor_service_pb2.PutTensorRequest(header=header).SerializeToString()
        data = self._data()
        for start in range(0, len(data), thresholds.PUT_PART_BYTES):
            part = bytes(data[start : start + thresholds.PUT_PART_BYTES])
            yield tensor_service_pb2.PutTensorRequest(data=part).SerializeToString()

    def check_stored(self, answer: tensor_service_pb2.PutTensorResponse) -> bool:
        """Return whether it was stored before.

        If another tensor is stored now, raises FailedPreconditionError when the array has changed,
        and DataLossError when it has not.
        """
        if answer.id.sha256 == self.id:
            return answer.existed
        if self._identity() == self.id:
            raise DataLossError(
                "the server stored another tensor than it was sent", reason="UNFIT_RESPONSE"
            )
        raise FailedPreconditionError(
            "the array of a resident tensor was changed after `put`, so that it cannot be sent "
            "again; put the array as it is now, and leave it as it is",
            reason="RESIDENT_TENSOR_CHANGED",
        )

    def _identity(self) -> bytes:
        """Return the SHA-256 of the canonical form of the array as it is now."""
        identity = begin_identity(self._wire_type.data_type, self._array.shape)
        identity.update(self._data())
        return identity.digest()

    def _data(self) -> memoryview:
        """Return its bytes as on the wire; a copy only where the array's memory differs."""
        native = np.ascontiguousarray(self._array, self._wire_type.numpy)
        wire = native if sys.byteorder == "little" else native.byteswap()
        return wire.reshape(-1).view(np.uint8).data

    def __repr__(self) -> str:
        spec = f"{self.dtype.name}{list(self.shape)}"
        return f"<losswire {type(self).__name__} {spec} {self.id.hex()[:12]}>"


class _Deletes(Protocol):
    def delete(self, tensor: "StoredTensor", *, timeout: float | None = None) -> bool: ...


class _DeletesLater(Protocol):
    async def delete(
        self,
        tensor: "StoredTensor",
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - as in AsyncClient
    ) -> bool: ...


class ResidentTensor(StoredTensor):
    """An array that servers hold, to be used in evaluations in place of it.

    Made by `Client.put`. It refers to the array, which must stay as it is: when needed, the array
    is sent to a server that does not hold it (another replica, or one that was started again). Then
    FailedPreconditionError (RESIDENT_TENSOR_CHANGED) is raised if the array has changed.

    Example:
        >>> head = client.put(np.ones((3, 2), np.float32))
        >>> head.shape, head.dtype.name, head.nbytes, len(head.id)
        ((3, 2), 'float32', 24, 32)
    """

    __slots__ = ("_client",)

    def __init__(self, array: npt.NDArray[Any], client: _Deletes) -> None:
        """Hash the array; `client` deletes it."""
        super().__init__(array)
        self._client = client

    def delete(self, *, timeout: float | None = None) -> bool:
        """Delete it from the servers; returns whether any held it. As `Client.delete`.

        Example:
            >>> client.put([7.0, 8.0]).delete()
            True
        """
        return self._client.delete(self, timeout=timeout)


class AsyncResidentTensor(StoredTensor):
    """The same as `ResidentTensor`, made by `AsyncClient.put`.

    Example:
        >>> head = await async_client.put(np.ones((3, 2), np.float32))
        >>> head.shape, head.dtype.name
        ((3, 2), 'float32')
    """

    __slots__ = ("_client",)

    def __init__(self, array: npt.NDArray[Any], client: _DeletesLater) -> None:
        """Hash the array; `client` deletes it."""
        super().__init__(array)
        self._client = client

    async def delete(
        self,
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - as in AsyncClient
    ) -> bool:
        """Delete it from the servers; returns whether any held it. As `AsyncClient.delete`.

        Example:
            >>> await (await async_client.put([7.0, 8.0])).delete()
            True
        """
        return await self._client.delete(self, timeout=timeout)


def is_missing(outcome: object) -> bool:
    """Return whether an evaluation failed because a server does not hold a resident tensor."""
    return isinstance(outcome, LosswireError) and outcome.reason == _MISSING


def distinct(tensors: Iterable[StoredTensor]) -> tuple[StoredTensor, ...]:
    """Return the tensors without repetitions."""
    return tuple({tensor.id: tensor for tensor in tensors}.values())
