"""The exceptions for failures of a server or of the connection to it."""

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, Final, Protocol, TypeVar, cast

import grpc
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2, status_pb2

from losswire.v1 import status_pb2 as losswire_status_pb2
from losswire.wire import Violation

CLIENT_CLOSED = "CLIENT_CLOSED"
"""The reason of calls that their own client gave up."""

DETAILS_KEY = "grpc-status-details-bin"
PUSHBACK_KEY = "grpc-retry-pushback-ms"


class LosswireError(Exception):
    """An evaluation or call that failed; one subclass for each gRPC status code.

    Mistakes that never needed the server (an unknown dtype, a name that is not text)
    are TypeError and ValueError instead.

    Example:
        >>> try:
        ...     client.evaluate("mse_loss", {"input": [1.0]})
        ... except LosswireError as error:
        ...     error.code.name, error.violations[0].field
        ('INVALID_ARGUMENT', 'inputs["target"]')
    """

    code: ClassVar[grpc.StatusCode] = grpc.StatusCode.UNKNOWN
    """The canonical status code."""
    is_final: bool = False
    """Whether the server asked not to try again at all."""

    def __init__(
        self,
        message: str,
        *,
        reason: str = "",
        violations: Sequence[Violation] = (),
        request_id: str = "",
        retry_after: float | None = None,
        retryable: bool = False,
    ) -> None:
        """Store the facts of one failure; see the attributes."""
        super().__init__(message)
        self.message = message
        """One readable sentence. Not for programs."""
        self.reason = reason
        """A constant in UPPER_SNAKE_CASE for programs, such as `UNKNOWN_LOSS`; may be empty."""
        self.violations = tuple(violations)
        """All violations of the evaluation, in the order of its fields."""
        self.request_id = request_id
        """The server's name for the call in its log; may be empty."""
        self.retry_after = retry_after
        """Seconds the server asks to wait before another try; None when it did not say."""
        self.retryable = retryable
        """Whether the same evaluation may succeed later, unchanged."""

    def __str__(self) -> str:
        headline = self.message
        if self.violations and self.violations[0].description in headline:
            headline = "not accepted"  # the lines below say it all, one by one
        facts = [self.code.name]
        facts += [self.reason] if self.reason else []
        facts += [f"request {self.request_id}"] if self.request_id else []
        lines = [f"{headline} ({', '.join(facts)})"]
        lines += [f"  {violation.field}: {violation.description}" for violation in self.violations]
        return "\n".join(lines)


class CancelledError(LosswireError):
    """The call was given up, for example because its client was closed."""

    code = grpc.StatusCode.CANCELLED


class UnknownError(LosswireError):
    """The call failed without a known code."""

    code = grpc.StatusCode.UNKNOWN


class InvalidArgumentError(LosswireError):
    """The evaluation is not valid; `violations` lists every reason."""

    code = grpc.StatusCode.INVALID_ARGUMENT


class DeadlineExceededError(LosswireError):
    """No answer came within the call's timeout, all tries included."""

    code = grpc.StatusCode.DEADLINE_EXCEEDED


class NotFoundError(LosswireError):
    """There is no such loss, and the message gives the nearest names; or no such run."""

    code = grpc.StatusCode.NOT_FOUND


class AlreadyExistsError(LosswireError):
    """Another run has this id."""

    code = grpc.StatusCode.ALREADY_EXISTS


class PermissionDeniedError(LosswireError):
    """The credential is valid, but does not permit this call."""

    code = grpc.StatusCode.PERMISSION_DENIED


class ResourceExhaustedError(LosswireError):
    """A limit or a budget of the server would be exceeded."""

    code = grpc.StatusCode.RESOURCE_EXHAUSTED


class FailedPreconditionError(LosswireError):
    """A resource of the evaluation, such as a resident tensor or a region, is missing."""

    code = grpc.StatusCode.FAILED_PRECONDITION


class AbortedError(LosswireError):
    """The call collided with another one."""

    code = grpc.StatusCode.ABORTED


class OutOfRangeError(LosswireError):
    """The call went past the end of something."""

    code = grpc.StatusCode.OUT_OF_RANGE


class UnimplementedError(LosswireError):
    """The server does not have this method or this way of computing."""

    code = grpc.StatusCode.UNIMPLEMENTED


class InternalError(LosswireError):
    """The server has a bug; its log has more under `request_id`."""

    code = grpc.StatusCode.INTERNAL


