"""The token of the next page of a list.

It holds a position and a checksum, and no secret: whoever makes one up gets a page of the same
tenant's runs, which any caller of that tenant may list.
"""

import base64
import binascii
import hashlib
import json
import struct
from typing import Final

from losswire.server.runs.store import Filters

_LAYOUT: Final = struct.Struct("<q16s")


def write_token(filters: Filters, after: int) -> str:
    """Return the token of the page behind a sequence number, of a list with these filters."""
    packed = _LAYOUT.pack(after, _checksum(filters, after))
    return base64.urlsafe_b64encode(packed).decode().rstrip("=")


def read_token(filters: Filters, token: str) -> int:
    """Return the sequence number; ValueError unless this is a token of a list like this one."""
    try:
        packed = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
        after, checksum = _LAYOUT.unpack(packed)
    except (binascii.Error, struct.error, ValueError):
        raise ValueError("it is not a next_page_token") from None
    if checksum != _checksum(filters, after):
        raise ValueError("it belongs to a list with other filters")
    return int(after)


def _checksum(filters: Filters, after: int) -> bytes:
    content = [after, filters.loss, filters.name, sorted(filters.labels.items())]
    return hashlib.sha256(json.dumps(content).encode()).digest()[:16]
