"""The id of the current call, which connects its answer with the log."""

import secrets
from contextvars import ContextVar

_current: ContextVar[str] = ContextVar("losswire_request_id", default="")


def new_request_id() -> str:
    """Begin a call: create its id and make it the current one."""
    request_id = secrets.token_hex(8)
    _current.set(request_id)
    return request_id


def current_request_id() -> str:
    """Return the id of the current call; the first use creates it."""
    return _current.get() or new_request_id()
