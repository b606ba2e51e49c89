"""Resolve: from references to resident tensors and regions to the arrays themselves.

A tensor in a region is read in place, except where its values are checked before they are
computed with: the caller can change the region at any time, so those are copied first.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from losswire.server.catalogue.layouts import FLOATS
from losswire.server.catalogue.record import LossRecord
from losswire.server.catalogue.value_rules import Array
from losswire.server.compute.work import Work
from losswire.server.errors import (
    InvalidEvaluationError,
    MissingRegionError,
    MissingResidentError,
)
from losswire.server.memory.regions.places import (
    Destination,
    Extent,
    MapRegion,
    UnknownRegionError,
    extent_of,
    read_region,
    slice_region,
    spec_of,
)
from losswire.server.pipeline.decode import Reference, Request, read_reference
from losswire.server.pipeline.field_path import path
from losswire.v1 import evaluation_pb2, tensor_pb2
from losswire.wire import (
    DATA_TYPES,
    MalformedTensorError,
    TensorSpec,
    Violation,
    decode_tensor,
    read_spec,
)

FindResident = Callable[[bytes], Array | None]
"""Returns the resident tensor of a SHA-256; None when it is not stored."""


@dataclass(frozen=True, slots=True)
class ReferencedBytes:
    """The bytes of the tensors that an evaluation refers to."""

    resident: int = 0
    """The bytes of its resident tensors."""
    copied: int = 0
    """The bytes that `resolve` copies out of regions."""


def count_bytes(
    evaluation: evaluation_pb2.Evaluation,
    record: LossRecord,
    resident_spec: Callable[[bytes], TensorSpec | None],
    map_region: MapRegion,
) -> ReferencedBytes:
    """Count the bytes of the tensors that an evaluation refers to, before it is decoded.

    References that `resolve` will refuse count nothing.
    """
    resident = copied = 0
    for name, tensor in _tensors(evaluation):
        source = tensor.WhichOneof("source")
        if source == "resident":
            stored = resident_spec(tensor.resident.sha256)
            resident += 0 if stored is None else stored.size_bytes
        elif source == "region":
            copied += _copied_bytes(tensor, record, name, map_region)
    return ReferencedBytes(resident, copied)


def _tensors(
    evaluation: evaluation_pb2.Evaluation,
) -> Iterator[tuple[str | None, tensor_pb2.Tensor]]:
    """Yield every tensor of an evaluation, with its name if it is an input."""
    yield from evaluation.inputs.items()
    yield None, evaluation.grad_output
    yield None, evaluation.sample_weight


def _copied_bytes(
    tensor: tensor_pb2.Tensor, record: LossRecord, name: str | None, map_region: MapRegion
) -> int:
    """Count the bytes of a tensor in a region that are copied."""
    wire_type = DATA_TYPES.get(tensor.data_type)
    if wire_type is None or not _is_copied(record, name, wire_type.name):
        return 0
    try:
        spec = read_spec(tensor, "")
    except MalformedTensorError:
        return 0
    memory = map_region(tensor.region.region_id)
    return 0 if memory is None or spec.size_bytes > memory.size else spec.size_bytes


def _is_copied(record: LossRecord, name: str | None, dtype: str) -> bool:
    """Return whether a tensor in a region is copied because its values are checked."""
    if name is None or dtype not in FLOATS:
        return True
    return name in record.inputs and record.inputs[name].rule_for(is_float=True).enforced


@dataclass(slots=True)
class _Resolving:
    """One evaluation's references, and the tensors that were found for them so far."""

    record: LossRecord
    find_resident: FindResident
    map_region: MapRegion
    arrays: dict[str, Array] = field(default_factory=dict)
    """The tensors that were found, by path."""
    extents: dict[str, Extent] = field(default_factory=dict)
    resident_bytes: int = 0
    missing_residents: list[Violation] = field(default_factory=list)
    missing_regions: list[Violation] = field(default_factory=list)

    def resolve(self, reference: Reference) -> Sequence[Violation]:
        """Find one tensor; returns the violations of a wrong reference."""
        try:
            array = (
                self._resident(reference)
                if reference.region is None
                else self._in_region(reference, reference.region)
            )
        except MalformedTensorError as error:
            return error.violations
        if array is not None:
            self.arrays[reference.path] = array
        return ()

    def _resident(self, reference: Reference) -> Array | None:
        """Find a resident tensor; None, with a violation, when it is not stored."""
        array = self.find_resident(reference.sha256)
        if array is None:
            self.missing_residents.append(_not_held(reference))
            return None
        _check_resident(reference, array)
        if reference.input_name is not None:
            self.resident_bytes += array.nbytes
        return array

    def _in_region(self, reference: Reference, region: tensor_pb2.Region) -> Array | None:
        """Read a tensor in a region; None, with a violation, when the region does not exist."""
        name, spec, where = reference.input_name, reference.spec, reference.path
        copied = _is_copied(self.record, name, spec.wire_type.name)
        try:
            array = read_region(spec, region, where, self.map_region, own=copied)
        except UnknownRegionError:
            self.missing_regions.append(Violation(f"{where}.region", MissingRegionError.TEXT))
            return None
        self.extents[where] = extent_of(region, spec)
        if not copied and name in self.record.inputs:
            self.resident_bytes += array.nbytes
        return array


