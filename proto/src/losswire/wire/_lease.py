"""The header of the messages of a lease, the connection over which evaluations can go."""

import struct
from typing import Final

LEASE_HEADER: Final = struct.Struct("<II")
"""Two numbers before each message; the first is the number of bytes that follow.

The second is, in a request, its time limit in milliseconds (0: none), and in an answer the
canonical status code (0: an EvaluateResponse follows, else a google.rpc.Status).
"""