class UnavailableError(LosswireError):
    """No server could be reached, or the one that was is going away."""

    code = grpc.StatusCode.UNAVAILABLE


class DataLossError(LosswireError):
    """Data was lost or damaged beyond repair."""

    code = grpc.StatusCode.DATA_LOSS


class UnauthenticatedError(LosswireError):
    """The token or certificate is missing or not accepted; the text says how to give one."""

    code = grpc.StatusCode.UNAUTHENTICATED


_CLASSES: dict[grpc.StatusCode, type[LosswireError]] = {
    cls.code: cls for cls in LosswireError.__subclasses__()
}
_LOST_STATUS: Final = "Internal error from Core"
"""In the text of a call in aio whose status was replaced by a write to it when it had just ended
(https://github.com/grpc/grpc/issues/36066)."""
_CUTS: dict[grpc.StatusCode, tuple[str, ...]] = {
    # Whatever its text: a caller who cancels gets no answer at all.
    grpc.StatusCode.CANCELLED: ("",),
    grpc.StatusCode.INTERNAL: ("RST_STREAM",),
    grpc.StatusCode.RESOURCE_EXHAUSTED: ("RST_STREAM",),
    grpc.StatusCode.UNKNOWN: ("Stream removed",),
}
"""What is in the texts of calls that gRPC itself ended, by code."""
_CODES: dict[int, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}


class FailedCall(Protocol):
    """The methods that gRPC's synchronous and asynchronous exceptions have in common."""

    def code(self) -> grpc.StatusCode | None:
        """Return the status code."""

    def details(self) -> str | None:
        """Return the status message."""

    def trailing_metadata(self) -> Iterable[tuple[str, str | bytes]] | None:
        """Return the metadata that the server sent beside the status."""


def code_of(failure: grpc.RpcError) -> grpc.StatusCode:
    """Return the status code of a call that failed."""
    return cast("FailedCall", failure).code() or grpc.StatusCode.UNKNOWN


def error_from_call(failure: grpc.RpcError, sent_bytes: int = 0) -> LosswireError:
    """Translate the failure of a call that sent a message of `sent_bytes`."""
    call, code = cast("FailedCall", failure), code_of(failure)
    # Not dict(...): older versions of grpc.aio return something that dict() misreads.
    metadata = {key: value for key, value in call.trailing_metadata() or ()}  # noqa: C416
    status = _parse(status_pb2.Status, metadata.get(DETAILS_KEY, b""))
    message = call.details() or ""
    exhausted = code is grpc.StatusCode.RESOURCE_EXHAUSTED
    if exhausted and not status.details and "larger than max" in message:
        # gRPC itself refused the message, before the service saw it.
        return too_large_error(message, sent_bytes)
    if code is grpc.StatusCode.DEADLINE_EXCEEDED and not status.details:
        # gRPC's own texts, such as "Stream removed", do not tell what happened.
        message = "no answer came in time: the server may be busy; give the call a longer timeout"
    if code is grpc.StatusCode.INTERNAL and not status.details and _LOST_STATUS in message:
        # Whatever the status was, the call was cut: what is known of it is that it has no answer.
        code = grpc.StatusCode.UNAVAILABLE
    error = _from_details(code, message, status, metadata.get(PUSHBACK_KEY))
    if not status.details and not error.is_final and _was_cut(code, message):
        error.retryable = True
    return error


def _was_cut(code: grpc.StatusCode, message: str) -> bool:
    """Return whether a call without details was ended by gRPC, and not by the service.

    A server that is shut down or flooded resets calls before the service has seen them.
    """
    return any(mark in message for mark in _CUTS.get(code, ()))


def error_from_details(code: int, details: bytes) -> LosswireError:
    """Translate the failure of a call that did not come by gRPC, from a google.rpc.Status."""
    status = _parse(status_pb2.Status, details)
    return _from_details(_CODES.get(code, grpc.StatusCode.UNKNOWN), status.message, status, None)


def _from_details(
    code: grpc.StatusCode, message: str, status: status_pb2.Status, pushback: str | bytes | None
) -> LosswireError:
    info = _detail(status, error_details_pb2.ErrorInfo)
    request = _detail(status, error_details_pb2.RequestInfo)
    bad_request = _detail(status, error_details_pb2.BadRequest)
    return _make(
        code,
        message or f"the call failed with {code.name}",
        info.reason if info else "",
        violations_of(bad_request.field_violations if bad_request else ()),
        _pushback(pushback, _detail(status, error_details_pb2.RetryInfo)),
        request_id=request.request_id if request else "",
    )


