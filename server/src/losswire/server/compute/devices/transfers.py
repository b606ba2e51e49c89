"""Transfers: how tensors get to the device that computes, and how results come back."""

from functools import cache
from typing import Protocol

import torch
from torch import Tensor

from losswire.server.catalogue.value_rules import Array
from losswire.server.compute.devices.cuda import cuda_lanes, pinned
from losswire.server.compute.devices.pinned_staging import Staging
from losswire.server.compute.tensors import to_array


class Transfers(Protocol):
    """The way to one device and back. Belongs to the thread that computes there.

    What is fetched in a `with` block is in host memory at its end. So it is after an error,
    lest something is written later to where a caller sees it.
    """

    def __enter__(self) -> object:
        """Begin to compute."""

    def __exit__(self, *error: object) -> None:
        """Wait until everything that was fetched is there."""

    def bring(self, tensor: Tensor) -> Tensor:
        """Give a tensor in host memory on the device; what it was made of may change after."""

    def fetch(self, tensor: Tensor, into: Array | None = None) -> Array:
        """Give a tensor of the device in host memory, whose elements are there in the end.

        They may come right into an array of the same type and shape, if one is given.
        """


class _Host:
    """The processor computes where the arrays are."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, *error: object) -> None:
        pass

    def bring(self, tensor: Tensor) -> Tensor:
        return tensor

    def fetch(self, tensor: Tensor, into: Array | None = None) -> Array:
        del into
        return to_array(tensor)


@cache
def transfers_for(device: torch.device) -> Transfers:
    """Give the transfers of a device, which one thread of this process uses."""
    if device.type == "cpu":
        return _Host()
    return Staging(device, cuda_lanes(device), pinned)
