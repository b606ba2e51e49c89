"""The cache of request templates: an evaluation with other numbers is not encoded again.

A training loop sends one kind of evaluation over and over: the same loss, names, dtypes, shapes,
options and choices. Protobuf writes such messages with the same bytes, except for the numbers,
which are all at the same offsets. So the bytes between them are kept. The key is all that these
bytes depend on.
"""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from struct import Struct
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from losswire.client._messages import thresholds
from losswire.client._messages.evaluation import Evaluation
from losswire.client._messages.fit import Fit
from losswire.client._messages.request import fill_evaluation, joined, serialize
from losswire.client._messages.weights import with_float_weights
from losswire.v1 import evaluation_pb2, loss_service_pb2, tensor_pb2
from losswire.wire import BoundedCache, Template, Value, delimited_tag, fields, read_varint, varint

Array: TypeAlias = npt.NDArray[Any]
_Key: TypeAlias = tuple[Any, ...]
KeyedValues: TypeAlias = tuple[_Key, list[Value]]
"""The key of an evaluation's template, and the values of its spans."""
Fitted: TypeAlias = tuple[bytes, Fit]
"""A request, and the facts about its answer."""

_DOUBLE: Final = Struct("<d").pack

_CONTAINERS: Final = frozenset({(dict, dict, list), (dict, dict, tuple)})
"""The types of inputs, options and the names of gradients that have a key."""
_OPTIONS: Final = frozenset({bool, int, str})
"""The types of options that belong to the key, because the message's length depends on them."""
_TYPE_NAMES: Final = (str, type, np.dtype, type(None))
"""The types that name a dtype. Other objects may be equal to one of these, and be no dtype."""

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
"""The tag of an evaluation in a request of its own."""
AMONG_MANY: Final = delimited_tag(loss_service_pb2.EvaluateManyRequest.EVALUATIONS_FIELD_NUMBER)
"""The tag of each evaluation of many in one request."""
_STREAMED: Final = delimited_tag(loss_service_pb2.EvaluateStreamRequest.EVALUATION_FIELD_NUMBER)
_ID: Final = varint(loss_service_pb2.EvaluateStreamRequest.ID_FIELD_NUMBER << 3)


def in_stream(number: int) -> bytes:
    """Return the prefix of the evaluation in an item of a stream: its id, and a tag."""
    # Protobuf does not write a 0.
    return _ID + varint(number) + _STREAMED if number else _STREAMED


class RequestTemplates:
    """The cache of the requests that were composed so far. Any thread may use it."""

    def __init__(self, max_entries: int = thresholds.MAX_TEMPLATES) -> None:
        """Begin without any."""
        self._cache: BoundedCache[_Key, tuple[Template, Fit]] = BoundedCache(max_entries)

    def __len__(self) -> int:
        """Return how many templates are kept."""
        return self._cache.entries

    def small_request(self, keyed: KeyedValues | None, tag: bytes) -> Fitted | None:
        """Serialize a small evaluation by its `key_of`; None when its template is not known.

        `tag` is the prefix before the evaluation's length: `ALONE`, `AMONG_MANY` or `in_stream`.
        An evaluation whose template is known is valid, has no other tensors than numpy arrays,
        and asks for no factored gradient.
        """
        known = self._find(keyed)
        if keyed is None or known is None or known[0].size > thresholds.TEMPLATE_BYTES:
            return None
        return known[0].fill(tag, keyed[1]), known[1]

    def placed_request(self, keyed: KeyedValues | None) -> Fitted | None:
        """Serialize an evaluation by its `placed_key_of`; None when its template is not known."""
        known = self._find(keyed)
        return (
            None if keyed is None or known is None else (known[0].fill(ALONE, keyed[1]), known[1])
        )

    def request(self, evaluation: Evaluation, tag: bytes, prefix: str = "") -> Fitted:
        """Serialize an evaluation, and keep its template.

        `tag` is as in `small_request`, `prefix` as in `fill_evaluation`, which lists the errors.
        """
        keyed = key_of(evaluation)
        known = self._find(keyed)
        if known is None:
            # No template has weights that are converted: their types depend on their values.
            floats = with_float_weights(evaluation, prefix)
            if floats is not evaluation:
                evaluation, keyed = floats, key_of(floats)
                known = self._find(keyed)
        if keyed is not None and known is not None:
            return known[0].fill(tag, keyed[1]), known[1]
        message = loss_service_pb2.EvaluateRequest()
        fill_evaluation(message.evaluation, evaluation, prefix)
        written = serialize(message)
        del message
        fit = self.keep(keyed, evaluation, written)
        # The prefix differs in streams only, and these take no large ones.
        return written if tag == ALONE else joined((tag, written[len(ALONE) :])), fit

    def keep(self, keyed: KeyedValues | None, evaluation: Evaluation, request: bytes) -> Fit:
        """Store the template of a valid evaluation, if its key determines the request.

        Returns the facts about its answer.
        """
        fit = Fit(evaluation)
        if keyed is None or not _is_plain(evaluation, keyed[1]):
            return fit
        key, values = keyed
        template = _template_of(evaluation, request)
        # Another thread that changes the arrays or the mappings meanwhile harms its own call only.
        if (
            template.constant_bytes <= thresholds.TEMPLATE_BYTES
            and template.fill(ALONE, values) == request
        ):
            self._cache.put(key, (template, fit))
        return fit

    def clear(self) -> None:
        """Evict all templates."""
        self._cache.clear()

    def _find(self, keyed: KeyedValues | None) -> tuple[Template, Fit] | None:
        try:
            return None if keyed is None else self._cache.get(keyed[0])
        except TypeError:  # something in it has no hash
            return None


