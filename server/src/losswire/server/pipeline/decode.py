"""Decode: from an `Evaluation` message to arrays and Python values; judges form only."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

import numpy as np

from losswire.server.catalogue.layouts import FLOATS
from losswire.server.catalogue.value_rules import Array
from losswire.server.errors import (
    InvalidEvaluationError,
    MissingRegionError,
    MissingResidentError,
)
from losswire.server.memory.regions.places import (
    Extent,
    MapRegion,
    UnknownRegionError,
    map_nothing,
    read_region,
)
from losswire.v1 import evaluation_pb2, tensor_pb2
from losswire.wire import (
    ID_BYTES,
    MalformedTensorError,
    OptionScalar,
    Violation,
    decode_option,
    decode_tensor,
    read_spec,
)

Find = Callable[[bytes], Array | None]
"""Gives the resident tensor of a SHA-256; None when it is not stored."""

Detached = Mapping[str, memoryview]
"""The elements of tensors that stand beside their message, by the tensors' paths in it."""

NOTHING_DETACHED: Detached = {}

_MOST_ENTRIES = 64
"""The most inputs, options or gradients of one evaluation; no loss has nearly as many."""

_GRADIENT_FORMS = frozenset(evaluation_pb2.GradientForm.values())
_LOOKED_AT = ("grad_output", "sample_weight")
"""The tensors beside the inputs. Out of a region they are copied."""

_NAME_SHOWN = 64
"""How much of a name that the caller made up is repeated to them."""


def find_nothing(sha256: bytes) -> Array | None:
    """Find no resident tensor: there are none."""
    del sha256
    return None


# Not frozen: that would make constructing one, which every call does, three times as slow.
@dataclass(slots=True, kw_only=True)
class Request:
    """An evaluation whose form has been judged; None stands for a malformed tensor."""

    loss: str
    inputs: Mapping[str, Array | None]
    options: Mapping[str, OptionScalar | None]
    reduction: int
    gradients_for: tuple[str, ...]
    grad_output: Array | None
    sample_weight: Array | None
    normalizer: float | None
    gradient_data_type: int
    compute_data_type: int
    engine: int
    factored: bool
    """Whether gradients are asked for in factored form."""
    violations: tuple[Violation, ...]
    """What is wrong with the form; validation adds what is wrong with the meaning."""
    streamed: frozenset[str] = frozenset()
    """The inputs that have a type and a shape, but no values yet."""
    resident_bytes: int = 0
    """How much of the inputs is resident or stays in regions, in bytes."""
    in_place: frozenset[str] = frozenset()
    """The inputs that are read where they lie in regions, unless their values are checked."""
    extents: Mapping[str, Extent] = field(default_factory=dict)
    """Which bytes of regions the tensors take, by their paths."""
    destinations: Mapping[str, tensor_pb2.Region] = field(default_factory=dict)
    """Where gradients go, by input name; that they fit there is not known yet."""


@dataclass(slots=True)
class _Found:
    """What comes up while the tensors of an evaluation are read."""

    find: Find
    map_region: MapRegion
    detached: Detached
    violations: list[Violation] = field(default_factory=list)
    missing: list[Violation] = field(default_factory=list)
    resident_bytes: int = 0
    missing_regions: list[Violation] = field(default_factory=list)
    extents: dict[str, Extent] = field(default_factory=dict)


def decode(
    evaluation: evaluation_pb2.Evaluation,
    find: Find = find_nothing,
    streamed: Collection[str] = (),
    map_region: MapRegion = map_nothing,
    detached: Detached = NOTHING_DETACHED,
) -> Request:
    """Read an evaluation, its resident tensors with `find` and its regions with `map_region`.

    `detached` are the elements that stand beside it.

    Malformed tensors are collected.

    The inputs named in `streamed` have no data; a stand-in of their type and shape,
    which takes no memory, is put in their place.

    Raises NotServedError for resident tensors where none are kept, InvalidEvaluationError at
    once for floods of entries, which would take long to judge, and MissingResidentError or
    MissingRegionError when nothing is wrong but that tensors are not stored or regions are gone.
    """
    _refuse_floods(evaluation)
    found = _Found(find, map_region, detached)
    violations = found.violations
    if evaluation.gradient_form not in _GRADIENT_FORMS:
        text = f"is {evaluation.gradient_form}; expected GRADIENT_FORM_DENSE or "
        violations.append(Violation("gradient_form", text + "GRADIENT_FORM_FACTORED"))
    inputs = {
        name: _stand_in(tensor, path("inputs", name), found)
        if name in streamed
        else _tensor(tensor, path("inputs", name), found, detached.get(f'inputs["{name}"]'))
        for name, tensor in sorted(evaluation.inputs.items())
    }
    resident_bytes = found.resident_bytes
    destinations = dict(sorted(evaluation.gradient_destinations.items()))
    misplaced = _misplaced(evaluation) if destinations else ()
    request = Request(
        loss=evaluation.loss,
        inputs=inputs,
        options={name: decode_option(value) for name, value in evaluation.options.items()},
        reduction=evaluation.reduction,
        gradients_for=tuple(evaluation.gradients_for),
        grad_output=_optional(evaluation, "grad_output", found),
        sample_weight=_optional(evaluation, "sample_weight", found),
        normalizer=evaluation.normalizer if evaluation.HasField("normalizer") else None,
        gradient_data_type=evaluation.gradient_data_type,
        compute_data_type=evaluation.compute_data_type,
        engine=evaluation.engine,
        factored=evaluation.gradient_form == evaluation_pb2.GRADIENT_FORM_FACTORED,
        violations=(*violations, *misplaced),
        streamed=frozenset(streamed),
        resident_bytes=resident_bytes,
        in_place=_read_in_place(evaluation, inputs) if found.extents else frozenset(),
        extents=found.extents,
        destinations=destinations,
    )
    if found.missing and not violations:
        raise MissingResidentError(found.missing)
    if found.missing_regions and not violations:
        raise MissingRegionError(found.missing_regions)
    return request


