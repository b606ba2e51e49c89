"""The messages around evaluations and results, read and written here without protobuf.

They hold one submessage, or one in another. Messages that are encoded otherwise are left to
protobuf.
"""

from typing import Final, NamedTuple

from google.protobuf.message import Message

from losswire.v1 import evaluation_pb2, loss_service_pb2
from losswire.wire import delimited_tag, read_delimited, read_varint, varint


class Slice(NamedTuple):
    """An `Evaluation` in the bytes of a request."""

    request: bytes
    start: int
    stop: int

    @property
    def message(self) -> bytes:
        """The bytes of the evaluation alone."""
        return self.request[self.start : self.stop]


def _tag(message_type: type[Message], name: str) -> bytes:
    """Return the tag of a submessage."""
    return delimited_tag(message_type.DESCRIPTOR.fields_by_name[name].number)


_EVALUATION: Final = _tag(loss_service_pb2.EvaluateRequest, "evaluation")
_RESULT: Final = _tag(loss_service_pb2.EvaluateResponse, "result")
_ONE_OF_MANY: Final = _tag(loss_service_pb2.EvaluateManyRequest, "evaluations")
_OUTCOME_OF_MANY: Final = _tag(loss_service_pb2.EvaluateManyResponse, "outcomes")
_OUTCOME_RESULT: Final = _tag(evaluation_pb2.EvaluationOutcome, "result")
_ITEM_ID: Final = varint(loss_service_pb2.EvaluateStreamRequest.ID_FIELD_NUMBER << 3)
_ITEM_EVALUATION: Final = _tag(loss_service_pb2.EvaluateStreamRequest, "evaluation")
_ANSWER_ID: Final = varint(loss_service_pb2.EvaluateStreamResponse.ID_FIELD_NUMBER << 3)
_ANSWER_OUTCOME: Final = _tag(loss_service_pb2.EvaluateStreamResponse, "outcome")


def one_evaluation(request: bytes) -> Slice | None:
    """Find the evaluation in an EvaluateRequest; None when the request has other fields."""
    return _only(request, 0, _EVALUATION)


def result_prefix(size: int) -> bytes:
    """Return the bytes before a result of a size in an EvaluateResponse: tag and length."""
    return _RESULT + varint(size)


def many_evaluations(request: bytes, start: int, most: int) -> tuple[list[Slice], int]:
    """Find up to `most` evaluations in an EvaluateManyRequest, from a place on.

    Returns them and the place after the last; -1 when the request has other fields there.
    """
    found: list[Slice] = []
    size = len(request)
    while start < size and len(found) < most:
        place = read_delimited(request, start, _ONE_OF_MANY)
        if place is None:
            return found, -1
        found.append(Slice(request, *place))
        start = place[1]
    return found, start


def one_of_many_results(result: bytes) -> tuple[bytes, ...]:
    """Return the parts of an EvaluateManyResponse for one of its serialized results."""
    inner = varint(len(result))
    outer = varint(1 + len(inner) + len(result))
    return _OUTCOME_OF_MANY, outer, _OUTCOME_RESULT, inner, result


def streamed_evaluation(request: bytes) -> tuple[int, Slice | None]:
    """Find id and evaluation in an EvaluateStreamRequest; None when it has other fields."""
    if not request.startswith(_ITEM_ID):
        return 0, _only(request, 0, _ITEM_EVALUATION)
    try:
        number, start = read_varint(request, 1)
    except ValueError:
        return 0, None
    return number, _only(request, start, _ITEM_EVALUATION)


def streamed_result(number: int, result: bytes) -> bytes:
    """Write an EvaluateStreamResponse of a serialized result."""
    inner = varint(len(result))
    outer = varint(1 + len(inner) + len(result))
    head = (_ANSWER_ID, varint(number)) if number else ()
    return b"".join((*head, _ANSWER_OUTCOME, outer, _OUTCOME_RESULT, inner, result))


def _only(message: bytes, start: int, tag: bytes) -> Slice | None:
    """Find the submessage that is the rest of a message; None when there is another field."""
    place = read_delimited(message, start, tag)
    if place is None:
        return None
    begin, end = place
    return Slice(message, begin, end) if end == len(message) else None