TEMPLATES: Final = RequestTemplates()
"""The cache of all clients: the bytes of a request depend on its key, on no server."""


def key_of(evaluation: Evaluation) -> KeyedValues | None:
    """Return the key of an evaluation's template, and its values; None when it has no key.

    The values are those of the inputs, then of the options, of `grad_output`, of
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
    values: list[Value] = []
    for name, array in inputs.items():
        if type(array) is not np.ndarray:
            return None
        key += name, array.dtype, array.shape
        values.append(array)
    for name, option in options.items():
        # Equal options may differ in kind: 1 and True and 1.0.
        kind = type(option)
        if kind is float:
            key += name, kind, None
            values.append(_DOUBLE(option))
        elif kind in _OPTIONS:
            key += name, kind, option
        else:
            return None
    output, weight = evaluation.grad_output, evaluation.sample_weight
    if output is not None or weight is not None or evaluation.normalizer is not None:
        return _with_rest(evaluation, key, values)
    return tuple(key), values


def _with_rest(evaluation: Evaluation, key: list[Any], values: list[Value]) -> KeyedValues | None:
    """Return a key and values with the fields that most evaluations do not have."""
    for field, array in (
        (_GRAD_OUTPUT, evaluation.grad_output),
        (_SAMPLE_WEIGHT, evaluation.sample_weight),
    ):
        if type(array) is np.ndarray:
            key += field, array.dtype, array.shape
            values.append(array)
        elif array is not None:
            return None
    if evaluation.normalizer is not None:
        try:
            values.append(_DOUBLE(float(evaluation.normalizer)))
        except (TypeError, ValueError, OverflowError):
            return None
        key.append(_NORMALIZER)
    return tuple(key), values


def placed_key_of(
    keyed: KeyedValues | None, where: Where, out: Mapping[str, Array] | None
) -> KeyedValues | None:
    """Return the key of an evaluation with arrays in regions, and the values that are sent.

    `keyed` is its `key_of`, to which the region and offset of each array and of each output are
    added. None when an output is in no region.
    """
    if keyed is None or type(out) not in (dict, type(None)):
        return None
    key, values = keyed
    places: list[Any] = []
    sent: list[Value] = []
    for value in values:
        place = None if isinstance(value, bytes) else where(value)
        places.append(place)
        if place is None:
            sent.append(value)
    for name, array in (out or {}).items():
        if type(array) is not np.ndarray:
            return None
        place = where(array)
        if place is None:
            return None
        places += name, array.dtype, array.shape, array.flags.writeable, place
    return (key, tuple(places)), sent


def _is_plain(evaluation: Evaluation, values: Sequence[Value]) -> bool:
    """Check that a valid evaluation's message depends on its key and its values alone."""
    return (
        sys.byteorder == "little"
        and all(isinstance(each, bytes) or each.dtype.isnative for each in values)
        and isinstance(evaluation.gradient_dtype, _TYPE_NAMES)
        and isinstance(evaluation.compute_dtype, _TYPE_NAMES)
        # Those need the inputs once more, when the response is there.
        and evaluation.gradient_form != "factored"
    )


def _template_of(evaluation: Evaluation, request: bytes) -> Template:
    """Find the spans of an evaluation's values in its request; arrays in regions have none."""
    body = request[read_varint(request, len(ALONE))[1] :]
    spans = dict(_spans(body))
    return Template(body, [spans[name] for name in _names(evaluation) if name in spans])


def _names(evaluation: Evaluation) -> Iterator[tuple[int, str]]:
    """Name the values of an evaluation by field and key, in the order of `key_of`."""
    yield from ((_INPUT, name) for name in evaluation.inputs)
    yield from ((_OPTION, name) for name, each in evaluation.options.items() if type(each) is float)
    rest = {
        _GRAD_OUTPUT: evaluation.grad_output,
        _SAMPLE_WEIGHT: evaluation.sample_weight,
        _NORMALIZER: evaluation.normalizer,
    }
    yield from ((field, "") for field, value in rest.items() if value is not None)


def _spans(body: bytes) -> Iterator[tuple[tuple[int, str], tuple[int, int]]]:
    """Find where the values of an evaluation begin and end, by the names of `_names`."""
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
    """Find the values of a message within another, by the numbers of their fields."""
    return {field: (begin, end) for field, _, _, begin, end in fields(body, start, stop)}
