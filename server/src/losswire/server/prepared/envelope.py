"""The messages around evaluations and results, which are read and written here without protobuf.

They hold one submessage, or one in another. What an encoder writes otherwise is for protobuf.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

from google.protobuf.message import Message

from losswire.v1 import evaluation_pb2, loss_service_pb2
from losswire.wire import SIZE_BYTES, read_varint, varint

_LENGTH_DELIMITED: Final = 2


class Slice(NamedTuple):
    """An `Evaluation` in the bytes of a request."""

    request: bytes
    start: int
    stop: int

    @property
    def message(self) -> bytes:
        """The evaluation by itself."""
        return self.request[self.start : self.stop]


def _tag(message_type: type[Message], name: str, kind: int = _LENGTH_DELIMITED) -> bytes:
    """Give the tag of a field, one byte because its number is below 16."""
    return bytes([message_type.DESCRIPTOR.fields_by_name[name].number << 3 | kind])


_EVALUATION: Final = _tag(loss_service_pb2.EvaluateRequest, "evaluation")
_RESULT: Final = _tag(loss_service_pb2.EvaluateResponse, "result")
_ONE_OF_MANY: Final = _tag(loss_service_pb2.EvaluateManyRequest, "evaluations")
_OUTCOME_OF_MANY: Final = _tag(loss_service_pb2.EvaluateManyResponse, "outcomes")
_OUTCOME_RESULT: Final = _tag(evaluation_pb2.EvaluationOutcome, "result")
_ITEM_ID: Final = _tag(loss_service_pb2.EvaluateStreamRequest, "id", 0)
_ITEM_EVALUATION: Final = _tag(loss_service_pb2.EvaluateStreamRequest, "evaluation")
_ANSWER_ID: Final = _tag(loss_service_pb2.EvaluateStreamResponse, "id", 0)
_ANSWER_OUTCOME: Final = _tag(loss_service_pb2.EvaluateStreamResponse, "outcome")


def one_evaluation(request: bytes) -> Slice | None:
    """Find the evaluation in an EvaluateRequest; None when that is not all there is."""
    return _only(request, 0, _EVALUATION)


def result_prefix(size: int) -> bytes:
    """Give what stands before a result of a size in an EvaluateResponse."""
    return _RESULT + varint(size)


def many_evaluations(request: bytes, most: int) -> list[Slice]:
    """Find the evaluations in an EvaluateManyRequest; none when they are not all there is.

    Or when they are more than `most`.
    """
    found: list[Slice] = []
    start, size = 0, len(request)
    try:
        while start < size and len(found) < most:
            if not request.startswith(_ONE_OF_MANY, start):
                return []
            length, start = read_varint(request, start + 1, SIZE_BYTES)
            found.append(Slice(request, start, start + length))
            start += length
    except ValueError:
        return []
    return found if start == size else []


def many_results(results: Sequence[bytes]) -> bytes:
    """Make results an EvaluateManyResponse."""
    parts: list[bytes] = []
    for result in results:
        inner = varint(len(result))
        outer = varint(1 + len(inner) + len(result))
        parts += (_OUTCOME_OF_MANY, outer, _OUTCOME_RESULT, inner, result)
    return b"".join(parts)


def streamed_evaluation(request: bytes) -> tuple[int, Slice | None]:
    """Find number and evaluation in an EvaluateStreamRequest; None when they are not all."""
    if not request.startswith(_ITEM_ID):
        return 0, _only(request, 0, _ITEM_EVALUATION)
    try:
        number, start = read_varint(request, 1)
    except ValueError:
        return 0, None
    return number, _only(request, start, _ITEM_EVALUATION)


def streamed_result(number: int, result: bytes) -> bytes:
    """Make a result an EvaluateStreamResponse."""
    inner = varint(len(result))
    outer = varint(1 + len(inner) + len(result))
    head = (_ANSWER_ID, varint(number)) if number else ()
    return b"".join((*head, _ANSWER_OUTCOME, outer, _OUTCOME_RESULT, inner, result))


def _only(message: bytes, start: int, tag: bytes) -> Slice | None:
    """Find the value of the field that is the rest of a message; None when there is another."""
    if not message.startswith(tag, start):
        return None
    try:
        length, begin = read_varint(message, start + 1, SIZE_BYTES)
    except ValueError:
        return None
    stop = begin + length
    return Slice(message, begin, stop) if stop == len(message) else None
