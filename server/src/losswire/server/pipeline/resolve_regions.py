"""What an evaluation does with places in regions, as its loss's record says."""

from dataclasses import replace

from losswire.server.catalogue.record import LossRecord
from losswire.server.compute.work import Work
from losswire.server.errors import InvalidEvaluationError, MissingRegionError
from losswire.server.memory.regions.places import (
    Destination,
    Extent,
    MapRegion,
    UnknownRegionError,
    copied_bytes,
    cut,
    extent_of,
    own_copy,
    spec_of,
)
from losswire.server.pipeline.decode import Request, path
from losswire.v1 import evaluation_pb2
from losswire.wire import MalformedTensorError, Violation


def copy_checked_inputs(request: Request, record: LossRecord) -> Request:
    """Copy those inputs in regions whose values are checked, before anything is."""
    if not request.in_place:
        return request
    inputs = dict(request.inputs)
    shared = 0
    for name in request.in_place:
        array = inputs[name]
        if array is None or name not in record.inputs:
            continue
        if _is_checked(record, name):
            inputs[name] = own_copy(array)
        else:
            shared += array.nbytes
    return replace(request, inputs=inputs, resident_bytes=request.resident_bytes + shared)


def _is_checked(record: LossRecord, name: str) -> bool:
    """Tell whether an input of floating numbers is looked at before it is computed with."""
    return record.inputs[name].rule_for(is_float=True).enforced


def copied_bytes_of(
    evaluation: evaluation_pb2.Evaluation, record: LossRecord, map_region: MapRegion
) -> int:
    """Count the bytes that reading an evaluation copies out of regions."""
    size = 0
    for name, tensor in evaluation.inputs.items():
        if tensor.HasField("region"):
            in_place = name not in record.inputs or not _is_checked(record, name)
            size += copied_bytes(tensor, map_region, in_place=in_place)
    for tensor in (evaluation.grad_output, evaluation.sample_weight):
        if tensor.HasField("region"):
            size += copied_bytes(tensor, map_region, in_place=False)
    return size


def place_gradients(work: Work, request: Request, map_region: MapRegion) -> Work:
    """Find the places that gradients go to, each of its gradient's type and shape.

    Raises InvalidEvaluationError where a place does not fit or is taken by something else
    of this evaluation, and MissingRegionError.
    """
    if not request.destinations:
        return work
    found: dict[str, Destination] = {}
    taken = dict(request.extents)
    wrong: list[Violation] = []
    missing: list[Violation] = []
    for name, place in request.destinations.items():
        where = path("gradient_destinations", name)
        form = spec_of(work.gradient_type(name), work.inputs[name].shape)
        try:
            part = cut(place, form, where, map_region)
        except MalformedTensorError as error:
            wrong.extend(error.violations)
            continue
        except UnknownRegionError:
            missing.append(Violation(where, MissingRegionError.TEXT))
            continue
        extent = extent_of(place, form)
        wrong += [Violation(where, f"overlaps {each}") for each in _overlapping(extent, taken)]
        taken[where] = extent
        array = part.view(form.wire_type.numpy).reshape(form.shape)
        found[name] = Destination(array, place)
    if wrong:
        raise InvalidEvaluationError(wrong)
    if missing:
        raise MissingRegionError(missing)
    return replace(work, destinations=found)


def _overlapping(extent: Extent, taken: dict[str, Extent]) -> list[str]:
    return [where for where, other in taken.items() if extent.overlaps(other)]
