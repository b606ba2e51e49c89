"""Requests of a known form: what was sent before, with other numbers, is not composed again.

A training loop sends one form over and over: the same loss, names, types, shapes, options and
choices. Protobuf writes such messages with the same bytes, but for the numbers, which all lie in
the same places. So the bytes between them are kept, by everything that they follow from.
"""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from struct import Struct
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from losswire.client._messages.evaluation import Evaluation
from losswire.client._messages.request import fill_evaluation, joined, serialize
from losswire.v1 import evaluation_pb2, loss_service_pb2, tensor_pb2
from losswire.wire import BoundedCache, Template, delimited_tag, fields, read_varint, varint

SMALL_BYTES: Final = 96 * 1024
"""The bytes of a message up to which nothing else is to be decided: it always fits and is never
worth shared memory."""

MAX_ENTRIES: Final = 1280
"""How many forms are kept; each takes some hundred bytes."""

Array: TypeAlias = npt.NDArray[Any]
Payload: TypeAlias = Array | bytes
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


Where: TypeAlias = Callable[[Array], tuple[int, int] | None]
"""Returns the region of an array and its offset there; None when it is in none."""

ALONE: Final = delimited_tag(loss_service_pb2.EvaluateRequest.EVALUATION_FIELD_NUMBER)
"""What stands before an evaluation in a request of its own."""
AMONG_MANY: Final = delimited_tag(loss_service_pb2.EvaluateManyRequest.EVALUATIONS_FIELD_NUMBER)
"""What stands before each evaluation of many in one request."""
_STREAMED: Final = delimited_tag(loss_service_pb2.EvaluateStreamRequest.EVALUATION_FIELD_NUMBER)
_ID: Final = varint(loss_service_pb2.EvaluateStreamRequest.ID_FIELD_NUMBER << 3)


def in_stream(number: int) -> bytes:
    """Give what stands before the evaluation of an item of a stream: its number, for one."""
    # What is 0 is left out.
    return _ID + varint(number) + _STREAMED if number else _STREAMED


class RequestTemplates:
    """The requests that were composed so far, by their forms. Any thread may use them."""

    def __init__(self, max_entries: int = MAX_ENTRIES) -> None:
        """Begin without any."""
        self._cache: BoundedCache[_Key, Template] = BoundedCache(max_entries)

    def __len__(self) -> int:
        """Return how many forms are known."""
        return self._cache.entries

    def small_request(self, form: Form | None, tag: bytes) -> bytes | None:
        """Serialize a small evaluation by its form; None when that is not known.

        `tag` is what comes before the evaluation's length: `ALONE`, `AMONG_MANY` or `in_stream`.
        What has a known form is valid, has no other tensors than numpy arrays, and asks for no
        factored gradient.
        """
        template = self._find(form)
        if form is None or template is None or template.size > SMALL_BYTES:
            return None
        return template.fill(tag, form[1])

    def placed_request(self, form: Form | None) -> bytes | None:
        """Serialize an evaluation by its `placed_form`; None when that is not known."""
        template = self._find(form)
        return None if form is None or template is None else template.fill(ALONE, form[1])

    def request(self, evaluation: Evaluation, tag: bytes, prefix: str = "") -> bytes:
        """Serialize an evaluation, and keep its form.

        `tag` is as in `small_request`, `prefix` as in `fill_evaluation`, which says what raises.
        """
        form = key_of(evaluation)
        template = self._find(form)
        if form is not None and template is not None:
            return template.fill(tag, form[1])
        message = loss_service_pb2.EvaluateRequest()
        fill_evaluation(message.evaluation, evaluation, prefix)
        written = serialize(message)
        del message
        self.keep(form, evaluation, written)
        # The prefix differs in streams only, and these take no large ones.
        return written if tag == ALONE else joined((tag, written[len(ALONE) :]))

    def keep(self, form: Form | None, evaluation: Evaluation, request: bytes) -> None:
        """Store the form of a valid evaluation, unless its request has more than that says."""
        if form is None or not _is_plain(evaluation, form[1]):
            return
        key, payloads = form
        template = _template_of(evaluation, request)
        # Another thread that changes the arrays or the mappings meanwhile harms its own call only.
        if template.constant_bytes <= SMALL_BYTES and template.fill(ALONE, payloads) == request:
            self._cache.put(key, template)

    def clear(self) -> None:
        """Forget all forms."""
        self._cache.clear()

    def _find(self, form: Form | None) -> Template | None:
        try:
            return None if form is None else self._cache.get(form[0])
        except TypeError:  # something in it has no hash
            return None


TEMPLATES: Final = RequestTemplates()
"""Those of all clients: the bytes of a request follow from its form, whatever the server."""


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


def placed_form(form: Form | None, where: Where, out: Mapping[str, Array] | None) -> Form | None:
    """Return the form of an evaluation with arrays in regions, and those that travel.

    The key of its plain form is followed by the region and offset of each array, and of each
    output. None when one has no such place that has to have one.
    """
    if form is None or type(out) not in (dict, type(None)):
        return None
    key, payloads = form
    places: list[Any] = []
    sent: list[Payload] = []
    for payload in payloads:
        place = None if isinstance(payload, bytes) else where(payload)
        places.append(place)
        if place is None:
            sent.append(payload)
    for name, array in (out or {}).items():
        if type(array) is not np.ndarray:
            return None
        place = where(array)
        if place is None:
            return None
        places += name, array.dtype, array.shape, array.flags.writeable, place
    return (key, tuple(places)), sent


def _is_plain(evaluation: Evaluation, payloads: Sequence[Payload]) -> bool:
    """Tell whether a valid evaluation's message follows from its form and its numbers alone."""
    return (
        sys.byteorder == "little"
        and all(isinstance(each, bytes) or each.dtype.isnative for each in payloads)
        and isinstance(evaluation.gradient_dtype, _TYPE_NAMES)
        and isinstance(evaluation.compute_dtype, _TYPE_NAMES)
        # Those need the inputs once more, when the answer is there.
        and evaluation.gradient_form != "factored"
    )


def _template_of(evaluation: Evaluation, request: bytes) -> Template:
    """Find the numbers of an evaluation in its request; what is in regions has none there."""
    body = request[read_varint(request, len(ALONE))[1] :]
    spans = dict(_spans(body))
    return Template(body, [spans[name] for name in _names(evaluation) if name in spans])


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
