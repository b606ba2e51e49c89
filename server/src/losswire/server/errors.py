"""What can go wrong, and the one table that says which status each is."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2

from losswire.v1 import status_pb2 as losswire_status_pb2
from losswire.wire import MalformedTensorError, Violation

_log = logging.getLogger(__name__)

DOMAIN = "losswire"
"""The domain of ErrorInfo."""

_MOST_VIOLATIONS = 16
"""How many violations travel: a call's status is metadata, of which gRPC carries 8 KiB."""

_LONGEST_TEXT = 300
"""How long one text of a status may be, in bytes of UTF-8."""

_ROOM = 3500
"""How long all violations together may be, in bytes: base64 makes a third more of them."""


class LosswireServerError(Exception):
    """Something a caller is told about. Its text is written for the caller."""

    violations: Sequence[Violation] = ()
    retry_after_ms: int | None = None


class InvalidEvaluationError(LosswireServerError):
    """An evaluation that means nothing; `violations` says all that is wrong with it."""

    def __init__(self, violations: Sequence[Violation]) -> None:
        """Take all violations, at least one."""
        super().__init__("; ".join(f"{each.field}: {each.description}" for each in violations))
        self.violations = tuple(violations)


class MalformedMessageError(LosswireServerError):
    """Bytes that are not the message they should be."""


class UnknownLossError(LosswireServerError):
    """A loss that this server does not have."""

    def __init__(self, name: str, nearest: Sequence[str]) -> None:
        """Take the name asked for and those most like it."""
        hint = f"; did you mean {' or '.join(nearest)}?" if nearest else ""
        super().__init__(f'there is no loss "{name[:64]}"{hint}')
        self.violations = (Violation("loss", str(self)),)


class MissingResidentError(LosswireServerError):
    """An evaluation that names resident tensors which the server does not hold."""

    def __init__(self, violations: Sequence[Violation]) -> None:
        """Take one violation for each of them, at least one."""
        names = ", ".join(each.field for each in violations)
        super().__init__(f"not held by this server, send it with PutTensor: {names}")
        self.violations = tuple(violations)


class MissingRegionError(LosswireServerError):
    """An evaluation that names regions which this server does not have, or not any more."""

    TEXT: ClassVar = "this server has no such region, or not any more"

    def __init__(self, violations: Sequence[Violation]) -> None:
        """Take one violation for each place, at least one."""
        super().__init__(f"no such region: {', '.join(each.field for each in violations)}")
        self.violations = tuple(violations)


class InvalidRegionError(LosswireServerError):
    """A region that cannot be made as asked for."""

    def __init__(self, field: str, description: str) -> None:
        """Take what is wrong."""
        super().__init__(f"{field}: {description}")
        self.violations = (Violation(field, description),)


class NotServedError(LosswireServerError):
    """A part of the contract that this server does not fill yet."""


class OverLimitError(LosswireServerError):
    """A request that is larger than this server will ever take: it is no use to try again."""


class OverloadedError(LosswireServerError):
    """A request that may fit later, when others have left."""

    def __init__(self, message: str, retry_after_ms: int) -> None:
        """Take the text and when to come back."""
        super().__init__(message)
        self.retry_after_ms = retry_after_ms


class ExpiredError(LosswireServerError):
    """A request whose deadline passed before it was computed, or that came too slowly."""


class DeviceLostError(LosswireServerError):
    """A request to a server whose device does not compute any more, and which ends for that."""

    def __init__(self) -> None:
        """Take nothing: what happened is for the log."""
        super().__init__("the server lost its device and ends; another one can be tried")


@dataclass(frozen=True, slots=True)
class Meaning:
    """What an error is to the caller."""

    code: grpc.StatusCode
    reason: str


