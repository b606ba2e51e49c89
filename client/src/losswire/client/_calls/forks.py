"""Processes that were forked from one that had used gRPC, where gRPC does not support that.

With `GRPC_ENABLE_FORK_SUPPORT=0` gRPC has no threads in a child: a call would never end there.
"""

import os
from typing import Final

_IS_SUPPORTED: Final = os.environ.get("GRPC_ENABLE_FORK_SUPPORT", "1").lower() not in (
    *("0", "no", "false"),
)
_used_in: "set[int]" = set()
"""The processes that made a client: this one, and those that it was forked from."""


def begin_use() -> None:
    """Note that this process uses gRPC; RuntimeError where it does not work."""
    process = os.getpid()
    if not _IS_SUPPORTED and _used_in - {process}:
        raise RuntimeError(
            "this process was forked from one that had made a client, with "
            "GRPC_ENABLE_FORK_SUPPORT=0: gRPC does not work here. Start processes with 'spawn' or "
            "'forkserver', or fork before the first client is made"
        )
    _used_in.add(process)
