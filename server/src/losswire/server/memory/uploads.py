"""A tensor that arrives in parts, to be stored."""

import asyncio
from collections.abc import AsyncIterator
from typing import Final

import numpy as np

from losswire.server.errors import ExpiredError, OverloadedError
from losswire.server.memory.residents import TENANT, Key, Resident, ResidentStore
from losswire.server.pipeline.admit import Admission
from losswire.v1 import tensor_pb2, tensor_service_pb2
from losswire.wire import (
    ID_BYTES,
    MalformedTensorError,
    TensorSpec,
    Violation,
    begin_identity,
    read_spec,
)

_OFF_LOOP_BYTES: Final = 64 * 1024
"""From this size on, hashing a part takes long enough to leave the event loop for."""

_GRACE_SECONDS: Final = 15.0
_BYTES_PER_SECOND: Final = 1 << 20
"""How slowly a tensor may arrive, after the grace: its memory is reserved meanwhile."""

_PARTS: Final = 64
_BYTES_PER_PART: Final = 1024
"""How small parts may be on average, but for the first ones: each costs the same."""

_RETRY_AFTER_MS: Final = 200


def key_of(tensor_id: tensor_pb2.TensorId, path: str) -> Key:
    """Read an id; MalformedTensorError when it cannot be one."""
    if len(tensor_id.sha256) != ID_BYTES:
        text = f"has {len(tensor_id.sha256)} bytes; a SHA-256 has {ID_BYTES}"
        raise MalformedTensorError([Violation(f"{path}.sha256", text)])
    return TENANT, tensor_id.sha256


async def receive(
    parts: AsyncIterator[tensor_service_pb2.PutTensorRequest],
    admission: Admission,
    store: ResidentStore,
) -> tensor_service_pb2.PutTensorResponse:
    """Read a tensor part by part and store it.

    Its size is judged by its header alone. Until it is stored, its memory is reserved
    from the budget of the evaluations, so that nothing stored leaves for an upload
    that never ends. Raises whatever is wrong with it.
    """
    store.check(0)
    limit = _GRACE_SECONDS
    try:
        async with asyncio.timeout(limit) as patience:
            form = _read_header(await anext(parts, None))
            size = form.size_bytes
            store.check(size)
            limit += size / _BYTES_PER_SECOND
            patience.reschedule(asyncio.get_running_loop().time() + limit)
            with admission.hold(size):
                upload = _Upload(form)
                async for part in parts:
                    await upload.take(part)
                key, resident = await asyncio.to_thread(upload.finish)
                existed = store.add(key, resident)
    except TimeoutError:
        text = f"the tensor did not arrive within {limit:.0f} s"
        raise ExpiredError(text) from None
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


class _Upload:
    """The bytes of a tensor on their way into memory.

    They can be had when every one of them was written, never before.
    """

    def __init__(self, form: TensorSpec) -> None:
        self._form = form
        try:
            self._data = np.empty(form.size_bytes, np.uint8)
        except MemoryError:
            message = "the server ran out of memory"
            raise OverloadedError(message, _RETRY_AFTER_MS) from None
        self._hash = begin_identity(form.wire_type.data_type, form.shape)
        self._filled = 0
        self._parts_left = _PARTS + form.size_bytes // _BYTES_PER_PART

    async def take(self, part: tensor_service_pb2.PutTensorRequest) -> None:
        """Take the next part, off the event loop when it is large."""
        kind = part.WhichOneof("part")
        if kind != "data":
            text = "came again" if kind else "or data must be set in every part"
            raise MalformedTensorError([Violation("header", text)])
        data = part.data
        if self._filled + len(data) > len(self._data):
            text = f"has more than {len(self._data)} bytes; {self._form.describe()}"
            raise MalformedTensorError([Violation("data", text)])
        self._parts_left -= 1
        if self._parts_left < 0:
            text = f"has too many parts; send at least {_BYTES_PER_PART} bytes in each"
            raise MalformedTensorError([Violation("data", text)])
        if len(data) < _OFF_LOOP_BYTES:
            self._write(data)
        else:
            await asyncio.to_thread(self._write, data)

    def _write(self, data: bytes) -> None:
        end = self._filled + len(data)
        self._data[self._filled : end] = np.frombuffer(data, np.uint8)
        self._filled = end
        self._hash.update(data)

    def finish(self) -> tuple[Key, Resident]:
        """Give the tensor and its key; MalformedTensorError when it is not whole."""
        if self._filled != len(self._data):
            text = f"has {self._filled} bytes; {self._form.describe()}"
            raise MalformedTensorError([Violation("data", text)])
        return (TENANT, self._hash.digest()), Resident(self._form, self._data)
