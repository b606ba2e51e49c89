"""CUDA: streams for staging, pinned memory, memory limits and the errors of a lost device."""

from typing import Any

import torch
from torch import Tensor

from losswire.server.compute import thresholds
from losswire.server.compute.devices.pinned_staging import Lane, Lanes, Mark


class _Stream:
    """A stream of CUDA."""

    def __init__(self, stream: Any) -> None:  # noqa: ANN401 (torch.cuda.Stream has no types)
        self._stream = stream

    def empty(self, like: Tensor) -> Tensor:
        with torch.cuda.stream(self._stream):
            return torch.empty(like.shape, dtype=like.dtype, device=self._stream.device)

    def copy(self, target: Tensor, source: Tensor) -> None:
        with torch.cuda.stream(self._stream):
            target.copy_(source, non_blocking=True)

    def mark(self) -> Mark:
        mark: Mark = self._stream.record_event()
        return mark

    def wait(self, mark: Mark) -> None:
        self._stream.wait_event(mark)

    def uses(self, tensor: Tensor) -> None:
        tensor.record_stream(self._stream)


def cuda_lanes(device: torch.device) -> Lanes:
    """Return the lanes of a device; torch computes in its default stream."""
    cuda: Any = torch.cuda
    arriving: Lane = _Stream(cuda.Stream(device))
    leaving: Lane = _Stream(cuda.Stream(device))
    return Lanes(arriving=arriving, computing=_Stream(cuda.default_stream(device)), leaving=leaving)


def pinned(size: int) -> Tensor:
    """Return `size` bytes of pinned host memory, which the device reads and writes by itself."""
    return torch.empty(size, dtype=torch.uint8, pin_memory=True)


def usable_bytes(device: torch.device) -> int:
    """Return how many bytes of the device's memory evaluations may use."""
    free, _ = torch.cuda.mem_get_info(device)
    return int(free * thresholds.USABLE_SHARE)


def is_lost(error: BaseException) -> bool:
    """Return whether an error may have spoiled the device for this process.

    CUDA reports most errors some calls late, and after many of them each further call fails. Only
    a refused allocation changes nothing.
    """
    if isinstance(error, torch.OutOfMemoryError):
        return False
    return isinstance(error, torch.AcceleratorError) or (
        # Libraries of CUDA (cuBLAS) have no class of their own.
        isinstance(error, RuntimeError) and "CUDA error" in str(error)
    )
