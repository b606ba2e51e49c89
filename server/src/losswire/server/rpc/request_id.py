"""The number of the call being served, which ties an answer to the log."""

import secrets
from contextvars import ContextVar

_current: ContextVar[str] = ContextVar("losswire_request_id", default="")


def new_request_id() -> str:
    """Begin a call: make its number the current one."""
    request_id = secrets.token_hex(8)
    _current.set(request_id)
    return request_id


def current_request_id() -> str:
    """Give the number of the call being served; it gets one when it is first asked for."""
    return _current.get() or new_request_id()
