"""Keeps out of the log, at level error, what is no error: callers who end their calls."""

import logging
from typing import Final

_LOGGER: Final = "grpc._cython.cygrpc"
_FAILED_SEND: Final = "ExecuteBatchError"
"""gRPC's error for an answer whose caller has gone; it logs each with a traceback."""


class _FailedSends(logging.Filter):
    """Lowers the records of answers that could not be sent to the level debug."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether a record is logged."""
        kind = record.exc_info[0] if record.exc_info else None
        if record.levelno <= logging.DEBUG or kind is None or kind.__name__ != _FAILED_SEND:
            return True
        record.levelno, record.levelname = logging.DEBUG, "DEBUG"
        return logging.getLogger(record.name).isEnabledFor(logging.DEBUG)


def quiet_cancelled_calls() -> None:
    """Log answers whose callers have gone at level debug only."""
    logging.getLogger(_LOGGER).addFilter(_FailedSends())
