"""Resident tensors over the wire: what is sent, and what it must be called."""

import hashlib
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from losswire.v1 import tensor_pb2, tensor_service_pb2, tensor_service_pb2_grpc
from losswire.wire import encode_tensor

Array = npt.NDArray[Any]
Part = tensor_service_pb2.PutTensorRequest
Stub = tensor_service_pb2_grpc.TensorServiceStub

TIMEOUT = 60.0
"""The deadline of a call that must be answered; far more than it takes."""


def header(data_type: int, *shape: int) -> Part:
    """Return the first part."""
    declared = tensor_service_pb2.PutTensorHeader(shape=shape)
    declared.data_type = data_type  # type: ignore[assignment] # also one that there is not
    return Part(header=declared)


def parts(array: npt.ArrayLike, step: int = 1 << 18) -> Iterator[Part]:
    """Yield all parts of an array."""
    tensor = encode_tensor(array)
    yield header(tensor.data_type, *tensor.shape)
    data = tensor.data
    for start in range(0, len(data), step):
        yield Part(data=data[start : start + step])


def identity(array: npt.ArrayLike) -> bytes:
    """Hash the canonical form, written down from the contract alone."""
    tensor = encode_tensor(array)
    form = tensor.data_type.to_bytes(4, "little") + len(tensor.shape).to_bytes(4, "little")
    axes = b"".join(length.to_bytes(8, "little") for length in tensor.shape)
    return hashlib.sha256(form + axes + tensor.data).digest()


def named(array: npt.ArrayLike, sha256: bytes | None = None) -> tensor_pb2.Tensor:
    """Name an array as a resident tensor."""
    tensor = encode_tensor(array)
    tensor.resident.sha256 = identity(array) if sha256 is None else sha256
    return tensor


def put(stub: Stub, array: npt.ArrayLike, step: int = 1 << 18) -> Any:  # noqa: ANN401 (a response)
    """Store an array."""
    return stub.PutTensor(parts(array, step), timeout=TIMEOUT)


def put_parts(stub: Stub, given: Iterable[Part]) -> Any:  # noqa: ANN401 (a response)
    """Send some parts."""
    return stub.PutTensor(iter(given), timeout=TIMEOUT)


def stat(stub: Stub, array: npt.ArrayLike) -> Any:  # noqa: ANN401 (a response)
    """Look an array up."""
    request = tensor_service_pb2.StatTensorRequest(id=tensor_pb2.TensorId(sha256=identity(array)))
    return stub.StatTensor(request, timeout=TIMEOUT)


def delete(stub: Stub, array: npt.ArrayLike) -> bool:
    """Delete an array."""
    request = tensor_service_pb2.DeleteTensorRequest(id=tensor_pb2.TensorId(sha256=identity(array)))
    return bool(stub.DeleteTensor(request, timeout=TIMEOUT).existed)


def noise(seed: int, *shape: int) -> Array:
    """Draw an array of float32."""
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
