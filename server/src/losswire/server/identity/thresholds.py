"""The numbers of identity; each says what chose it."""

from typing import Final

TOKEN_SECRET_BYTES: Final = 32
"""Random bytes of a token. Not measured: 256 bits cannot be guessed, so that a plain hash of them
is as safe to keep as a slow one, and takes less than a microsecond with each call."""

TOKENS_PER_TENANT: Final = 2
"""Valid tokens of one tenant: the one in use, and the one that takes its place."""

LONGEST_TENANT: Final = 64
"""Characters of a tenant's name: those of a common name in a certificate (RFC 5280)."""

LOOK_SECONDS: Final = 1.0
"""Seconds between two looks at whether a file has changed. Not measured: a look takes some
microseconds, and an operator who revokes a token waits for this."""

AUTHORITY_DAYS: Final = 3650
"""Days of a private authority. Not measured: as long as a machine lasts."""

CERTIFICATE_DAYS: Final = 397
"""Days of a certificate that it issues. Not measured: the most that browsers accept."""
