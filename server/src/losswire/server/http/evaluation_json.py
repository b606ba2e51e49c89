"""From the JSON of an evaluation to the contract's message."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from losswire.server.catalogue.record import LossRecord
from losswire.server.errors import InvalidEvaluationError
from losswire.server.http.message_json import numbers
from losswire.server.http.npy import read_npy
from losswire.server.http.tensors import ENCODINGS, FindSpec, Reading, read_tensor
from losswire.server.pipeline.decode import Detached
from losswire.server.pipeline.field_path import path
from losswire.v1 import evaluation_pb2, tensor_pb2
from losswire.wire import NONFINITE, MalformedTensorError, encode_option

_INT64: Final = 1 << 63
_NO_FILES: Final[Mapping[str, memoryview]] = {}


@dataclass(frozen=True, slots=True)
class Read:
    """An evaluation that was read, and how its answer is to be written."""

    evaluation: evaluation_pb2.Evaluation
    detached: Detached
    """The elements of its tensors, by path."""
    encoding: str
    """A name of `ENCODINGS`."""


@dataclass(slots=True)
class _Target:
    """The message that is filled, and what filling it needs to know."""

    evaluation: evaluation_pb2.Evaluation
    record: LossRecord | None
    """The record of the loss; None when there is no such loss, which is judged later."""
    reading: Reading
    wide: bool
    """Whether plain numbers are float64, because that is computed in."""
    encoding: str = "list"


def read_evaluation(
    content: Mapping[str, Any],
    record: LossRecord | None,
    find_spec: FindSpec,
    files: Mapping[str, memoryview] = _NO_FILES,
) -> Read:
    """Read the JSON of an evaluation and its tensors in the .npy format, on any thread.

    Judges the form only: what the message can express is judged as for every other door. Raises
    InvalidEvaluationError with all violations.
    """
    wide = content.get("compute_data_type") == "float64"
    target = _Target(evaluation_pb2.Evaluation(), record, Reading(find_spec), wide)
    for name, value in content.items():
        reader = _FIELDS.get(name)
        if reader is None:
            target.reading.add(name[:64], "is no field of this request")
        elif value is not None:
            reader(target, name, value)
    for name, data in files.items():
        _read_file(target, name, data)
    if target.reading.violations:
        raise InvalidEvaluationError(target.reading.violations)
    return Read(target.evaluation, target.reading.detached, target.encoding)


def _read_text(target: _Target, name: str, value: object) -> None:
    if not isinstance(value, str):
        target.reading.add(name, "must be a text")
        return
    setattr(target.evaluation, name, value)


def _read_inputs(target: _Target, name: str, value: object) -> None:
    if not isinstance(value, dict):
        target.reading.add(name, "must be an object of tensors")
        return
    for key, content in value.items():
        guess = number_types(target.record, key, wide=target.wide)
        tensor = read_tensor(content, path(name, key), guess, target.reading)
        if tensor is not None:
            target.evaluation.inputs[key].CopyFrom(tensor)


def number_types(record: LossRecord | None, name: str, *, wide: bool) -> tuple[str, str]:
    """Return the data types of plain integers and of other numbers in an input of a loss.

    `wide`: float64 takes the place of float32. None: a loss that nobody knows.
    """
    real = "float64" if wide else "float32"
    specs = [each.inputs.get(name) for each in record.layouts] if record else []
    whole = any(each is not None and "int64" in each.dtypes for each in specs)
    return ("int64" if whole else real), real


def _read_tensor(target: _Target, name: str, value: object) -> None:
    wide = "float64" if target.wide else "float32"
    tensor = read_tensor(value, name, (wide, wide), target.reading)
    if tensor is not None:
        getattr(target.evaluation, name).CopyFrom(tensor)


def _read_file(target: _Target, name: str, data: memoryview) -> None:
    """Read a tensor in the .npy format, whose part is named by its field."""
    evaluation, reading = target.evaluation, target.reading
    group, _, key = name.partition(".")
    if group == "inputs" and key:
        where, is_there = path(group, key), key in evaluation.inputs
    elif name in ("grad_output", "sample_weight"):
        where, is_there = name, evaluation.HasField(name)  # type: ignore[arg-type]  # one of these two
    else:
        reading.add(name[:64], "is no part of this request; a tensor is inputs.NAME")
        return
    if is_there:
        reading.add(where, "is there twice")
        return
    try:
        tensor, reading.detached[where] = read_npy(data, where)
    except MalformedTensorError as error:
        reading.violations.extend(error.violations)
        return
    (evaluation.inputs[key] if key else getattr(evaluation, name)).CopyFrom(tensor)


def _read_options(target: _Target, name: str, value: object) -> None:
    if not isinstance(value, dict):
        target.reading.add(name, "must be an object")
        return
    record = target.record
    for key, content in value.items():
        is_double = (
            record is not None
            and key in record.options
            and (record.option_fields[key].type is float)
        )
        option = (
            NONFINITE.get(content, content) if is_double and isinstance(content, str) else content
        )
        if isinstance(option, bool | float | str) or (
            isinstance(option, int) and -_INT64 <= option < _INT64
        ):
            target.evaluation.options[key].CopyFrom(encode_option(option))
        else:
            target.reading.add(path(name, key), "must be a number, true, false or a text")


def _read_names(target: _Target, name: str, value: object) -> None:
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        target.reading.add(name, "must be a list of texts")
        return
    target.evaluation.gradients_for.extend(value)


def _read_normalizer(target: _Target, name: str, value: object) -> None:
    number = NONFINITE.get(value) if isinstance(value, str) else value
    if isinstance(number, bool) or not isinstance(number, int | float):
        target.reading.add(name, "must be a number")
        return
    try:
        target.evaluation.normalizer = number
    except OverflowError:
        target.reading.add(name, "is an integer beyond all floating point numbers")


def _choice(known: Mapping[str, int]) -> "_Reader":
    """Return the reader of a field whose values have short names."""

    def read(target: _Target, name: str, value: object) -> None:
        if not isinstance(value, str) or value not in known:
            target.reading.add(name, f"must be one of {', '.join(known)}")
            return
        setattr(target.evaluation, name, known[value])

    return read


def _read_encoding(target: _Target, name: str, value: object) -> None:
    if not isinstance(value, str) or value not in ENCODINGS:
        target.reading.add(name, f"must be one of {', '.join(ENCODINGS)}")
        return
    target.encoding = value


_Reader = Callable[[_Target, str, Any], None]

_DATA_TYPE: Final = _choice(numbers(tensor_pb2.DataType.DESCRIPTOR))

_FIELDS: Final[Mapping[str, _Reader]] = {
    "loss": _read_text,
    "inputs": _read_inputs,
    "options": _read_options,
    "reduction": _choice(numbers(evaluation_pb2.Reduction.DESCRIPTOR)),
    "gradients_for": _read_names,
    "grad_output": _read_tensor,
    "sample_weight": _read_tensor,
    "normalizer": _read_normalizer,
    "gradient_form": _choice(numbers(evaluation_pb2.GradientForm.DESCRIPTOR)),
    "gradient_data_type": _DATA_TYPE,
    "compute_data_type": _DATA_TYPE,
    "engine": _choice(numbers(evaluation_pb2.Engine.DESCRIPTOR)),
    "encoding": _read_encoding,
}
"""The fields of a request, and how each is read."""
