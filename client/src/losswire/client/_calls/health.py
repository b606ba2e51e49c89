"""The health of a server (grpc.health.v1), with the messages written by hand."""

from typing import Any, Final

import grpc
import grpc.aio

from losswire.client._errors import code_of

METHOD: Final = "/grpc.health.v1.Health/Check"
WHOLE_SERVER: Final = b""
"""The request that names no service."""

_SILENCE: Final = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.CANCELLED,
    }
)
"""The codes that gRPC makes up where no server answers."""


def is_alive(channel: grpc.Channel, seconds: float) -> bool:
    """Return whether the server of a channel answers within some seconds, whatever it says."""
    try:
        method: Any = channel.unary_unary(METHOD, None, None)
        method(WHOLE_SERVER, timeout=seconds)
    except grpc.RpcError as failure:
        return _has_answered(failure)
    except ValueError:  # gRPC's error for a channel that was closed: its call says so
        return True
    return True


async def is_alive_async(channel: grpc.aio.Channel, seconds: float) -> bool:
    """Return the same as `is_alive`, on the running event loop."""
    try:
        method: Any = channel.unary_unary(METHOD, None, None)
        await method(WHOLE_SERVER, timeout=seconds)
    except grpc.RpcError as failure:
        return _has_answered(failure)
    except grpc.aio.UsageError:
        return True
    return True


def _has_answered(failure: grpc.RpcError) -> bool:
    return code_of(failure) not in _SILENCE
