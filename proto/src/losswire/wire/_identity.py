"""The id of a resident tensor: the hash of its canonical encoding."""

import hashlib
import struct
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from hashlib import _Hash

ID_BYTES: Final = hashlib.sha256().digest_size
"""The length of `TensorId.sha256`."""


def begin_identity(data_type: int, shape: Sequence[int]) -> "_Hash":
    """Start the SHA-256 of a tensor: after an update with its data, the digest is the id.

    The canonical encoding is the one that `TensorId` documents.
    """
    return hashlib.sha256(struct.pack(f"<II{len(shape)}q", data_type, len(shape), *shape))
