"""Places in regions: where an evaluation's tensors lie, and where its gradients go.

The caller can change the memory at any time, also while an evaluation runs. Numbers that are
only computed with are read where they lie: whatever they are, the result is a number. All that
is checked, because torch indexes memory with it or fails on it, is copied first.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from losswire.server.catalogue.value_rules import Array
from losswire.server.memory.regions.memory import Bytes
from losswire.v1 import tensor_pb2
from losswire.wire import (
    BY_NAME,
    DATA_TYPES,
    MalformedTensorError,
    TensorSpec,
    Violation,
    WireType,
    read_elements,
    read_spec,
)

MapRegion = Callable[[int], Bytes | None]
"""Gives the memory of a region by its number; None when there is no such region."""


def map_nothing(region_id: int) -> Bytes | None:
    """Find no region: there are none."""
    del region_id
    return None


class UnknownRegionError(Exception):
    """A region that is not there, or not any more."""


@dataclass(frozen=True, slots=True)
class Extent:
    """The bytes of a region that a tensor takes."""

    region_id: int
    start: int
    stop: int

    def overlaps(self, other: "Extent") -> bool:
        """Tell whether both have a byte in common."""
        if self.region_id != other.region_id:
            return False
        return max(self.start, other.start) < min(self.stop, other.stop)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a gradient goes."""

    array: Array
    """The place, of the gradient's type and shape."""

    def take(self, gradient: Array) -> None:
        """Put the gradient there, unless it was computed there."""
        if self.array.ctypes.data != gradient.ctypes.data:
            self.array[...] = gradient


@dataclass(frozen=True, slots=True)
class Destination(Place):
    """Where a gradient goes, in memory that the caller sees."""

    region: tensor_pb2.Region

    def message(self) -> tensor_pb2.Tensor:
        """Tell where it is."""
        return tensor_pb2.Tensor(
            data_type=BY_NAME[self.array.dtype.name].data_type,
            shape=self.array.shape,
            region=self.region,
        )


def spec_of(dtype: str, shape: tuple[int, ...]) -> TensorSpec:
    """Give the form of an array of a type by name."""
    return TensorSpec(BY_NAME[dtype], shape)


def extent_of(place: tensor_pb2.Region, form: TensorSpec) -> Extent:
    """Tell which bytes a tensor takes."""
    return Extent(place.region_id, place.offset, place.offset + form.size_bytes)


def read_region(
    tensor: tensor_pb2.Tensor, where: str, map_region: MapRegion, *, own: bool
) -> tuple[Array, Extent]:
    """Read a tensor that lies in a region: a private copy if `own`, else what lies there.

    What is not of a floating type is copied in any case: it is checked, or may be.
    Raises MalformedTensorError and UnknownRegionError.
    """
    form = read_spec(tensor, where)
    part = cut(tensor.region, form, f"{where}.region", map_region)
    if own or not form.wire_type.is_float:
        part = part.copy()
    array = read_elements(form, part, where)
    array.flags.writeable = False
    return array, extent_of(tensor.region, form)


def cut(place: tensor_pb2.Region, form: TensorSpec, where: str, map_region: MapRegion) -> Bytes:
    """Give the bytes of a place; exact, whatever the numbers are.

    Raises MalformedTensorError and UnknownRegionError.
    """
    memory = map_region(place.region_id)
    if memory is None:
        raise UnknownRegionError
    if problem := _problem(place.offset, form, memory.size, form.wire_type):
        raise MalformedTensorError([Violation(f"{where}.offset", problem)])
    return memory[place.offset : place.offset + form.size_bytes]


def _problem(offset: int, form: TensorSpec, size: int, wire_type: WireType) -> str | None:
    if offset % wire_type.item_size:
        return f"is {offset}; it must be a multiple of the item size, {wire_type.item_size}"
    if offset > size or form.size_bytes > size - offset:
        return f"is {offset}; {form.describe()} bytes, and the region has {size}"
    return None


def copied_bytes(tensor: tensor_pb2.Tensor, map_region: MapRegion, *, in_place: bool) -> int:
    """Count the bytes that will be copied of a tensor; 0 when it is not in a region.

    `in_place` tells whether floating numbers are read where they lie.
    """
    if tensor.WhichOneof("source") != "region":
        return 0
    wire_type = DATA_TYPES.get(tensor.data_type)
    if wire_type is None or (in_place and wire_type.is_float):
        return 0
    try:
        form = read_spec(tensor, "")
    except MalformedTensorError:
        return 0
    memory = map_region(tensor.region.region_id)
    # A place outside of the region is refused, and nothing of it is copied.
    return 0 if memory is None or form.size_bytes > memory.size else form.size_bytes


def own_copy(array: Array) -> Array:
    """Copy an array to where no caller can change it."""
    copy = np.array(array)
    copy.flags.writeable = False
    return copy
