"""A private authority that issues the certificates of servers and callers.

Needs the package `cryptography`, the extra `tls`.
"""

import ipaddress
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from losswire.server.identity import thresholds
from losswire.server.identity.files import BrokenFileError, read_bytes

_NAME = "Losswire private authority"
_OWN_HOSTS = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True)
class Authority:
    """A certificate that issues others, and its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @classmethod
    def make(cls) -> "Authority":
        """Return a new one."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = _named(_NAME)
        builder = _builder(name, name, key.public_key(), thresholds.AUTHORITY_DAYS)
        builder = builder.add_extension(
            x509.BasicConstraints(ca=True, path_length=0), critical=True
        )
        builder = builder.add_extension(_usage(issues=True), critical=True)
        return cls(builder.sign(key, hashes.SHA256()), key)

    @classmethod
    def read(cls, folder: Path) -> "Authority":
        """Return that of a folder; BrokenFileError."""
        try:
            certificate = x509.load_pem_x509_certificate(read_bytes(folder / "ca.pem"))
            key = serialization.load_pem_private_key(read_bytes(folder / "ca-key.pem"), None)
        except (ValueError, TypeError) as error:
            message = f"{folder}: ca.pem and ca-key.pem are no authority of this command: {error}"
            raise BrokenFileError(message) from None
        if isinstance(key, ec.EllipticCurvePrivateKey) and (
            key.public_key() == certificate.public_key()
        ):
            return cls(certificate, key)
        message = f"{folder}: ca-key.pem is not the key of ca.pem"
        raise BrokenFileError(message)

    def write(self, folder: Path) -> None:
        """Write `ca.pem` and `ca-key.pem`."""
        _write_pair(folder, "ca", self.certificate, self.key)

    def issue_server(self, folder: Path, hosts: Sequence[str]) -> None:
        """Write `server.pem` and its key, for some hosts and this machine; ValueError."""
        names = [_host(each) for each in dict.fromkeys((*_OWN_HOSTS, *hosts))]
        common = hosts[0] if hosts else _OWN_HOSTS[0]
        self._issue(folder, "server", common, x509.SubjectAlternativeName(names))

    def issue_client(self, folder: Path, tenant: str) -> None:
        """Write `client.pem` and its key, which name a tenant."""
        self._issue(folder, "client", tenant, None)

    def _issue(
        self,
        folder: Path,
        name: str,
        common_name: str,
        hosts: x509.SubjectAlternativeName | None,
    ) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        builder = _builder(
            _named(common_name[: thresholds.LONGEST_TENANT]),
            self.certificate.subject,
            key.public_key(),
            thresholds.CERTIFICATE_DAYS,
        )
        purpose = ExtendedKeyUsageOID.CLIENT_AUTH
        if hosts is not None:
            builder = builder.add_extension(hosts, critical=False)
            purpose = ExtendedKeyUsageOID.SERVER_AUTH
        builder = builder.add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        builder = builder.add_extension(
            x509.BasicConstraints(ca=False, path_length=None), critical=True
        )
        builder = builder.add_extension(_usage(issues=False), critical=True)
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key())
        builder = builder.add_extension(issuer, critical=False)
        _write_pair(folder, name, builder.sign(self.key, hashes.SHA256()), key)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, days: int
) -> x509.CertificateBuilder:
    """Return what every certificate has."""
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        # Clocks differ.
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _named(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _host(text: str) -> x509.GeneralName:
    """Return the name of a host, or its address; ValueError for neither."""
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        pass
    try:
        return x509.DNSName(text.encode("idna").decode())
    except UnicodeError:
        message = f"--host {text}: is no name of a host"
        raise ValueError(message) from None


def _usage(*, issues: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not issues,
        key_cert_sign=issues,
        crl_sign=issues,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _write_pair(
    folder: Path, name: str, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey
) -> None:
    """Write a certificate and its key, each in one step."""
    _write(
        folder / f"{name}-key.pem",
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ),
        0o600,
    )
    _write(folder / f"{name}.pem", certificate.public_bytes(serialization.Encoding.PEM), 0o644)


def _write(path: Path, data: bytes, mode: int) -> None:
    new = path.with_name(f".{path.name}.new")
    new.unlink(missing_ok=True)
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
    new.replace(path)
