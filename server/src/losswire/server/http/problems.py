"""Errors as problems (RFC 9457): the same codes, reasons and violations as over gRPC."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

import grpc

from losswire.server.errors import UnauthenticatedError, WrongMethodError
from losswire.server.http.answer import Answer, json_answer
from losswire.server.rpc.status import error_code_of, forget_frames, item_status

PROBLEM: Final = "application/problem+json"

_STATUSES: Final[Mapping[grpc.StatusCode, HTTPStatus]] = {
    grpc.StatusCode.INVALID_ARGUMENT: HTTPStatus.BAD_REQUEST,
    grpc.StatusCode.UNAUTHENTICATED: HTTPStatus.UNAUTHORIZED,
    grpc.StatusCode.NOT_FOUND: HTTPStatus.NOT_FOUND,
    grpc.StatusCode.ALREADY_EXISTS: HTTPStatus.CONFLICT,
    grpc.StatusCode.FAILED_PRECONDITION: HTTPStatus.PRECONDITION_FAILED,
    grpc.StatusCode.RESOURCE_EXHAUSTED: HTTPStatus.TOO_MANY_REQUESTS,
    grpc.StatusCode.UNIMPLEMENTED: HTTPStatus.NOT_IMPLEMENTED,
    grpc.StatusCode.UNAVAILABLE: HTTPStatus.SERVICE_UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED: HTTPStatus.GATEWAY_TIMEOUT,
}
"""The HTTP status of a code; 500 for others."""

_STATUSES_OF_REASONS: Final[Mapping[str, HTTPStatus]] = {
    "OVER_LIMIT": HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    "WRONG_HOST": HTTPStatus.FORBIDDEN,
    "WRONG_METHOD": HTTPStatus.METHOD_NOT_ALLOWED,
    "WRONG_MEDIA_TYPE": HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
}
"""Where HTTP has a status of its own for a reason."""


def status_of(error: BaseException) -> HTTPStatus:
    """Return the HTTP status of an error."""
    known = error_code_of(error)
    general = _STATUSES.get(known.code, HTTPStatus.INTERNAL_SERVER_ERROR)
    return _STATUSES_OF_REASONS.get(known.reason, general)


def problem_of(error: BaseException, request_id: str) -> dict[str, Any]:
    """Return the problem of an error; an unexpected error is logged, and its text stays here."""
    status, item = status_of(error), item_status(error, request_id)
    problem: dict[str, Any] = {
        "type": "about:blank",
        "title": status.phrase,
        "status": int(status),
        "detail": item.message,
        "code": error_code_of(error).code.name,
        "reason": item.reason,
        "violations": [
            {"field": each.field, "description": each.description} for each in item.violations
        ],
        "request_id": request_id,
    }
    if item.HasField("retry_after_ms"):
        problem["retry_after_ms"] = item.retry_after_ms
    return problem


def problem_answer(error: BaseException, request_id: str) -> Answer:
    """Return the answer to a call that failed."""
    problem = problem_of(error, request_id)
    forget_frames(error)
    headers: dict[str, str] = {}
    if isinstance(error, UnauthenticatedError):
        headers["www-authenticate"] = "Bearer"
    if isinstance(error, WrongMethodError):
        headers["allow"] = ", ".join(error.allowed)
    if "retry_after_ms" in problem:
        headers["retry-after"] = str(-(-problem["retry_after_ms"] // 1000))
    return json_answer(problem, status=problem["status"], media_type=PROBLEM, headers=headers)
