"""An HTTP door of a server: what it is shown, and whom the caller trusts."""

import ssl
import urllib.request
from http.client import HTTPResponse
from typing import cast
from urllib.parse import urlsplit

from losswire.client import IdentityFields
from losswire.client._calls.identity import Identity, is_loopback
from losswire.client._calls.identity_arguments import read_arguments
from losswire.client.cli._common import refusals


class Door:
    """An HTTP address, and the token and certificates that go with it."""

    def __init__(self, address: str, fields: IdentityFields) -> None:
        """Read the files; UsageError for what is no good, and for a token without TLS."""
        self.address = address
        """The address, with its scheme."""
        with refusals():
            self._arguments = read_arguments(fields)
            self._identity = Identity(self._arguments)
            parts, tls = urlsplit(address), self._arguments.tls
            self._is_encrypted = parts.scheme == "https"
            is_meant = self._is_encrypted or is_loopback(parts.netloc) or (tls and not tls.value)
            token = self._arguments.token or self._arguments.token_file
            if token is not None and not is_meant:
                raise token.refuse("goes to another machine by https:// only, or with --no-tls")

    def open(self, path: str, timeout: float) -> HTTPResponse:
        """Ask for a path, and for JSON; raises as `urlopen` does."""
        self._identity.follow()
        headers = {"Accept": "application/json"}
        request = urllib.request.Request(self.address + path, headers=headers)  # noqa: S310 (checked by address_of)
        for name, value in self._identity.metadata or ():
            # No other server gets it by a redirection.
            request.add_unredirected_header(name.capitalize(), value)
        context = self._context() if self._is_encrypted else None
        opened = urllib.request.urlopen(request, timeout=timeout, context=context)  # noqa: S310 (as above)
        return cast("HTTPResponse", opened)

    def _context(self) -> ssl.SSLContext:
        given = self._arguments
        ca = given.tls_ca.value if given.tls_ca is not None else None
        context = ssl.create_default_context(cafile=ca)
        if given.tls_cert is not None and given.tls_key is not None:
            context.load_cert_chain(given.tls_cert.value, given.tls_key.value)
        return context
