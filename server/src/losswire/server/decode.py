"""Decode: from an `Evaluation` message to arrays and Python values; judges form only."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

import numpy as np

from losswire.server.errors import (
    InvalidEvaluationError,
    MissingResidentError,
    NotServedError,
)
from losswire.server.values import Array
from losswire.v1 import evaluation_pb2, tensor_pb2
from losswire.wire import (
    ID_BYTES,
    MalformedTensorError,
    OptionScalar,
    Violation,
    decode_option,
    decode_tensor,
    read_form,
)

Find = Callable[[bytes], Array | None]
"""Gives the resident tensor of a SHA-256; None when it is not stored."""

_MOST_ENTRIES = 64
"""The most inputs, options or gradients of one evaluation; no loss has nearly as many."""

_NAME_SHOWN = 64
"""How much of a name that the caller made up is repeated to them."""


def find_nothing(sha256: bytes) -> Array | None:
    """Find no resident tensor: there are none."""
    del sha256
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
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
    """How much of the inputs is resident, in bytes."""


@dataclass(frozen=True, slots=True)
class _Found:
    """What comes up while the tensors of an evaluation are read."""

    find: Find
    violations: list[Violation] = field(default_factory=list)
    missing: list[Violation] = field(default_factory=list)


def decode(
    evaluation: evaluation_pb2.Evaluation,
    find: Find = find_nothing,
    streamed: Collection[str] = (),
) -> Request:
    """Read an evaluation, its resident tensors with `find`. Malformed tensors are collected.

    The inputs named in `streamed` have no data; a stand-in of their type and shape,
    which takes no memory, is put in their place.

    Raises NotServedError for the parts of the contract that are not filled yet,
    InvalidEvaluationError at once for floods of entries, which would take long to judge, and
    MissingResidentError when nothing is wrong but that resident tensors are not stored.
    """
    _refuse_floods(evaluation)
    if evaluation.gradient_destinations:
        message = "gradients into shared regions are not served yet"
        raise NotServedError(message)
    found = _Found(find)
    violations = found.violations
    if evaluation.gradient_form not in evaluation_pb2.GradientForm.values():
        text = f"is {evaluation.gradient_form}; expected GRADIENT_FORM_DENSE or "
        violations.append(Violation("gradient_form", text + "GRADIENT_FORM_FACTORED"))
    inputs = {
        name: (_stand_in if name in streamed else _tensor)(tensor, path("inputs", name), found)
        for name, tensor in sorted(evaluation.inputs.items())
    }
    has = evaluation.HasField
    request = Request(
        loss=evaluation.loss,
        inputs=inputs,
        options={name: decode_option(value) for name, value in evaluation.options.items()},
        reduction=evaluation.reduction,
        gradients_for=tuple(evaluation.gradients_for),
        grad_output=_tensor(evaluation.grad_output, "grad_output", found)
        if has("grad_output")
        else None,
        sample_weight=_tensor(evaluation.sample_weight, "sample_weight", found)
        if has("sample_weight")
        else None,
        normalizer=evaluation.normalizer if has("normalizer") else None,
        gradient_data_type=evaluation.gradient_data_type,
        compute_data_type=evaluation.compute_data_type,
        engine=evaluation.engine,
        factored=evaluation.gradient_form == evaluation_pb2.GRADIENT_FORM_FACTORED,
        violations=tuple(violations),
        streamed=frozenset(streamed),
        resident_bytes=sum(
            array.nbytes
            for name, array in inputs.items()
            if array is not None and evaluation.inputs[name].HasField("resident")
        ),
    )
    if found.missing and not violations:
        raise MissingResidentError(found.missing)
    return request


def _refuse_floods(evaluation: evaluation_pb2.Evaluation) -> None:
    counts = {
        "inputs": len(evaluation.inputs),
        "options": len(evaluation.options),
        "gradients_for": len(evaluation.gradients_for),
    }
    floods = [
        Violation(field, f"has {count} entries; at most {_MOST_ENTRIES} are accepted")
        for field, count in counts.items()
        if count > _MOST_ENTRIES
    ]
    if floods:
        raise InvalidEvaluationError(floods)


def path(field: str, name: str) -> str:
    """Write the path of a map's entry; a name is repeated only in part when it is long."""
    shown = name if len(name) <= _NAME_SHOWN else name[:_NAME_SHOWN] + "..."
    return f'{field}["{shown}"]'


def _tensor(tensor: tensor_pb2.Tensor, where: str, found: _Found) -> Array | None:
    """Decode one tensor, or note what is wrong with it and give None."""
    source = tensor.WhichOneof("source")
    if source == "region":
        message = f"{where}: a tensor in a shared region is not served yet"
        raise NotServedError(message)
    try:
        return (
            _resident(tensor, where, found)
            if source == "resident"
            else decode_tensor(tensor, where)
        )
    except MalformedTensorError as error:
        found.violations.extend(error.violations)
        return None


def _resident(tensor: tensor_pb2.Tensor, where: str, found: _Found) -> Array | None:
    """Find a resident tensor, or note that it is not stored and give None.

    Raises MalformedTensorError when it is not what the message says.
    """
    form = read_form(tensor, where)
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
    return array


def _stand_in(tensor: tensor_pb2.Tensor, where: str, found: _Found) -> Array | None:
    """Make an array of a tensor's type and shape, or note what is wrong with it and give None."""
    try:
        form = read_form(tensor, where)
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
