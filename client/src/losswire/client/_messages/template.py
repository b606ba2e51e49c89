"""Requests of a known form: what was sent before, with other numbers, is not composed again.

A training loop sends one form over and over: the same loss, names, types, shapes, options and
choices. Protobuf writes such messages with the same bytes, but for the numbers, which all lie in
the same places. So the bytes between them are kept, by everything that they follow from.
"""

import sys
import threading
from collections.abc import Iterator, Sequence
from struct import Struct
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from losswire.client._messages.evaluation import Evaluation
from losswire.client._messages.request import fill_evaluation, joined, serialize
from losswire.v1 import evaluation_pb2, loss_service_pb2, tensor_pb2
from losswire.wire import fields, read_varint, varint

SMALL_BYTES: Final = 96 * 1024
"""The bytes of a message up to which nothing else is to be decided: it always fits and is never
worth shared memory."""

MOST_FORMS: Final = 1024
"""How many forms are kept; each takes some hundred bytes."""

Payload: TypeAlias = npt.NDArray[Any] | bytes
_Key: TypeAlias = tuple[Any, ...]
Form: TypeAlias = tuple[_Key, list[Payload]]
"""What the bytes between the numbers of an evaluation follow from, and the numbers."""

_DOUBLE: Final = Struct("<d").pack

_CONTAINERS: Final = frozenset({(dict, dict, list), (dict, dict, tuple)})
"""What inputs, options and the names of gradients come in."""
_OPTIONS: Final = frozenset({bool, int, str})
"""The options that belong to the form, because the length of the message follows from them."""
_TYPE_NAMES: Final = (str, type, np.dtype, type(None))
"""What a floating type is told by. Other things may be equal to one of these, and be none."""

_NAME, _VALUE = 1, 2
"""The fields of a map's entry."""
_INPUT: Final = evaluation_pb2.Evaluation.INPUTS_FIELD_NUMBER
_OPTION: Final = evaluation_pb2.Evaluation.OPTIONS_FIELD_NUMBER
_GRAD_OUTPUT: Final = evaluation_pb2.Evaluation.GRAD_OUTPUT_FIELD_NUMBER
_SAMPLE_WEIGHT: Final = evaluation_pb2.Evaluation.SAMPLE_WEIGHT_FIELD_NUMBER
_NORMALIZER: Final = evaluation_pb2.Evaluation.NORMALIZER_FIELD_NUMBER
_DATA: Final = tensor_pb2.Tensor.DATA_FIELD_NUMBER
_NUMBER: Final = evaluation_pb2.OptionValue.DOUBLE_VALUE_FIELD_NUMBER


def _tag(field: int) -> bytes:
    return varint(field << 3 | 2)


ALONE: Final = _tag(loss_service_pb2.EvaluateRequest.EVALUATION_FIELD_NUMBER)
"""What stands before an evaluation in a request of its own."""
AMONG_MANY: Final = _tag(loss_service_pb2.EvaluateManyRequest.EVALUATIONS_FIELD_NUMBER)
"""What stands before each evaluation of many in one request."""
_STREAMED: Final = _tag(loss_service_pb2.EvaluateStreamRequest.EVALUATION_FIELD_NUMBER)
_ID: Final = varint(loss_service_pb2.EvaluateStreamRequest.ID_FIELD_NUMBER << 3)


def in_stream(number: int) -> bytes:
    """Give what stands before the evaluation of an item of a stream: its number, for one."""
    # What is 0 is left out.
    return _ID + varint(number) + _STREAMED if number else _STREAMED


