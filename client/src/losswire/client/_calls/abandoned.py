"""Calls and channels of gRPC in which an exception of a signal's handler has come up.

Such an exception, as Ctrl-C raises, may come while gRPC's Python code holds one of its locks, and
then nobody releases it: whatever needs the lock afterwards waits for ever. So nothing here waits.
"""

import sys
import threading
from collections.abc import Sequence
from typing import Any, Final

import grpc

_channels: Final[list[grpc.Channel]] = []
"""Channels that nobody closes: not even the garbage collector may, on whatever thread it runs."""


def was_interrupted() -> bool:
    """Return whether the exception that is being handled is one of a signal's handler."""
    error = sys.exc_info()[1]
    return error is not None and not isinstance(error, (Exception, GeneratorExit))


def end_call(call: Any) -> None:
    """Cancel a call, unless it has ended; on another thread when it was interrupted."""
    if was_interrupted():
        threading.Thread(target=call.cancel, name="losswire-cancel", daemon=True).start()
    else:
        call.cancel()


def abandon(channels: Sequence[grpc.Channel]) -> None:
    """Keep some channels as they are, for the calls that other threads make over them."""
    _channels.extend(channels)


def close_beside(channels: Sequence[grpc.Channel]) -> None:
    """Close abandoned channels on another thread, which may never end."""

    def close() -> None:
        for each in channels:
            each.close()

    threading.Thread(target=close, name="losswire-close", daemon=True).start()
