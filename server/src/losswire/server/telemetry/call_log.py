"""The log of calls: a line of JSON for each call that has ended, without any of its data."""

import asyncio
import logging
import random
import re
import time
from collections.abc import Iterable
from typing import Any, Final

from losswire.server.address import StartError
from losswire.server.metrics.notes import CallNotes
from losswire.server.settings import call_log_fraction
from losswire.server.telemetry import thresholds

_log = logging.getLogger("losswire.calls")

_TRACEPARENT: Final = re.compile(
    r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}"
)
"""A traceparent, as W3C's Trace Context defines it."""


class CallLog:
    """Writes the lines: of all calls that failed, or had an item that did, and a part of others."""

    def __init__(self, fraction: float) -> None:
        """Write this part of the calls that succeed."""
        self._fraction = fraction
        self._second = 0
        self._written = 0
        """In that second."""
        self._left_out = 0

    def ended(self, notes: CallNotes) -> None:
        """Write the line of a call, unless it is left out."""
        is_error = notes.status != "OK" or notes.refusals
        if not is_error and random.random() >= self._fraction:  # noqa: S311 (no secret)
            return
        if not _log.isEnabledFor(logging.INFO):
            return
        second = int(time.monotonic())
        if second != self._second:
            self._second, self._written = second, 0
        if self._written < thresholds.LINES_PER_SECOND:
            self._written += 1
            _log.info("call", extra={"fields": _fields(notes)})
            return
        if not self._left_out:
            asyncio.get_running_loop().call_later(1.0, self._tell)
        self._left_out += 1

    def _tell(self) -> None:
        """Say how many lines were left out."""
        left_out, self._left_out = self._left_out, 0
        _log.warning("lines of calls were left out", extra={"fields": {"left_out": left_out}})


def make_call_log(setting: str) -> CallLog | None:
    """Return the log for `none`, `errors`, `all` or a fraction; None for `none`.

    Raises StartError for anything else.
    """
    try:
        fraction = call_log_fraction(setting)
    except ValueError as error:
        message = f"--call-log {error}"
        raise StartError(message) from None
    return None if fraction is None else CallLog(fraction)


def _fields(notes: CallNotes) -> dict[str, Any]:
    """Return the members of a line; those that nothing is known of are left out."""
    about = notes.about
    fields: dict[str, Any] = {
        "request_id": notes.request_id,
        "traceparent": _traceparent(notes.headers()),
        "method": notes.method,
        "code": notes.status,
        "http_status": notes.http_status,
        "reason": notes.reason,
        # Of a call that failed as a whole, the error is its own.
        "failed_items": notes.refusals if notes.status == "OK" else 0,
        "loss": about.loss if about else "",
        "shapes": about.shapes if about else {},
    }
    return {
        **{name: value for name, value in fields.items() if value},
        "received_bytes": notes.received_bytes,
        "sent_bytes": notes.sent_bytes,
        "milliseconds": _milliseconds(notes.nanoseconds),
        "stages": {stage: _milliseconds(each) for stage, each in notes.stages.items()},
    }


def _traceparent(headers: Iterable[tuple[str | bytes, str | bytes]]) -> str:
    """Return the trace that a call belongs to; empty: it says none, or nonsense."""
    for key, value in headers:
        if key in {"traceparent", b"traceparent"}:
            text = value.decode("latin-1") if isinstance(value, bytes) else value
            return text if _TRACEPARENT.fullmatch(text) else ""
    return ""


def _milliseconds(nanoseconds: int) -> float:
    return round(nanoseconds / 1e6, 3)