class Template:
    """The bytes of an evaluation between its numbers."""

    __slots__ = ("_parts", "_places", "small")

    def __init__(self, body: bytes, spans: Sequence[tuple[int, int]]) -> None:
        """Take an evaluation, and where each of its numbers begins and ends."""
        self.small = len(body) <= SMALL_BYTES
        """Whether nothing but sending it is to be decided."""
        self._parts: list[Payload] = [b"", varint(len(body))]
        places = dict.fromkeys(spans, 0)
        position = 0
        for start, stop in sorted(spans):
            places[start, stop] = len(self._parts) + 1
            self._parts += body[position:start], b""
            position = stop
        self._parts.append(body[position:])
        self._places = tuple(places.values())

    @classmethod
    def of(cls, evaluation: Evaluation, written: bytes) -> "Template":
        """Make one of an evaluation and its request; what lies in regions has no numbers there."""
        body = written[read_varint(written, len(ALONE))[1] :]
        spans = dict(_spans(body))
        return cls(body, [spans[name] for name in _names(evaluation) if name in spans])

    def is_worth_keeping(self, payloads: Sequence[Payload], written: bytes) -> bool:
        """Tell whether it gives a request back that it was made of, and is small itself."""
        beside = sum([len(each) for each in self._parts])
        return beside <= SMALL_BYTES and self.fill(ALONE, payloads) == written

    def fill(self, before: bytes, payloads: Sequence[Payload]) -> bytes:
        """Write an evaluation with other numbers, behind something and its length."""
        parts: list[Any] = self._parts.copy()
        parts[0] = before
        for place, payload in zip(self._places, payloads, strict=True):
            parts[place] = payload
        try:
            return b"".join(parts)
        except TypeError:  # an array that is not contiguous
            return b"".join([each if isinstance(each, bytes) else each.tobytes() for each in parts])


_known: dict[_Key, Template] = {}
_remembering = threading.Lock()


def known_request(form: Form | None, before: bytes) -> bytes | None:
    """Serialize a small evaluation by its form; None when that is not known.

    `before` is what stands before the evaluation's length: `ALONE`, `AMONG_MANY` or `in_stream`.
    What has a known form is valid, has no other tensors than numpy arrays, and asks for no
    factored gradient.
    """
    template = _template_of(form)
    if form is None or template is None or not template.small:
        return None
    return template.fill(before, form[1])


def request(evaluation: Evaluation, before: bytes, prefix: str = "") -> bytes:
    """Serialize an evaluation, and keep its form.

    `before` is as in `known_request`, `prefix` as in `fill_evaluation`, which says what raises.
    """
    form = key_of(evaluation)
    template = _template_of(form)
    if form is not None and template is not None:
        return template.fill(before, form[1])
    message = loss_service_pb2.EvaluateRequest()
    fill_evaluation(message.evaluation, evaluation, prefix)
    written = serialize(message)
    del message
    if form is not None and is_plain(evaluation, form[1]):
        _remember(evaluation, form, written)
    # What stands before is not the same in streams only, and these take no large ones.
    return written if before == ALONE else joined((before, written[len(ALONE) :]))


def _template_of(form: Form | None) -> Template | None:
    try:
        return None if form is None else _known.get(form[0])
    except TypeError:  # something in it has no hash
        return None


def key_of(evaluation: Evaluation) -> Form | None:
    """Give what an evaluation's form follows from, and its numbers; None when it has no form.

    The numbers are those of the inputs, then of the options, of `grad_output`, of
    `sample_weight` and the normalizer.
    """
    if type(evaluation) is not Evaluation:
        return None
    inputs, options, gradients = evaluation.inputs, evaluation.options, evaluation.gradients
    if (type(inputs), type(options), type(gradients)) not in _CONTAINERS:
        return None
    key: list[Any] = [
        evaluation.loss,
        evaluation.reduction,
        evaluation.engine,
        evaluation.gradient_form,
        evaluation.gradient_dtype,
        evaluation.compute_dtype,
        (*gradients,),
    ]
    payloads: list[Payload] = []
    for name, array in inputs.items():
        if type(array) is not np.ndarray:
            return None
        key += name, array.dtype, array.shape
        payloads.append(array)
    for name, option in options.items():
        # Equal options may differ in kind: 1 and True and 1.0.
        kind = type(option)
        if kind is float:
            key += name, kind, None
            payloads.append(_DOUBLE(option))
        elif kind in _OPTIONS:
            key += name, kind, option
        else:
            return None
    output, weight = evaluation.grad_output, evaluation.sample_weight
    if output is not None or weight is not None or evaluation.normalizer is not None:
        return _with_rest(evaluation, key, payloads)
    return tuple(key), payloads


