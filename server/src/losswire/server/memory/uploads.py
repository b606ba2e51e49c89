"""Receives a tensor in parts and stores it."""

import asyncio
from collections.abc import AsyncIterator

import numpy as np

from losswire.server import thresholds
from losswire.server.errors import OverloadedError
from losswire.server.memory.budget import Kind
from losswire.server.memory.patience import Sender
from losswire.server.memory.residents import TENANT, Key, Resident, ResidentStore
from losswire.v1 import tensor_pb2, tensor_service_pb2
from losswire.wire import (
    ID_BYTES,
    MalformedTensorError,
    TensorSpec,
    Violation,
    begin_identity,
    read_spec,
)


def key_of(tensor_id: tensor_pb2.TensorId, path: str) -> Key:
    """Read an id; MalformedTensorError when it cannot be one."""
    if len(tensor_id.sha256) != ID_BYTES:
        text = f"has {len(tensor_id.sha256)} bytes; a SHA-256 has {ID_BYTES}"
        raise MalformedTensorError([Violation(f"{path}.sha256", text)])
    return TENANT, tensor_id.sha256


async def receive(
    parts: AsyncIterator[tensor_service_pb2.PutTensorRequest],
    store: ResidentStore,
    sender: Sender,
    deadline: float,
    part_bytes: int,
) -> tensor_service_pb2.PutTensorResponse:
    """Receive a tensor part by part and store it; raises its error.

    The header alone decides whether its size is accepted. The sender's reservation holds what has
    come and a part of `part_bytes` that comes, until the tensor is stored.
    """
    store.check(0)
    with sender:
        header = await anext(parts, None)
    spec = _read_header(header)
    size = spec.size_bytes
    store.check(size)
    held = sender.reservation
    before = held.held_bytes
    held.check(before + size)
    upload = Upload(spec)
    while True:
        coming = min(part_bytes, size - upload.filled_bytes) * thresholds.PART_COPIES
        wanted = min(before + upload.filled_bytes + coming, held.limit_bytes)
        if wanted < held.held_bytes:
            held.change_to(wanted, Kind.COMPUTE)
        await held.grow_to(wanted, deadline)
        with sender:
            part = await anext(parts, None)
        if part is None:
            break
        await upload.write(part)
        sender.moved_bytes = upload.filled_bytes
    key, resident = await asyncio.to_thread(upload.finish)
    existed = store.add(key, resident)
    return tensor_service_pb2.PutTensorResponse(
        id=tensor_pb2.TensorId(sha256=key[1]), size_bytes=size, existed=existed
    )


def _read_header(part: tensor_service_pb2.PutTensorRequest | None) -> TensorSpec:
    if part is None or part.WhichOneof("part") != "header":
        text = "is missing; it must be the first part"
        raise MalformedTensorError([Violation("header", text)])
    header = part.header
    declared = tensor_pb2.Tensor(data_type=header.data_type, shape=header.shape)
    return read_spec(declared, "header")


class Upload:
    """The bytes of a tensor that arrives; `finish` returns them when all were written."""

    def __init__(self, spec: TensorSpec) -> None:
        """Allocate the tensor; OverloadedError when the system has no memory."""
        self._spec = spec
        try:
            self._data = np.empty(spec.size_bytes, np.uint8)
        except MemoryError:
            message = "the server ran out of memory"
            raise OverloadedError(message, thresholds.UPLOAD_RETRY_MS) from None
        self._hash = begin_identity(spec.wire_type.data_type, spec.shape)
        self._filled = 0
        self._parts_left = (
            thresholds.UPLOAD_FREE_PARTS + spec.size_bytes // thresholds.UPLOAD_BYTES_PER_PART
        )

    @property
    def filled_bytes(self) -> int:
        """The bytes that have come."""
        return self._filled

    async def write(self, part: tensor_service_pb2.PutTensorRequest) -> None:
        """Write the next part, off the event loop when it is large."""
        kind = part.WhichOneof("part")
        if kind != "data":
            text = "came again" if kind else "or data must be set in every part"
            raise MalformedTensorError([Violation("header", text)])
        data = part.data
        if self._filled + len(data) > len(self._data):
            text = f"has more than {len(self._data)} bytes; {self._spec.describe()}"
            raise MalformedTensorError([Violation("data", text)])
        self._parts_left -= 1
        if self._parts_left < 0:
            least = thresholds.UPLOAD_BYTES_PER_PART
            text = f"has too many parts; send at least {least} bytes in each"
            raise MalformedTensorError([Violation("data", text)])
        if len(data) < thresholds.UPLOAD_OFF_LOOP_BYTES:
            self._append(data)
        else:
            await asyncio.to_thread(self._append, data)

    def _append(self, data: bytes) -> None:
        end = self._filled + len(data)
        self._data[self._filled : end] = np.frombuffer(data, np.uint8)
        self._filled = end
        self._hash.update(data)

    def finish(self) -> tuple[Key, Resident]:
        """Return the tensor and its key; MalformedTensorError when bytes are missing."""
        if self._filled != len(self._data):
            text = f"has {self._filled} bytes; {self._spec.describe()}"
            raise MalformedTensorError([Violation("data", text)])
        return (TENANT, self._hash.digest()), Resident(self._spec, self._data)