def too_large_error(message: str, sent_bytes: int) -> ResourceExhaustedError:
    """Return the error of a message that a server will never accept, with advice."""
    return ResourceExhaustedError(
        f"{message}; the request takes {sent_bytes} bytes. Split the batch (numerators and "
        "denominators of its parts add up), put inputs that all rows share (client.put), ask for "
        "fewer gradients, or send bfloat16; server_info().limits tells what the server takes, and "
        "its --max-message-mib sets it",
        reason="MESSAGE_TOO_LARGE",
    )


def too_late_error() -> DeadlineExceededError:
    """Return the error of a call that waited too long for another call of its client."""
    return DeadlineExceededError("the time is up; another call is sending resident tensors")


def malformed_error(fault: str) -> InternalError:
    """Return the error of an answer that violates the contract."""
    text = f"the server's answer is malformed: {fault}"
    return InternalError(text, reason="MALFORMED_RESPONSE")


def unfit_error(fault: str) -> InternalError:
    """Return the error of an answer that is not one to the request."""
    text = f"the server's answer does not fit the request: {fault}"
    return InternalError(text, reason="UNFIT_RESPONSE")


def is_over_limit(error: LosswireError) -> bool:
    """Return whether a server can never do what was asked, and has not begun it."""
    return error.reason == "OVER_LIMIT"


def closed_error() -> CancelledError:
    """Return the error of a call whose client is closed meanwhile."""
    return CancelledError("the client was closed during the call", reason=CLIENT_CLOSED)


def error_from_status(status: losswire_status_pb2.Status) -> LosswireError:
    """Translate the failure of one item of many."""
    code = _CODES.get(status.code, grpc.StatusCode.UNKNOWN)
    pushback = status.retry_after_ms / 1000 if status.HasField("retry_after_ms") else None
    message = status.message or f"the item failed with code {status.code}"
    return _make(code, message, status.reason, violations_of(status.violations), pushback)


def violations_of(messages: Iterable[Any]) -> list[Violation]:
    """Read field violations, google.rpc's or Losswire's own: they have the same fields."""
    return [Violation(message.field, message.description) for message in messages]


_ADVICE: Final = (
    "Give the client a token with token_file, or in LOSSWIRE_TOKEN_FILE or LOSSWIRE_TOKEN"
)


def _make(
    code: grpc.StatusCode,
    message: str,
    reason: str,
    violations: Sequence[Violation],
    pushback: float | None,
    *,
    request_id: str = "",
) -> LosswireError:
    """Return the error of a code; `pushback` is in seconds, and negative for "never"."""
    refused = pushback is not None and pushback < 0
    if code is grpc.StatusCode.UNAUTHENTICATED:
        message = f"{message.rstrip('.')}. {_ADVICE}"
    retryable = not refused and (
        code is grpc.StatusCode.UNAVAILABLE
        or (code is grpc.StatusCode.RESOURCE_EXHAUSTED and pushback is not None)
    )
    error = _CLASSES.get(code, UnknownError)(
        message,
        reason=reason,
        violations=violations,
        request_id=request_id,
        retry_after=None if refused else pushback,
        retryable=retryable,
    )
    error.is_final = refused
    return error


def _pushback(
    header: str | bytes | None, retry_info: error_details_pb2.RetryInfo | None
) -> float | None:
    """Read the seconds to wait before another try, negative for "never".

    The header takes precedence, as in gRPC's own retries; one that is no number means "never".
    """
    if header is not None:
        try:
            return int(header) / 1000
        except ValueError:
            return -1.0
    if retry_info is None or not retry_info.HasField("retry_delay"):
        return None
    return float(retry_info.retry_delay.ToMilliseconds()) / 1000


_M = TypeVar("_M", bound=Message)


def _parse(kind: type[_M], data: str | bytes) -> _M:
    """Parse a message, empty when it is damaged: the code and text still count."""
    try:
        return kind.FromString(data if isinstance(data, bytes) else data.encode())
    except DecodeError:
        return kind()


def _detail(status: status_pb2.Status, kind: type[_M]) -> _M | None:
    """Return the first detail of a kind."""
    for packed in status.details:
        if packed.Is(kind.DESCRIPTOR):
            return _parse(kind, packed.value)
    return None
