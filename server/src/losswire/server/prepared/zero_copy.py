"""Computes large evaluations without copies, by the same closed forms as the pipeline.

Inputs are read from the request buffer, gradients are written into the response buffer. The rows
are divided among threads, and so are the sums.
"""

import ctypes
import math
import struct
from typing import Any, Final

import numpy as np
import torch

from losswire.server.catalogue.value_rules import Array
from losswire.server.compute.dispatch import Pause, compute
from losswire.server.compute.native.places import InMessage, MessageOffsets
from losswire.server.compute.tensors import numpy_type
from losswire.server.memory.regions.memory import Bytes
from losswire.server.memory.regions.places import Destination, MapRegion, Place
from losswire.server.pipeline.validation_cache import Skeleton
from losswire.v1 import evaluation_pb2

_CPU: Final = torch.device("cpu")
_EIGHT_BYTES: Final = 1

_COUNT_BYTES: Final = 5
_NANOSECONDS_BYTES: Final = 9


def _tag(name: str, kind: int = 0) -> int:
    """Return the tag of a field of a result, one byte because its number is below 16."""
    described = evaluation_pb2.EvaluationResult.DESCRIPTOR.fields_by_name[name]
    return described.number << 3 | kind


# `message.h` has the same layout.
_NUMBERS: Final = struct.Struct("<BdBdBdB5sB9sB9s")
_TAGS: Final = (
    _tag("sum", _EIGHT_BYTES),
    _tag("mean_numerator", _EIGHT_BYTES),
    _tag("mean_denominator", _EIGHT_BYTES),
    _tag("count"),
    _tag("queue_nanoseconds"),
    _tag("compute_nanoseconds"),
)


def numbers(  # noqa: PLR0917 (the fields of a result, in their order)
    total: float = 0.0,
    numerator: float = 0.0,
    denominator: float = 0.0,
    count: int = 0,
    queue_nanoseconds: int = 0,
    compute_nanoseconds: int = 0,
) -> bytes:
    """Write the numbers of a result with fixed widths, so that its size depends on its form only.

    Protobuf allows integers to have more bytes than they need.
    """
    values = (
        total,
        numerator,
        denominator,
        _padded(count, _COUNT_BYTES),
        _padded(queue_nanoseconds, _NANOSECONDS_BYTES),
        _padded(compute_nanoseconds, _NANOSECONDS_BYTES),
    )
    return _NUMBERS.pack(*(each for pair in zip(_TAGS, values, strict=True) for each in pair))


def _padded(number: int, width: int) -> bytes:
    """Write an unsigned varint in `width` bytes, all but the last with the continuation bit."""
    digits = [number >> 7 * position & 0x7F | 0x80 for position in range(width)]
    digits[-1] &= 0x7F
    return bytes(digits)


def zero_copy_computation(
    places: MessageOffsets, skeleton: Skeleton, map_region: MapRegion, pause: Pause
) -> InMessage:
    """Return the computation of a form's evaluations; no array of any of them is kept.

    `map_region` maps the regions that some of its tensors are in, `pause` is called between two
    slices.
    """
    return _ZeroCopy(places, skeleton, map_region, pause).evaluate


class _ZeroCopy:
    """Evaluations of one form. Of `places` only numbers are kept: arrays would keep regions."""

    def __init__(
        self, places: MessageOffsets, skeleton: Skeleton, map_region: MapRegion, pause: Pause
    ) -> None:
        self._skeleton = skeleton
        self._pause = pause
        self._map_region = map_region
        form = skeleton.work
        self._loss_at, self._numbers_at = places.loss, places.numbers
        self._inputs = [
            (name, places.inputs[name], array.dtype, array.size, array.shape)
            for name, array in form.inputs.items()
            if name in places.inputs
        ]
        # A part of a message would keep all of it, hence numbers here, too.
        self._shared = [
            (
                name,
                region.region_id,
                region.offset,
                form.inputs[name].dtype,
                form.inputs[name].shape,
            )
            for name, region in places.shared.items()
        ]
        self._gradients = [
            (name, start, numpy_type(form.gradient_type(name)), form.inputs[name].shape)
            for name, start in places.gradients.items()
        ]
        self._outside = [
            (name, each.region.region_id, each.region.offset, each.array.dtype, each.array.shape)
            for name, each in places.work.destinations.items()
            if isinstance(each, Destination)
        ]

    def evaluate(self, message: bytes, start: int, answer: int, waited: int) -> bool:
        """Compute one evaluation, as an `InMessage` does."""
        form = self._skeleton.work
        found = self._inputs_of(message, start)
        destinations = self._destinations_in(answer)
        if found is None or destinations is None:
            return False
        # In the skeleton's order: sums must not depend on the order of the message.
        arrays = {name: found[name] for name in form.inputs}
        if not self._skeleton.allows(arrays):
            return False
        work = form.with_arrays(arrays, None, None, resident_bytes=0)
        outcome = compute(work.written_to(destinations), _CPU, self._pause)
        _array_at(answer + self._loss_at, (), outcome.loss.dtype)[...] = outcome.loss
        written = numbers(
            outcome.sum,
            outcome.mean_numerator,
            outcome.mean_denominator,
            outcome.count,
            waited,
            outcome.compute_nanoseconds,
        )
        ctypes.memmove(answer + self._numbers_at, written, len(written))
        return True

    def _inputs_of(self, message: bytes, start: int) -> dict[str, Array] | None:
        """Return views of the inputs; None when a region is gone."""
        arrays: dict[str, Array] = {
            name: np.frombuffer(message, dtype, size, start + offset).reshape(shape)
            for name, offset, dtype, size, shape in self._inputs
        }
        for name, region_id, offset, dtype, shape in self._shared:
            view = _view(self._map_region(region_id), offset, shape, dtype)
            if view is None:
                return None
            arrays[name] = view
        return arrays

    def _destinations_in(self, answer: int) -> dict[str, Place] | None:
        """Return where the gradients are written; None when a region is gone."""
        places = {
            name: Place(_array_at(answer + offset, shape, dtype))
            for name, offset, dtype, shape in self._gradients
        }
        for name, region_id, offset, dtype, shape in self._outside:
            view = _view(self._map_region(region_id), offset, shape, dtype)
            if view is None:
                return None
            places[name] = Place(view)
        return places


def _view(
    memory: Bytes | None, offset: int, shape: tuple[int, ...], dtype: np.dtype[Any]
) -> Array | None:
    """Return an array in a region, where one was found before; None when the region is gone."""
    # A region keeps its size, and its number is never another one's.
    if memory is None:
        return None
    size = math.prod(shape) * dtype.itemsize
    return memory[offset : offset + size].view(dtype).reshape(shape)


def _array_at(address: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """Return the array at an address, which need not be aligned to the size of its elements."""
    memory = (ctypes.c_uint8 * (math.prod(shape) * dtype.itemsize)).from_address(address)
    return np.ctypeslib.as_array(memory).view(dtype).reshape(shape)
