"""Decode: from an `Evaluation` message to arrays and Python values; checks form only."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from losswire.server.catalogue.value_rules import Array
from losswire.server.errors import InvalidEvaluationError
from losswire.server.memory.regions.places import Extent
from losswire.server.pipeline.field_path import path
from losswire.v1 import evaluation_pb2, tensor_pb2
from losswire.wire import (
    ID_BYTES,
    MalformedTensorError,
    OptionScalar,
    TensorSpec,
    Violation,
    decode_option,
    decode_tensor,
    read_spec,
)

Detached = Mapping[str, memoryview]
"""Elements of tensors that were cut out of their message, by the tensors' paths in it."""

NOTHING_DETACHED: Final[Detached] = {}

_MAX_ENTRIES: Final = 64
"""The most inputs, options or gradients of one evaluation; no loss has nearly as many."""

_GRADIENT_FORMS: Final = frozenset(evaluation_pb2.GradientForm.values())


@dataclass(frozen=True, slots=True)
class Reference:
    """A tensor whose elements are on the server already: a resident tensor, or one in a region."""

    path: str
    input_name: str | None
    """The input; None for `grad_output` and `sample_weight`, which the path names."""
    spec: TensorSpec
    sha256: bytes = b""
    """The id of a resident tensor."""
    region: tensor_pb2.Region | None = None
    """The offset in a region; None for a resident tensor."""
    violations_before: int = 0
    """The violations of the request that come before those of this tensor."""


# Not frozen: that would make constructing one, which every call does, three times as slow.
@dataclass(slots=True, kw_only=True)
class Request:
    """An evaluation whose form was checked; None marks a malformed or unresolved tensor."""

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
    """Whether gradients are requested in factored form."""
    violations: tuple[Violation, ...]
    """The violations of the form; validation adds those of the meaning."""
    streamed: frozenset[str] = frozenset()
    """The inputs that have a type and a shape, but no values yet."""
    references: tuple[Reference, ...] = ()
    """The tensors that `resolve` has to find."""
    destinations: Mapping[str, tensor_pb2.Region] = field(default_factory=dict)
    """Where gradients go, by input name; `resolve_destinations` checks that they fit there."""
    resident_bytes: int = 0
    """The bytes of inputs that are resident or are read in place in regions."""
    extents: Mapping[str, Extent] = field(default_factory=dict)
    """The bytes of regions that the resolved tensors take, by the tensors' paths."""


@dataclass(slots=True)
class _Decoding:
    """The violations and references found while the tensors of an evaluation are read."""

    detached: Detached
    violations: list[Violation] = field(default_factory=list)
    references: list[Reference] = field(default_factory=list)


def decode(
    evaluation: evaluation_pb2.Evaluation,
    streamed: Collection[str] = (),
    detached: Detached = NOTHING_DETACHED,
) -> Request:
    """Read an evaluation; its resident tensors and those in regions become `references`.

    The inputs named in `streamed` have no data yet: each becomes a stand-in array of its type
    and shape, which takes no memory. `detached` are the elements that were cut out of the message.

    Malformed tensors are collected as violations. Raises InvalidEvaluationError at once for floods
    of entries, which would take long to check.
    """
    _refuse_floods(evaluation)
    decoding = _Decoding(detached)
    violations = decoding.violations
    if evaluation.gradient_form not in _GRADIENT_FORMS:
        text = f"is {evaluation.gradient_form}; expected GRADIENT_FORM_DENSE or "
        violations.append(Violation("gradient_form", text + "GRADIENT_FORM_FACTORED"))
    inputs = {
        name: _stand_in(tensor, path("inputs", name), decoding)
        if name in streamed
        else _tensor(
            tensor, path("inputs", name), decoding, detached.get(f'inputs["{name}"]'), name
        )
        for name, tensor in sorted(evaluation.inputs.items())
    }
    return Request(
        loss=evaluation.loss,
        inputs=inputs,
        options={name: decode_option(value) for name, value in evaluation.options.items()},
        reduction=evaluation.reduction,
        gradients_for=tuple(evaluation.gradients_for),
        grad_output=_optional(evaluation, "grad_output", decoding),
        sample_weight=_optional(evaluation, "sample_weight", decoding),
        normalizer=evaluation.normalizer if evaluation.HasField("normalizer") else None,
        gradient_data_type=evaluation.gradient_data_type,
        compute_data_type=evaluation.compute_data_type,
        engine=evaluation.engine,
        factored=evaluation.gradient_form == evaluation_pb2.GRADIENT_FORM_FACTORED,
        violations=tuple(violations),
        streamed=frozenset(streamed),
        references=tuple(decoding.references),
        destinations=dict(sorted(evaluation.gradient_destinations.items())),
    )


