"""TLS: certificates that are read again when they change, for both kinds of door."""

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from losswire.server.identity.files import BrokenFileError, WatchedFiles, read_bytes


@dataclass(frozen=True, slots=True, eq=False)
class Certificates:
    """What a server proves itself with, and whom it trusts."""

    chain: bytes
    """The server's certificates in PEM, its own first."""
    key: bytes
    """The key of the first one, in PEM."""
    client_ca: bytes | None
    """The authorities of callers' certificates in PEM; None: callers need none."""
    context: ssl.SSLContext
    """The same for the HTTP door."""


def read_certificates(cert: Path, key: Path, client_ca: Path | None) -> Certificates:
    """Read the files; BrokenFileError when they cannot be used, or do not belong together."""
    return Certificates(
        chain=read_bytes(cert),
        key=read_bytes(key),
        client_ca=None if client_ca is None else read_bytes(client_ca),
        context=_context(cert, key, client_ca),
    )


def _context(cert: Path, key: Path, client_ca: Path | None) -> ssl.SSLContext:
    """Return the context of connections; BrokenFileError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])

    def ask() -> str:
        # OpenSSL would ask at the terminal.
        message = f"{key}: is encrypted, and a server has nobody to ask for the passphrase"
        raise BrokenFileError(message)

    try:
        context.load_cert_chain(cert, key, ask)
    except (ssl.SSLError, OSError) as error:
        message = f"{cert} and {key}: no certificate and its key, in PEM: {_reason(error)}"
        raise BrokenFileError(message) from None
    if client_ca is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        # A caller who comes back is checked again, by the authorities that there are then.
        context.options |= ssl.OP_NO_TICKET
        context.num_tickets = 0
        try:
            context.load_verify_locations(client_ca)
        except (ssl.SSLError, OSError) as error:
            message = f"{client_ca}: no certificates in PEM: {_reason(error)}"
            raise BrokenFileError(message) from None
    return context


def _reason(error: OSError) -> str:
    """Return what OpenSSL says, in the words that it has."""
    reason = error.reason if isinstance(error, ssl.SSLError) else error.strerror
    return (reason or str(error)).lower().replace("_", " ")


def http_context(certificates: WatchedFiles[Certificates]) -> ssl.SSLContext:
    """Return a context whose every connection has the certificates of its own time."""
    read = certificates.current
    first = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    first.minimum_version = ssl.TLSVersion.TLSv1_2
    first.verify_mode = read.context.verify_mode
    first.options |= read.context.options & ssl.OP_NO_TICKET
    first.num_tickets = read.context.num_tickets
    first.set_alpn_protocols(["http/1.1"])

    def choose(connection: ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> None:
        del name, context
        connection.context = certificates.current.context

    # Despite its name it is called in every handshake.
    first.sni_callback = choose
    return first


def grpc_credentials(certificates: WatchedFiles[Certificates]) -> grpc.ServerCredentials:
    """Return credentials whose every connection has the certificates of its own time."""
    return grpc.dynamic_ssl_server_credentials(
        _configuration(certificates.current),
        _fetcher(certificates),
        require_client_authentication=certificates.current.client_ca is not None,
    )


def _fetcher(certificates: WatchedFiles[Certificates]) -> Any:  # noqa: ANN401 (None is missing in its type)
    """Return what gRPC calls with each new connection: whether its certificates change."""
    served = certificates.current

    def fetch() -> grpc.ServerCertificateConfiguration | None:
        nonlocal served
        current = certificates.current
        if current is served:
            return None
        served = current
        return _configuration(current)

    return fetch


def _configuration(read: Certificates) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration([(read.key, read.chain)], read.client_ca)
