"""Transfers: how tensors get to the device that computes, and how results come back."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Protocol

import torch
from torch import Tensor

from losswire.server.cuda import cuda_lanes, pinned
from losswire.server.staging import Staging
from losswire.server.tensors import to_array
from losswire.server.values import Array


class Transfers(Protocol):
    """The way to one device and back. Belongs to the thread that computes there."""

    def bring(self, tensor: Tensor) -> Tensor:
        """Give a tensor in host memory on the device; what it was made of may change after."""

    def fetch(self, tensor: Tensor, into: Array | None = None) -> Array:
        """Give a tensor of the device in host memory, whose elements are there after `land`.

        They may come right into an array of the same type and shape, if one is given.
        """

    def land(self) -> None:
        """Wait until everything that was fetched is there."""


class _Host:
    """The processor computes where the arrays are."""

    def bring(self, tensor: Tensor) -> Tensor:
        return tensor

    def fetch(self, tensor: Tensor, into: Array | None = None) -> Array:
        del into
        return to_array(tensor)

    def land(self) -> None:
        pass


@cache
def transfers_for(device: torch.device) -> Transfers:
    """Give the transfers of a device, which one thread of this process uses."""
    if device.type == "cpu":
        return _Host()
    return Staging(device, cuda_lanes(device), pinned)


@contextmanager
def landing(device: torch.device) -> Iterator[None]:
    """Have what is fetched inside in host memory at the end.

    Also after an error, so that nothing is written later to where a caller sees it.
    """
    try:
        yield
    finally:
        transfers_for(device).land()