class Meanings:
    """The table from exception to meaning, looked up along the exception's ancestors."""

    TABLE: ClassVar[dict[type[BaseException], Meaning]] = {
        InvalidEvaluationError: Meaning(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_EVALUATION"),
        MalformedTensorError: Meaning(grpc.StatusCode.INVALID_ARGUMENT, "MALFORMED_TENSOR"),
        MalformedMessageError: Meaning(grpc.StatusCode.INVALID_ARGUMENT, "MALFORMED_MESSAGE"),
        UnknownLossError: Meaning(grpc.StatusCode.NOT_FOUND, "UNKNOWN_LOSS"),
        MissingResidentError: Meaning(
            grpc.StatusCode.FAILED_PRECONDITION, "MISSING_RESIDENT_TENSOR"
        ),
        MissingRegionError: Meaning(grpc.StatusCode.FAILED_PRECONDITION, "MISSING_REGION"),
        InvalidRegionError: Meaning(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REGION"),
        NotServedError: Meaning(grpc.StatusCode.UNIMPLEMENTED, "NOT_SERVED"),
        OverLimitError: Meaning(grpc.StatusCode.RESOURCE_EXHAUSTED, "OVER_LIMIT"),
        OverloadedError: Meaning(grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED"),
        ExpiredError: Meaning(grpc.StatusCode.DEADLINE_EXCEEDED, "EXPIRED"),
        DeviceLostError: Meaning(grpc.StatusCode.UNAVAILABLE, "DEVICE_LOST"),
        Exception: Meaning(grpc.StatusCode.INTERNAL, "INTERNAL"),
    }

    @classmethod
    def of(cls, error: BaseException) -> Meaning:
        """Find the meaning of an error; INTERNAL for what nobody foresaw."""
        return next(cls.TABLE[kind] for kind in type(error).__mro__ if kind in cls.TABLE)


def text_for_caller(error: BaseException, request_id: str) -> str:
    """Give the text that may travel: an unforeseen error's own text may not."""
    if Meanings.of(error).code is grpc.StatusCode.INTERNAL:
        return f"internal error; the server's log has the details under request {request_id}"
    return str(error)


def item_status(error: BaseException, request_id: str) -> losswire_status_pb2.Status:
    """Make the status of one item of a call; an unforeseen error goes to the log."""
    meaning = Meanings.of(error)
    if meaning.code is grpc.StatusCode.INTERNAL:
        _log.error("request %s failed", request_id, exc_info=error)
    return losswire_status_pb2.Status(
        code=meaning.code.value[0],
        message=_short(text_for_caller(error, request_id)),
        reason=meaning.reason,
        violations=[
            losswire_status_pb2.FieldViolation(field=each.field, description=each.description)
            for each in _travelling(getattr(error, "violations", ()))
        ],
        retry_after_ms=getattr(error, "retry_after_ms", None),
    )


def _short(text: str) -> str:
    """Cut a text that is too long to travel."""
    data = text.encode()
    if len(data) <= _LONGEST_TEXT:
        return text
    return data[: _LONGEST_TEXT - 3].decode(errors="ignore") + "..."


def _travelling(violations: Sequence[Violation]) -> Sequence[Violation]:
    """Give the violations that travel, with a word on those that do not."""
    shown: list[Violation] = []
    room = _ROOM
    for each in violations[:_MOST_VIOLATIONS]:
        cut = Violation(_short(each.field), _short(each.description))
        room -= len(cut.field.encode()) + len(cut.description.encode())
        if room < 0:
            break
        shown.append(cut)
    if len(shown) == len(violations):
        return shown
    shown = shown[: _MOST_VIOLATIONS - 1]
    rest = len(violations) - len(shown)
    return [*shown, Violation("...", f"and {rest} more violations")]


def call_status(error: BaseException, request_id: str) -> status_pb2.Status:
    """Make the rich status of a call that fails as a whole."""
    item = item_status(error, request_id)
    details = [
        error_details_pb2.ErrorInfo(reason=item.reason, domain=DOMAIN),
        error_details_pb2.RequestInfo(request_id=request_id),
    ]
    if item.violations:
        details.append(
            error_details_pb2.BadRequest(
                field_violations=[
                    error_details_pb2.BadRequest.FieldViolation(
                        field=each.field, description=each.description
                    )
                    for each in item.violations
                ]
            )
        )
    if item.HasField("retry_after_ms"):
        delay = duration_pb2.Duration()
        delay.FromMilliseconds(item.retry_after_ms)
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    status = status_pb2.Status(code=item.code, message=item.message)
    for detail in details:
        packed = any_pb2.Any()
        packed.Pack(detail)
        status.details.append(packed)
    return status


def forget_frames(error: BaseException) -> None:
    """Let go of what the functions that failed had in their hands.

    gRPC keeps an error in a cycle that only the garbage collector ends, and it comes
    when it likes; until then large tensors would stay in memory.
    """
    each: BaseException | None = error
    while each is not None:
        each.__traceback__ = None
        each = each.__context__
