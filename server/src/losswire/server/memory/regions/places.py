"""Offsets in regions: the tensors that an evaluation reads, and the destinations of gradients.

The caller can change the memory at any time, also while an evaluation runs. Values that only
enter arithmetic are read in place: any bits are a number. Values that are checked, because
torch indexes memory with them or fails on them, are copied first.
"""

from collections.abc import Callable
from dataclasses import dataclass

from losswire.server.catalogue.value_rules import Array
from losswire.server.memory.regions.memory import Bytes
from losswire.v1 import tensor_pb2
from losswire.wire import (
    BY_NAME,
    MalformedTensorError,
    TensorSpec,
    Violation,
    read_elements,
)

MapRegion = Callable[[int], Bytes | None]
"""Returns the memory of a region by its id; None when there is no such region."""


class UnknownRegionError(Exception):
    """A region that does not exist, or no longer exists."""


@dataclass(frozen=True, slots=True)
class Extent:
    """The bytes of a region that a tensor takes."""

    region_id: int
    start: int
    stop: int

    def overlaps(self, other: "Extent") -> bool:
        """Return whether both have a byte in common."""
        if self.region_id != other.region_id:
            return False
        return max(self.start, other.start) < min(self.stop, other.stop)


@dataclass(frozen=True, slots=True)
class Place:
    """The memory that a gradient is written to."""

    array: Array
    """That memory as an array of the gradient's type and shape."""

    def take(self, gradient: Array) -> None:
        """Copy the gradient there, unless it was computed there."""
        if self.array.ctypes.data != gradient.ctypes.data:
            self.array[...] = gradient


@dataclass(frozen=True, slots=True)
class Destination(Place):
    """The region that a gradient is written to, which the caller has mapped."""

    region: tensor_pb2.Region

    def message(self) -> tensor_pb2.Tensor:
        """Return the tensor that names the region."""
        return tensor_pb2.Tensor(
            data_type=BY_NAME[self.array.dtype.name].data_type,
            shape=self.array.shape,
            region=self.region,
        )


def spec_of(dtype: str, shape: tuple[int, ...]) -> TensorSpec:
    """Return the spec of an array whose data type is given by name."""
    return TensorSpec(BY_NAME[dtype], shape)


def extent_of(region: tensor_pb2.Region, spec: TensorSpec) -> Extent:
    """Return the bytes of a region that a tensor takes."""
    return Extent(region.region_id, region.offset, region.offset + spec.size_bytes)


def read_region(
    spec: TensorSpec, region: tensor_pb2.Region, where: str, map_region: MapRegion, *, own: bool
) -> Array:
    """Return a tensor in a region, read-only: a private copy if `own`, else a view of the memory.

    Raises MalformedTensorError and UnknownRegionError.
    """
    part = slice_region(region, spec, f"{where}.region", map_region)
    array = read_elements(spec, part.copy() if own else part, where)
    array.flags.writeable = False
    return array


def slice_region(
    region: tensor_pb2.Region, spec: TensorSpec, where: str, map_region: MapRegion
) -> Bytes:
    """Return the bytes of a region that a tensor takes.

    Raises MalformedTensorError and UnknownRegionError.
    """
    memory = map_region(region.region_id)
    if memory is None:
        raise UnknownRegionError
    if problem := _wrong_offset(region.offset, spec, memory.size):
        raise MalformedTensorError([Violation(f"{where}.offset", problem)])
    return memory[region.offset : region.offset + spec.size_bytes]


def _wrong_offset(offset: int, spec: TensorSpec, size: int) -> str | None:
    # In Python's integers, which are exact whatever numbers the caller sends.
    item_size = spec.wire_type.numpy.itemsize
    if offset % item_size:
        return f"is {offset}; it must be a multiple of the item size, {item_size}"
    if offset > size or spec.size_bytes > size - offset:
        return f"is {offset}; {spec.describe()} bytes, and the region has {size}"
    return None