def _optional(
    evaluation: evaluation_pb2.Evaluation, name: str, decoding: _Decoding
) -> Array | None:
    """Decode a tensor that an evaluation may leave unset."""
    if not evaluation.HasField(name):  # type: ignore[arg-type]  # one of its fields
        return None
    return _tensor(getattr(evaluation, name), name, decoding, decoding.detached.get(name), None)


def _refuse_floods(evaluation: evaluation_pb2.Evaluation) -> None:
    """Raise InvalidEvaluationError for more entries than any loss has."""
    counts = {
        "inputs": len(evaluation.inputs),
        "options": len(evaluation.options),
        "gradients_for": len(evaluation.gradients_for),
        "gradient_destinations": len(evaluation.gradient_destinations),
    }
    if max(counts.values()) <= _MAX_ENTRIES:
        return
    floods = [
        Violation(field, f"has {count} entries; at most {_MAX_ENTRIES} are accepted")
        for field, count in counts.items()
        if count > _MAX_ENTRIES
    ]
    raise InvalidEvaluationError(floods)


def _tensor(
    tensor: tensor_pb2.Tensor,
    where: str,
    decoding: _Decoding,
    detached: memoryview | None,
    input_name: str | None,
) -> Array | None:
    """Decode one tensor; None for a reference, or after adding its violations."""
    source = tensor.WhichOneof("source")
    try:
        if source in ("resident", "region"):
            before = len(decoding.violations)
            decoding.references.append(read_reference(tensor, where, input_name, before))
            return None
        array = decode_tensor(tensor, where, detached=detached)
    except MalformedTensorError as error:
        decoding.violations.extend(error.violations)
        return None
    # torch reads numbers at multiples of their size only.
    return array if array.flags.aligned else array.copy()


def read_reference(
    tensor: tensor_pb2.Tensor, where: str, input_name: str | None = None, before: int = 0
) -> Reference:
    """Read the reference to a tensor; MalformedTensorError when its form is wrong."""
    spec = read_spec(tensor, where)
    if tensor.HasField("region"):
        return Reference(where, input_name, spec, region=tensor.region, violations_before=before)
    sha256 = tensor.resident.sha256
    if len(sha256) != ID_BYTES:
        text = f"has {len(sha256)} bytes; a SHA-256 has {ID_BYTES}"
        raise MalformedTensorError([Violation(f"{where}.resident.sha256", text)])
    return Reference(where, input_name, spec, sha256, violations_before=before)


def _stand_in(tensor: tensor_pb2.Tensor, where: str, decoding: _Decoding) -> Array | None:
    """Return an array of a tensor's type and shape; None after adding the tensor's violations."""
    try:
        spec = read_spec(tensor, where)
    except MalformedTensorError as error:
        decoding.violations.extend(error.violations)
        return None
    if tensor.WhichOneof("source") is None:
        text = "has no data; that of a streamed input is set and empty"
        decoding.violations.append(Violation(where, text))
        return None
    if tensor.WhichOneof("source") != "data" or len(tensor.data):
        text = "must be empty: this input is streamed"
        decoding.violations.append(Violation(where + ".data", text))
        return None
    return np.broadcast_to(np.zeros((), spec.wire_type.numpy), spec.shape)
