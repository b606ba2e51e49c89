"""Asks every caller who it is."""

from collections.abc import Callable
from typing import Final

from losswire.server.errors import UnauthenticatedError
from losswire.server.identity import thresholds
from losswire.server.identity.files import WatchedFiles
from losswire.server.identity.principal import Principal
from losswire.server.identity.tokens import Tokens

_SCHEME: Final = "bearer"


class Gatekeeper:
    """Says who calls, by a token or by the certificate of the connection."""

    def __init__(
        self, tokens: WatchedFiles[Tokens] | None, *, asks_for_certificates: bool = False
    ) -> None:
        """Know some tokens.

        Where connections need certificates, these name callers who send no token.
        """
        self._tokens = tokens
        self._asks_for_certificates = asks_for_certificates

    def admit(self, authorization: str, common_name: Callable[[], str]) -> Principal:
        """Return who calls; UnauthenticatedError for nobody who is known.

        `authorization` is the header of this name, empty without one; `common_name` returns that
        of the connection's certificate, which was checked, and is empty without one.
        """
        if self._tokens is not None and (authorization or not self._asks_for_certificates):
            scheme, _, token = authorization.partition(" ")
            found = self._tokens.current.find(token.strip()) if scheme.lower() == _SCHEME else None
            if found is None:
                raise UnauthenticatedError
            return found
        name = common_name()
        if not name.isprintable() or not 0 < len(name) <= thresholds.LONGEST_TENANT:
            raise UnauthenticatedError
        return Principal(name)
