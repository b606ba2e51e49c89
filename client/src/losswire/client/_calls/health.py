"""The health of a server (grpc.health.v1), with the messages written by hand.

Each question has a connection of its own: over that of a call it would wait behind the call's
bytes, and a slow link would look like a silent server.
"""

from typing import Any, Final

import grpc

from losswire.client._calls.abandoned import abandon, was_interrupted
from losswire.client._errors import code_of

METHOD: Final = "/grpc.health.v1.Health/Check"
WHOLE_SERVER: Final = b""
"""The request that names no service."""

_OPTIONS: Final = (
    # Otherwise it would share the connection of the client's channel to the same target.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_retries", 0),
    ("grpc.enable_http_proxy", 0),
)

_SILENCE: Final = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.CANCELLED,
    }
)
"""The codes that gRPC makes up where no server answers."""


def is_alive(
    target: str, seconds: float, credentials: grpc.ChannelCredentials | None = None
) -> bool:
    """Return whether the server at a target answers within some seconds, whatever it says."""
    channel = (
        grpc.insecure_channel(target, _OPTIONS)
        if credentials is None
        else grpc.secure_channel(target, credentials, _OPTIONS)
    )
    try:
        method: Any = channel.unary_unary(METHOD, None, None)
        method(WHOLE_SERVER, timeout=seconds)
    except grpc.RpcError as failure:
        return code_of(failure) not in _SILENCE
    finally:
        if was_interrupted():
            abandon([channel])
        else:
            channel.close()
    return True