def _not_held(reference: Reference) -> Violation:
    text = f"this server does not hold {reference.sha256.hex()}"
    return Violation(f"{reference.path}.resident", text)


def _check_resident(reference: Reference, array: Array) -> None:
    """Refuse a reference whose data type or shape is not that of the resident tensor."""
    spec, where = reference.spec, reference.path
    wrong = []
    if array.dtype != spec.wire_type.numpy:
        text = f"is {spec.wire_type.name}; the resident tensor is {array.dtype.name}"
        wrong.append(Violation(f"{where}.data_type", text))
    if array.shape != spec.shape:
        text = f"is {list(spec.shape)}; the resident tensor is {list(array.shape)}"
        wrong.append(Violation(f"{where}.shape", text))
    if wrong:
        raise MalformedTensorError(wrong)


def read_tensor(
    tensor: tensor_pb2.Tensor,
    where: str,
    detached: memoryview | None,
    find_resident: FindResident,
    map_region: MapRegion,
) -> Array:
    """Return the array of a tensor that is no part of an evaluation; of one in a region, a copy.

    `detached` are its elements if they were cut out of its message. Raises MalformedTensorError,
    MissingResidentError and MissingRegionError.
    """
    if tensor.WhichOneof("source") not in ("resident", "region"):
        return decode_tensor(tensor, where, detached=detached)
    reference = read_reference(tensor, where)
    if reference.region is not None:
        try:
            return read_region(reference.spec, reference.region, where, map_region, own=True)
        except UnknownRegionError:
            missing = Violation(f"{where}.region", MissingRegionError.TEXT)
            raise MissingRegionError([missing]) from None
    array = find_resident(reference.sha256)
    if array is None:
        raise MissingResidentError([_not_held(reference)])
    _check_resident(reference, array)
    return array


def resolve(
    request: Request, record: LossRecord, find_resident: FindResident, map_region: MapRegion
) -> Request:
    """Return a request with the arrays of its references; wrong references become violations.

    Raises NotServedError for resident tensors where none are kept, and MissingResidentError or
    MissingRegionError when the only fault is that tensors are not stored or regions are gone.
    """
    if not request.references and not request.destinations:
        return request
    found = _Resolving(record, find_resident, map_region)
    violations: list[Violation] = []
    start = 0
    for each in request.references:
        # In the order of the message, among the violations of form.
        violations += request.violations[start : each.violations_before]
        start = each.violations_before
        violations += found.resolve(each)
    violations += request.violations[start:]
    if found.missing_residents and not violations:
        raise MissingResidentError(found.missing_residents)
    if found.missing_regions and not violations:
        raise MissingRegionError(found.missing_regions)
    arrays = found.arrays
    inputs = dict(request.inputs)
    for each in request.references:
        if each.input_name is not None:
            inputs[each.input_name] = arrays.get(each.path)
    return replace(
        request,
        inputs=inputs,
        grad_output=arrays.get("grad_output", request.grad_output),
        sample_weight=arrays.get("sample_weight", request.sample_weight),
        violations=(*violations, *_unused_destinations(request)),
        resident_bytes=found.resident_bytes,
        extents=found.extents,
    )


def _unused_destinations(request: Request) -> list[Violation]:
    """Find destinations of gradients that were not requested, or not as arrays."""
    if request.factored and request.destinations:
        return [Violation("gradient_destinations", "have no meaning for factored gradients")]
    return [
        Violation(path("gradient_destinations", name), "is not among gradients_for")
        for name in request.destinations
        if name not in request.gradients_for
    ]


def resolve_destinations(work: Work, request: Request, map_region: MapRegion) -> Work:
    """Return an evaluation with the arrays in regions that its gradients are written to.

    Each has the gradient's type and shape. Raises InvalidEvaluationError where a destination does
    not fit or overlaps another tensor of this evaluation, and MissingRegionError.
    """
    if not request.destinations:
        return work
    found: dict[str, Destination] = {}
    taken = dict(request.extents)
    wrong: list[Violation] = []
    missing: list[Violation] = []
    for name, region in request.destinations.items():
        where = path("gradient_destinations", name)
        spec = spec_of(work.gradient_type(name), work.inputs[name].shape)
        try:
            part = slice_region(region, spec, where, map_region)
        except MalformedTensorError as error:
            wrong.extend(error.violations)
            continue
        except UnknownRegionError:
            missing.append(Violation(where, MissingRegionError.TEXT))
            continue
        extent = extent_of(region, spec)
        wrong += [Violation(where, f"overlaps {each}") for each in _overlapping(extent, taken)]
        taken[where] = extent
        array = part.view(spec.wire_type.numpy).reshape(spec.shape)
        found[name] = Destination(array, region)
    if wrong:
        raise InvalidEvaluationError(wrong)
    if missing:
        raise MissingRegionError(missing)
    return replace(work, destinations=found)


def _overlapping(extent: Extent, taken: dict[str, Extent]) -> list[str]:
    return [where for where, other in taken.items() if extent.overlaps(other)]
