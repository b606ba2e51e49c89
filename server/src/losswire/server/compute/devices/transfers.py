"""Transfers: copies of tensors to the device that computes, and of results back."""

from functools import cache
from typing import Protocol

import torch
from torch import Tensor

from losswire.server.catalogue.value_rules import Array
from losswire.server.compute.devices.cuda import cuda_lanes, pinned
from losswire.server.compute.devices.pinned_staging import Staging
from losswire.server.compute.tensors import to_array


class Transfers(Protocol):
    """The transfers of one device. They belong to the thread that computes there.

    Arrays fetched in a `with` block are complete at its end, after an error too, so that nothing
    is written later to memory that a caller sees.
    """

    def __enter__(self) -> object:
        """Begin a computation."""

    def __exit__(self, *error: object) -> None:
        """Wait until every fetched array is complete."""

    def bring(self, tensor: Tensor) -> Tensor:
        """Return a host tensor on the device; the source may change afterwards."""

    def fetch(self, tensor: Tensor, into: Array | None = None) -> Array:
        """Return a device tensor as a host array, complete at the end of the `with` block.

        It may be written directly into an array of the same dtype and shape, if one is given.
        """


class _Host:
    """The host, which computes without copies."""

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
    """Return the transfers of a device, which one thread of this process uses."""
    if device.type == "cpu":
        return _Host()
    return Staging(device, cuda_lanes(device), pinned)
