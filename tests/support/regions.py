"""The handshake of docs/protocol.md, without the SDK: how a caller gets shared memory."""

import fcntl
import mmap
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import numpy as np
import numpy.typing as npt

from losswire.v1 import evaluation_pb2, tensor_pb2, tensor_service_pb2, tensor_service_pb2_grpc
from losswire.wire import DATA_TYPES, wire_type_of

Array = npt.NDArray[Any]
Created = tensor_service_pb2.CreateRegionResponse


_ALIGNMENT = 64

SMALL_REGION = 1 << 16
"""The size of the region that most tests use, in bytes; whole pages."""


@dataclass
class Held:
    """A region as its caller holds it."""

    region_id: int
    lease: socket.socket
    descriptor: int
    memory: mmap.mmap
    used: int = 0
    arrays: dict[str, Array] = field(default_factory=dict)

    def array(self, shape: tuple[int, ...], dtype: "npt.DTypeLike" = np.float32) -> Array:
        """Return an array behind the others."""
        kind = np.dtype(dtype)
        count = int(np.prod(shape, dtype=int))
        made = np.frombuffer(self.memory, np.uint8, count * kind.itemsize, self.used)
        self.used += -(-made.nbytes // _ALIGNMENT) * _ALIGNMENT
        return made.view(kind).reshape(shape)

    def place(self, array: Array) -> tensor_pb2.Region:
        """Return the region and offset of an array."""
        base = np.frombuffer(self.memory, np.uint8).ctypes.data
        return tensor_pb2.Region(region_id=self.region_id, offset=array.ctypes.data - base)

    def tensor(self, array: Array) -> tensor_pb2.Tensor:
        """Name an array in it."""
        wire_type = wire_type_of(array.dtype)
        assert wire_type is not None
        return tensor_pb2.Tensor(
            data_type=wire_type.data_type, shape=array.shape, region=self.place(array)
        )

    def at(self, offset: int, *shape: int, data_type: int = 9) -> tensor_pb2.Tensor:
        """Name a tensor at an offset, whether it is in the region or not; float32 by default."""
        region = tensor_pb2.Region(region_id=self.region_id, offset=offset)
        number = tensor_pb2.DataType.ValueType(data_type)
        return tensor_pb2.Tensor(data_type=number, shape=shape, region=region)

    def close(self) -> None:
        """End the lease and release the contents; the mapping stays."""
        self.lease.close()
        fcntl.flock(self.descriptor, fcntl.LOCK_UN)
        os.close(self.descriptor)


def create(channel: grpc.Channel, size: int) -> Created:
    """Create a region."""
    stub = tensor_service_pb2_grpc.TensorServiceStub(channel)
    return stub.CreateRegion(tensor_service_pb2.CreateRegionRequest(size_bytes=size), timeout=60)


def fetch(created: Created) -> Held:
    """Lease a region that was just created; ConnectionError when it is refused."""
    lease = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    lease.settimeout(60)
    lease.connect(created.socket_path)
    lease.sendall(created.token)
    data, descriptors, _, _ = socket.recv_fds(lease, 1, 1)
    if not descriptors:
        lease.close()
        raise ConnectionError
    assert data == b"\x01"
    memory = mmap.mmap(descriptors[0], created.size_bytes)
    return Held(created.region_id, lease, descriptors[0], memory)


def receive(connection: socket.socket, size: int) -> bytes:
    """Receive this many bytes; ConnectionError when the connection ends before."""
    received = b""
    while len(received) < size:
        part = connection.recv(size - len(received))
        if not part:
            raise ConnectionError
        received += part
    return received


@contextmanager
def region(channel: grpc.Channel, size: int = 1 << 20) -> Iterator[Held]:
    """Hold a region for a while."""
    held = fetch(create(channel, size))
    try:
        yield held
    finally:
        held.close()


def relocate(
    item: evaluation_pb2.Evaluation, held: Held
) -> tuple[evaluation_pb2.Evaluation, dict[str, Array]]:
    """Move all tensors of an evaluation into a region; returns its gradients there, too."""
    moved = evaluation_pb2.Evaluation()
    moved.CopyFrom(item)
    tensors = [*moved.inputs.values()]
    tensors += [getattr(moved, name) for name in ("grad_output", "sample_weight")]
    for tensor in tensors:
        if tensor.HasField("data"):
            array = held.array(tuple(tensor.shape), DATA_TYPES[tensor.data_type].numpy)
            array.reshape(-1).view(np.uint8)[...] = np.frombuffer(tensor.data, np.uint8)
            tensor.region.CopyFrom(held.place(array))
    gradients = {}
    for name in moved.gradients_for:
        tensor = moved.inputs[name]
        data_type = moved.gradient_data_type or tensor.data_type
        gradients[name] = held.array(tuple(tensor.shape), DATA_TYPES[data_type].numpy)
        moved.gradient_destinations[name].CopyFrom(held.place(gradients[name]))
    return moved, gradients