def _with_rest(evaluation: Evaluation, key: list[Any], payloads: list[Payload]) -> Form | None:
    """Give a form with what most evaluations do not have."""
    for field, array in (
        (_GRAD_OUTPUT, evaluation.grad_output),
        (_SAMPLE_WEIGHT, evaluation.sample_weight),
    ):
        if type(array) is np.ndarray:
            key += field, array.dtype, array.shape
            payloads.append(array)
        elif array is not None:
            return None
    if evaluation.normalizer is not None:
        try:
            payloads.append(_DOUBLE(float(evaluation.normalizer)))
        except (TypeError, ValueError, OverflowError):
            return None
        key.append(_NORMALIZER)
    return tuple(key), payloads


def is_plain(evaluation: Evaluation, payloads: Sequence[Payload]) -> bool:
    """Tell whether a valid evaluation's message follows from its form and its numbers alone."""
    return (
        sys.byteorder == "little"
        and all(isinstance(each, bytes) or each.dtype.isnative for each in payloads)
        and isinstance(evaluation.gradient_dtype, _TYPE_NAMES)
        and isinstance(evaluation.compute_dtype, _TYPE_NAMES)
        # Those need the inputs once more, when the answer is there.
        and evaluation.gradient_form != "factored"
    )


def _remember(evaluation: Evaluation, form: Form, written: bytes) -> None:
    """Keep the form of an evaluation, whose request this is."""
    key, payloads = form
    template = Template.of(evaluation, written)
    # Another thread that changes the arrays or the mappings meanwhile harms its own call only.
    if not template.is_worth_keeping(payloads, written):
        return
    with _remembering:
        if len(_known) >= MOST_FORMS:
            del _known[next(iter(_known))]
        _known[key] = template


def _names(evaluation: Evaluation) -> Iterator[tuple[int, str]]:
    """Name the numbers of an evaluation by field and key, in the order of `key_of`."""
    yield from ((_INPUT, name) for name in evaluation.inputs)
    yield from ((_OPTION, name) for name, each in evaluation.options.items() if type(each) is float)
    rest = {
        _GRAD_OUTPUT: evaluation.grad_output,
        _SAMPLE_WEIGHT: evaluation.sample_weight,
        _NORMALIZER: evaluation.normalizer,
    }
    yield from ((field, "") for field, value in rest.items() if value is not None)


def _spans(body: bytes) -> Iterator[tuple[tuple[int, str], tuple[int, int]]]:
    """Find where the numbers of an evaluation begin and end, by the names of `_names`."""
    for field, _, _, start, stop in fields(body, 0, len(body)):
        if field in (_INPUT, _OPTION):
            entry = _values(body, start, stop)
            name = body[slice(*entry[_NAME])].decode()
            value = _values(body, *entry[_VALUE])
            inner = _DATA if field == _INPUT else _NUMBER
            if inner in value:
                yield (field, name), value[inner]
        elif field in (_GRAD_OUTPUT, _SAMPLE_WEIGHT):
            value = _values(body, start, stop)
            if _DATA in value:
                yield (field, ""), value[_DATA]
        elif field == _NORMALIZER:
            yield (field, ""), (start, stop)


def _values(body: bytes, start: int, stop: int) -> dict[int, tuple[int, int]]:
    """Tell where the values of a message within another lie, by the numbers of their fields."""
    return {field: (begin, end) for field, _, _, begin, end in fields(body, start, stop)}
