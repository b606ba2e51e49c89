"""Maps exceptions to statuses: one table for whole calls and for the items of a call."""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2

from losswire.server.errors import (
    DamagedStoreError,
    DeviceLostError,
    DrainingError,
    ExpiredError,
    FullStoreError,
    IdleStreamError,
    InvalidEvaluationError,
    InvalidRegionError,
    InvalidRunError,
    MalformedMessageError,
    MissingRegionError,
    MissingResidentError,
    MissingRunError,
    NotServedError,
    OtherRunError,
    OverLimitError,
    OverloadedError,
    UnauthenticatedError,
    UnavailableStoreError,
    UnknownLossError,
    UnknownPathError,
    WrongHostError,
    WrongMediaTypeError,
    WrongMethodError,
)
from losswire.server.metrics.recorder import record_refusal
from losswire.v1 import status_pb2 as losswire_status_pb2
from losswire.wire import MalformedTensorError, Violation

_log = logging.getLogger(__name__)

DOMAIN: Final = "losswire"
"""The domain of ErrorInfo."""

_MAX_VIOLATIONS: Final = 16
"""The most violations in a status. A call's status is metadata, which gRPC limits to 8 KiB."""

_MAX_TEXT_BYTES: Final = 300
"""The longest text in a status, in bytes of UTF-8."""

_MAX_VIOLATION_BYTES: Final = 3500
"""The most bytes of all violations together; base64 adds a third to them."""


@dataclass(frozen=True, slots=True)
class ErrorCode:
    """The code and the reason that a caller receives for a kind of error."""

    code: grpc.StatusCode
    reason: str


ERROR_CODES: Final[Mapping[type[BaseException], ErrorCode]] = {
    InvalidEvaluationError: ErrorCode(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_EVALUATION"),
    MalformedTensorError: ErrorCode(grpc.StatusCode.INVALID_ARGUMENT, "MALFORMED_TENSOR"),
    MalformedMessageError: ErrorCode(grpc.StatusCode.INVALID_ARGUMENT, "MALFORMED_MESSAGE"),
    UnknownLossError: ErrorCode(grpc.StatusCode.NOT_FOUND, "UNKNOWN_LOSS"),
    MissingResidentError: ErrorCode(grpc.StatusCode.FAILED_PRECONDITION, "MISSING_RESIDENT_TENSOR"),
    MissingRegionError: ErrorCode(grpc.StatusCode.FAILED_PRECONDITION, "MISSING_REGION"),
    InvalidRegionError: ErrorCode(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REGION"),
    NotServedError: ErrorCode(grpc.StatusCode.UNIMPLEMENTED, "NOT_SERVED"),
    OverLimitError: ErrorCode(grpc.StatusCode.RESOURCE_EXHAUSTED, "OVER_LIMIT"),
    OverloadedError: ErrorCode(grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED"),
    ExpiredError: ErrorCode(grpc.StatusCode.DEADLINE_EXCEEDED, "EXPIRED"),
    DrainingError: ErrorCode(grpc.StatusCode.UNAVAILABLE, "DRAINING"),
    IdleStreamError: ErrorCode(grpc.StatusCode.UNAVAILABLE, "IDLE_STREAM"),
    DeviceLostError: ErrorCode(grpc.StatusCode.UNAVAILABLE, "DEVICE_LOST"),
    InvalidRunError: ErrorCode(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_RUN"),
    MissingRunError: ErrorCode(grpc.StatusCode.NOT_FOUND, "MISSING_RUN"),
    OtherRunError: ErrorCode(grpc.StatusCode.ALREADY_EXISTS, "OTHER_RUN"),
    UnavailableStoreError: ErrorCode(grpc.StatusCode.UNAVAILABLE, "STORE_UNAVAILABLE"),
    FullStoreError: ErrorCode(grpc.StatusCode.RESOURCE_EXHAUSTED, "STORE_FULL"),
    DamagedStoreError: ErrorCode(grpc.StatusCode.DATA_LOSS, "STORE_DAMAGED"),
    UnknownPathError: ErrorCode(grpc.StatusCode.NOT_FOUND, "UNKNOWN_PATH"),
    WrongMethodError: ErrorCode(grpc.StatusCode.UNIMPLEMENTED, "WRONG_METHOD"),
    WrongMediaTypeError: ErrorCode(grpc.StatusCode.INVALID_ARGUMENT, "WRONG_MEDIA_TYPE"),
    WrongHostError: ErrorCode(grpc.StatusCode.INVALID_ARGUMENT, "WRONG_HOST"),
    UnauthenticatedError: ErrorCode(grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED"),
    Exception: ErrorCode(grpc.StatusCode.INTERNAL, "INTERNAL"),
}
"""The status of each exception, looked up along the exception's ancestors."""


def error_code_of(error: BaseException) -> ErrorCode:
    """Return the status of an error; INTERNAL for an unexpected exception."""
    return next(ERROR_CODES[kind] for kind in type(error).__mro__ if kind in ERROR_CODES)


def text_for_caller(error: BaseException, request_id: str) -> str:
    """Return the text to send: the own text of an unexpected error stays on the server."""
    if error_code_of(error).code is grpc.StatusCode.INTERNAL:
        return f"internal error; the server's log has the details under request {request_id}"
    return str(error)


def item_status(error: BaseException, request_id: str) -> losswire_status_pb2.Status:
    """Return the status of one item of a call; an unexpected error is logged."""
    status = error_code_of(error)
    if status.code is grpc.StatusCode.INTERNAL:
        _log.error("request %s failed", request_id, exc_info=error)
    message = _truncated(text_for_caller(error, request_id))
    record_refusal(status.reason, status.code.name, message)
    return losswire_status_pb2.Status(
        code=status.code.value[0],
        message=message,
        reason=status.reason,
        violations=[
            losswire_status_pb2.FieldViolation(field=each.field, description=each.description)
            for each in _limited(getattr(error, "violations", ()))
        ],
        retry_after_ms=getattr(error, "retry_after_ms", None),
    )


def _truncated(text: str) -> str:
    """Return a text cut to the longest that a status may hold."""
    data = text.encode()
    if len(data) <= _MAX_TEXT_BYTES:
        return text
    return data[: _MAX_TEXT_BYTES - 3].decode(errors="ignore") + "..."


def _limited(violations: Sequence[Violation]) -> Sequence[Violation]:
    """Return the violations that fit into a status; a last entry counts the rest."""
    shown: list[Violation] = []
    room = _MAX_VIOLATION_BYTES
    for each in violations[:_MAX_VIOLATIONS]:
        cut = Violation(_truncated(each.field), _truncated(each.description))
        room -= len(cut.field.encode()) + len(cut.description.encode())
        if room < 0:
            break
        shown.append(cut)
    if len(shown) == len(violations):
        return shown
    shown = shown[: _MAX_VIOLATIONS - 1]
    rest = len(violations) - len(shown)
    return [*shown, Violation("...", f"and {rest} more violations")]


def call_status(error: BaseException, request_id: str) -> status_pb2.Status:
    """Return the rich status of a call that fails as a whole."""
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
    """Drop an error's tracebacks, whose frames keep large tensors in memory.

    gRPC holds an error in a reference cycle, which lasts until the next garbage collection.
    """
    each: BaseException | None = error
    while each is not None:
        each.__traceback__ = None
        each = each.__context__


def forget_frames_soon(error: BaseException) -> None:
    """Drop the tracebacks of an error that is about to be raised, once it has arrived."""
    asyncio.get_running_loop().call_soon(forget_frames, error)
