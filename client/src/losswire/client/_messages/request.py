"""Serialization of evaluations. Values that no server accepts are refused here, with their path."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

import numpy as np
from google.protobuf.message import EncodeError, Message

from losswire.client._messages.arrays import encode_array, encode_array_spec
from losswire.client._messages.evaluation import DTypeInput, Evaluation
from losswire.v1 import evaluation_pb2, tensor_pb2
from losswire.wire import BY_NAME, encode_option, wire_type_of


def names_of(enum: Any) -> dict[int, str]:
    """Return the Python names of an enum's values: REDUCTION_MEAN of Reduction is `mean`."""
    values = {value.number: value.name for value in enum.DESCRIPTOR.values}
    prefix = values[0].removesuffix("UNSPECIFIED")
    return {number: name.removeprefix(prefix).lower() for number, name in values.items()}


def _numbers_of(enum: Any) -> dict[object, int]:
    return {name: number for number, name in names_of(enum).items() if number}


_REDUCTIONS: dict[object, int] = {None: 0, **_numbers_of(evaluation_pb2.Reduction)}
_ENGINES = _numbers_of(evaluation_pb2.Engine)
_FORMS = _numbers_of(evaluation_pb2.GradientForm)
_MOST_BYTES: Final = 2**31 - 1
_TOO_LARGE: Final = (
    "the request is too large for one message (2 GiB); split the batch: numerators and "
    "denominators of its parts add up"
)
_FLOATS = [each.name for each in BY_NAME.values() if each.is_float]


def serialize(message: Message) -> bytes:
    """Serialize a request; ValueError when it passes protobuf's 2 GiB."""
    try:
        return message.SerializeToString()
    except (EncodeError, ValueError) as error:
        raise ValueError(_TOO_LARGE) from error


def joined(items: Sequence[bytes]) -> bytes:
    """Concatenate messages that have some fields each; raises as `serialize` does."""
    if sum(map(len, items)) > _MOST_BYTES:
        raise ValueError(_TOO_LARGE)
    return b"".join(items)


def fill_evaluation(
    message: evaluation_pb2.Evaluation,
    evaluation: Evaluation,
    prefix: str = "",
    *,
    streamed: Collection[str] = (),
) -> None:
    """Write an evaluation into its message, in place; `streamed` inputs without their data.

    `prefix` is put before the names of arguments in errors. Raises TypeError and ValueError.
    """
    if not isinstance(evaluation, Evaluation):
        path = prefix.removesuffix(".") or "evaluation"
        raise TypeError(f"{path}: expected an Evaluation, got {type(evaluation).__name__}")
    message.loss = text_of(evaluation.loss, f"{prefix}loss")
    for name, value in items_of(evaluation.inputs, prefix, "inputs"):
        encode = encode_array_spec if name in streamed else encode_array
        message.inputs[name].CopyFrom(encode(value, f'{prefix}inputs["{name}"]'))
    for name, option in items_of(evaluation.options, prefix, "options"):
        try:
            message.options[name].CopyFrom(encode_option(option))
        except (TypeError, ValueError) as error:
            raise type(error)(f'{prefix}options["{name}"]: {error}') from error
    message.gradients_for.extend(gradient_names(evaluation.gradients, prefix))
    _fill_choices(message, evaluation, prefix)
    if evaluation.grad_output is not None:
        message.grad_output.CopyFrom(encode_array(evaluation.grad_output, f"{prefix}grad_output"))
    if evaluation.sample_weight is not None:
        weight = encode_array(evaluation.sample_weight, f"{prefix}sample_weight")
        message.sample_weight.CopyFrom(weight)
    if evaluation.normalizer is not None:
        try:
            message.normalizer = float(evaluation.normalizer)
        except (TypeError, ValueError) as error:
            raise type(error)(f"{prefix}normalizer: {error}") from error


def _fill_choices(message: evaluation_pb2.Evaluation, evaluation: Evaluation, prefix: str) -> None:
    message.reduction = _choice(_REDUCTIONS, evaluation.reduction, f"{prefix}reduction")
    message.engine = _choice(_ENGINES, evaluation.engine, f"{prefix}engine")
    message.gradient_form = _choice(_FORMS, evaluation.gradient_form, f"{prefix}gradient_form")
    message.gradient_data_type = float_type(evaluation.gradient_dtype, f"{prefix}gradient_dtype")
    message.compute_data_type = float_type(evaluation.compute_dtype, f"{prefix}compute_dtype")


def text_of(value: object, path: str) -> str:
    """Return a text; TypeError with its path for anything else."""
    if not isinstance(value, str):
        raise TypeError(f"{path}: expected text, got {type(value).__name__}")
    return value


def items_of(mapping: object, prefix: str, field: str) -> list[tuple[str, Any]]:
    """Return the entries of a mapping of names; TypeError with its path for anything else."""
    if not isinstance(mapping, Mapping):
        raise TypeError(
            f"{prefix}{field}: expected a mapping of names, got {type(mapping).__name__}"
        )
    for name in mapping:
        if not isinstance(name, str):
            raise TypeError(f"{prefix}{field}: names are text, got {name!r}")
    return list(mapping.items())


def gradient_names(gradients: object, prefix: str) -> list[str]:
    """Return the names of the gradients asked for; TypeError for anything but a list of names."""
    # A text is a sequence of texts too, and "input" would become five names.
    if isinstance(gradients, str) or not isinstance(gradients, (list, tuple, set, frozenset)):
        raise TypeError(
            f'{prefix}gradients: expected a list of input names, such as ["input"], '
            f"got {gradients!r}"
        )
    return [text_of(name, f"{prefix}gradients[{i}]") for i, name in enumerate(gradients)]


def _choice(numbers: Mapping[object, int], value: object, path: str) -> Any:
    try:
        return numbers[value]
    except (KeyError, TypeError):
        known = ", ".join(repr(name) for name in numbers)
        raise ValueError(f"{path}: expected one of {known}, got {value!r}") from None


def float_type(value: DTypeInput | None, path: str) -> tensor_pb2.DataType.ValueType:
    """Return the number of a floating type; ValueError with its path for anything else."""
    if value is None:
        return tensor_pb2.DATA_TYPE_UNSPECIFIED
    # torch's dtypes print as "torch.bfloat16", and are not imported to be known.
    name = str(value).removeprefix("torch.")
    if name not in _FLOATS:
        try:
            wire_type = wire_type_of(np.dtype(value))
        except TypeError:
            wire_type = None
        name = wire_type.name if wire_type else name
    if name not in _FLOATS:
        raise ValueError(f"{path}: expected one of {', '.join(_FLOATS)}, got {value!r}")
    return BY_NAME[name].data_type