def _optional(evaluation: evaluation_pb2.Evaluation, name: str, found: _Found) -> Array | None:
    """Decode a tensor that an evaluation may do without."""
    if not evaluation.HasField(name):  # type: ignore[arg-type]  # one of its fields
        return None
    return _tensor(getattr(evaluation, name), name, found, found.detached.get(name))


def _read_in_place(
    evaluation: evaluation_pb2.Evaluation, inputs: Mapping[str, Array | None]
) -> frozenset[str]:
    """Name the inputs of floating numbers that lie in regions."""
    return frozenset(
        name
        for name, array in inputs.items()
        if array is not None
        and array.dtype.name in FLOATS
        and evaluation.inputs[name].HasField("region")
    )


def _misplaced(evaluation: evaluation_pb2.Evaluation) -> list[Violation]:
    """Find destinations of gradients that are not asked for, or not as arrays."""
    if evaluation.gradient_form == evaluation_pb2.GRADIENT_FORM_FACTORED:
        return [Violation("gradient_destinations", "have no meaning for factored gradients")]
    return [
        Violation(path("gradient_destinations", name), "is not among gradients_for")
        for name in sorted(evaluation.gradient_destinations)
        if name not in evaluation.gradients_for
    ]


def _refuse_floods(evaluation: evaluation_pb2.Evaluation) -> None:
    counts = {
        "inputs": len(evaluation.inputs),
        "options": len(evaluation.options),
        "gradients_for": len(evaluation.gradients_for),
        "gradient_destinations": len(evaluation.gradient_destinations),
    }
    if max(counts.values()) <= _MOST_ENTRIES:
        return
    floods = [
        Violation(field, f"has {count} entries; at most {_MOST_ENTRIES} are accepted")
        for field, count in counts.items()
        if count > _MOST_ENTRIES
    ]
    raise InvalidEvaluationError(floods)


def path(field: str, name: str) -> str:
    """Write the path of a map's entry; a name is repeated only in part when it is long."""
    shown = name if len(name) <= _NAME_SHOWN else name[:_NAME_SHOWN] + "..."
    return f'{field}["{shown}"]'


def _tensor(
    tensor: tensor_pb2.Tensor, where: str, found: _Found, detached: memoryview | None
) -> Array | None:
    """Decode one tensor, or note what is wrong with it and give None."""
    source = tensor.WhichOneof("source")
    try:
        if source == "resident":
            return _resident(tensor, where, found)
        if source == "region":
            return _shared(tensor, where, found)
        array = decode_tensor(tensor, where, detached=detached)
    except MalformedTensorError as error:
        found.violations.extend(error.violations)
        return None
    # torch reads numbers at multiples of their size only.
    return array if array.flags.aligned else array.copy()


def _resident(tensor: tensor_pb2.Tensor, where: str, found: _Found) -> Array | None:
    """Find a resident tensor, or note that it is not stored and give None.

    Raises MalformedTensorError when it is not what the message says.
    """
    form = read_spec(tensor, where)
    sha256 = tensor.resident.sha256
    if len(sha256) != ID_BYTES:
        text = f"has {len(sha256)} bytes; a SHA-256 has {ID_BYTES}"
        raise MalformedTensorError([Violation(f"{where}.resident.sha256", text)])
    array = found.find(sha256)
    if array is None:
        text = f"this server does not hold {sha256.hex()}"
        found.missing.append(Violation(f"{where}.resident", text))
        return None
    wrong = []
    if array.dtype != form.wire_type.numpy:
        text = f"is {form.wire_type.name}; the resident tensor is {array.dtype.name}"
        wrong.append(Violation(f"{where}.data_type", text))
    if array.shape != form.shape:
        text = f"is {list(form.shape)}; the resident tensor is {list(array.shape)}"
        wrong.append(Violation(f"{where}.shape", text))
    if wrong:
        raise MalformedTensorError(wrong)
    found.resident_bytes += array.nbytes
    return array


def _shared(tensor: tensor_pb2.Tensor, where: str, found: _Found) -> Array | None:
    """Read a tensor in a region, or note that there is no such region and give None.

    Raises MalformedTensorError when it does not lie inside of the region.
    """
    try:
        array, extent = read_region(tensor, where, found.map_region, own=where in _LOOKED_AT)
    except UnknownRegionError:
        found.missing_regions.append(Violation(f"{where}.region", MissingRegionError.TEXT))
        return None
    found.extents[where] = extent
    return array


def _stand_in(tensor: tensor_pb2.Tensor, where: str, found: _Found) -> Array | None:
    """Make an array of a tensor's type and shape, or note what is wrong with it and give None."""
    try:
        form = read_spec(tensor, where)
    except MalformedTensorError as error:
        found.violations.extend(error.violations)
        return None
    if tensor.WhichOneof("source") is None:
        text = "has no data; that of a streamed input is set and empty"
        found.violations.append(Violation(where, text))
        return None
    if tensor.WhichOneof("source") != "data" or len(tensor.data):
        text = "must be empty: this input is streamed"
        found.violations.append(Violation(where + ".data", text))
        return None
    return np.broadcast_to(np.zeros((), form.wire_type.numpy), form.shape)
