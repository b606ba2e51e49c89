"""Tokens of callers, and the file that keeps their hashes.

Each line of the file is `TENANT sha256:HEX`, perhaps followed by `until=2026-12-31T00:00:00Z`.
Empty lines and those that begin with # say nothing.
"""

import hashlib
import hmac
import re
import secrets
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from losswire.server.identity import thresholds
from losswire.server.identity.files import BrokenFileError, read_bytes
from losswire.server.identity.principal import Principal

PREFIX: Final = "lw_"
"""Begins every token, so that programs that look for leaked secrets recognize one."""

_TENANT: Final = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._-]{{0,{thresholds.LONGEST_TENANT - 1}}}")
_DIGEST: Final = re.compile(r"sha256:([0-9a-f]{64})")
_UNTIL: Final = "until="


class TokenFileError(BrokenFileError):
    """A file of tokens that cannot be used; the text names the file, the line and the mistake."""


@dataclass(frozen=True, slots=True)
class TokenHash:
    """What is known of one token."""

    tenant: str
    digest: str
    """The SHA-256 of the token in hexadecimal digits."""
    until: datetime | None = None
    """When it ends to be valid; None: never."""

    @property
    def line(self) -> str:
        """The line of the file."""
        end = "" if self.until is None else f" {_UNTIL}{self.until:%Y-%m-%dT%H:%M:%SZ}"
        return f"{self.tenant} sha256:{self.digest}{end}"

    def is_valid(self, now: float) -> bool:
        """Return whether it is valid at a time in seconds since 1970."""
        return self.until is None or now < self.until.timestamp()


def new_token() -> str:
    """Return a new random token."""
    return PREFIX + secrets.token_urlsafe(thresholds.TOKEN_SECRET_BYTES)


def digest_of(token: str) -> str:
    """Return the SHA-256 of a token in hexadecimal digits."""
    return hashlib.sha256(token.encode(errors="surrogateescape")).hexdigest()


def check_tenant(name: str) -> str:
    """Return the name of a tenant; ValueError with what is expected."""
    if _TENANT.fullmatch(name):
        return name
    message = (
        f"{name[:80]!r} cannot name a tenant: at most {thresholds.LONGEST_TENANT} letters, digits "
        "and . _ -, a letter or digit first"
    )
    raise ValueError(message)


def parse_until(text: str) -> datetime:
    """Return the time that a text names, in UTC without parts of a second; ValueError."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        found = None
    if found is None or found.tzinfo is None:
        message = f"{text[:80]!r} is no time with a zone, such as 2026-12-31T00:00:00Z"
        raise ValueError(message)
    return found.astimezone(UTC).replace(microsecond=0)


def parse_line(line: str) -> TokenHash | None:
    """Return what a line of the file says, None for nothing; ValueError with the mistake."""
    words = line.split()
    if not words or words[0].startswith("#"):
        return None
    tenant, *rest = words
    check_tenant(tenant)
    digest = _DIGEST.fullmatch(rest[0]) if rest else None
    if digest is None:
        # Not the word itself: it may be a token that was pasted here.
        message = "the second word must be sha256: and 64 lower-case hexadecimal digits"
        raise ValueError(message)
    until: datetime | None = None
    if len(rest) > 1:
        if len(rest) > 2 or not rest[1].startswith(_UNTIL):  # noqa: PLR2004 (hash and end)
            message = f"after the hash there may only be {_UNTIL}2026-12-31T00:00:00Z"
            raise ValueError(message)
        until = parse_until(rest[1].removeprefix(_UNTIL))
    return TokenHash(tenant, digest[1], until)


def parse_tokens(text: str, name: str) -> list[TokenHash]:
    """Return the hashes in the text of a file called `name`; TokenFileError for a mistake."""
    found: dict[str, TokenHash] = {}
    valid: Counter[str] = Counter()
    now = time.time()
    for number, line in enumerate(text.splitlines(), 1):
        try:
            each = parse_line(line)
            if each is None:
                continue
            valid[each.tenant] += each.is_valid(now)
            _check_added(each, found, valid[each.tenant])
        except ValueError as error:
            message = f"{name}:{number}: {error}"
            raise TokenFileError(message) from None
        found[each.digest] = each
    return list(found.values())


def _check_added(added: TokenHash, found: Mapping[str, TokenHash], valid: int) -> None:
    """Raise ValueError for a hash that is there already, or one too many of its tenant."""
    if added.digest in found:
        message = "the hash is there twice"
        raise ValueError(message)
    if valid > thresholds.TOKENS_PER_TENANT:
        message = f"{added.tenant} has more than {thresholds.TOKENS_PER_TENANT} valid tokens"
        raise ValueError(message)


def read_text(path: Path) -> str:
    """Return the text of a file of tokens; BrokenFileError when it cannot be read."""
    try:
        return read_bytes(path).decode()
    except UnicodeDecodeError:
        message = f"{path}: is no text in UTF-8"
        raise TokenFileError(message) from None


class Tokens:
    """The tokens that a server knows."""

    def __init__(self, hashes: Iterable[TokenHash]) -> None:
        """Know these."""
        self._known: Mapping[str, tuple[TokenHash, Principal]] = {
            each.digest: (each, Principal(each.tenant)) for each in hashes
        }

    @classmethod
    def read(cls, path: Path) -> "Tokens":
        """Return those of a file; BrokenFileError when it cannot be used."""
        return cls(parse_tokens(read_text(path), str(path)))

    def __len__(self) -> int:
        """Return how many there are, those included that are not valid any more."""
        return len(self._known)

    def find(self, token: str) -> Principal | None:
        """Return whose token it is; None for one that is unknown, or not valid any more."""
        # How long the look-up takes depends on the hash, which says nothing of any token.
        digest = digest_of(token)
        found = self._known.get(digest)
        if found is None:
            return None
        known, principal = found
        is_right = hmac.compare_digest(known.digest, digest) and known.is_valid(time.time())
        return principal if is_right else None
