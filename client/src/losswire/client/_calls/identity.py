"""Who a client is and whom it trusts: its token and certificates, which may change on disk."""

import ipaddress
import os
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import grpc

from losswire.client._calls.identity_arguments import Arguments, Given, check_token
from losswire.client._errors import LosswireError, UnauthenticatedError, UnavailableError
from losswire.client._messages import thresholds
from losswire.wire import LARGE_MESSAGE

Metadata = tuple[tuple[str, str], ...]
_Seen = tuple[tuple[int, int, int, int], ...]
"""What tells one content of some files from the next."""

_ON_THIS_MACHINE: Final = ("unix:", "unix-abstract:")
RESOLVED: Final = ("dns:", "ipv4:", "ipv6:", "passthrough:")
"""Schemes with an address behind them, or several with commas between them."""


def is_loopback(target: str) -> bool:
    """Return whether only this machine can answer at a target, by its name alone."""
    if target.startswith(_ON_THIS_MACHINE):
        return True
    scheme, _, rest = target.partition(":")
    addresses = rest.removeprefix("///") if f"{scheme}:" in RESOLVED else target
    return all(_is_loopback_host(_host(each)) for each in addresses.split(","))


def _host(address: str) -> str:
    """Return the host of an address with or without a port."""
    if address.startswith("["):
        return address[1:].partition("]")[0]
    return address.partition(":")[0] if address.count(":") == 1 else address


def _is_loopback_host(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Identity:
    """The token and certificates of a client. Any thread may use it.

    What comes of files is read again when they have changed; while their contents are no good, the
    last good ones stay.
    """

    def __init__(self, arguments: Arguments) -> None:
        """Read the files; ValueError, with the name that was given, for what is no good."""
        self._arguments = arguments
        self.metadata: Metadata | None = None
        """The metadata of each call."""
        self.large_metadata: Metadata = (LARGE_MESSAGE,)
        """The metadata of a call whose message is large."""
        self.generation = 0
        """The number of times that the certificates have changed."""
        self._changed = {UnauthenticatedError: -1.0, UnavailableError: -1.0}
        """When the token and the certificates changed last, by the error that this may mend."""
        self._credentials = arguments.credentials
        self._lock = threading.Lock()
        self._files = self._watched()
        self.watches = bool(self._files)
        """Whether anything comes of files, so that `follow` has something to do."""
        if arguments.token is not None:
            self._take_token(arguments.token.value)
        for each in self._files:
            each.read()

    def _watched(self) -> "list[_Watched]":
        files = []
        if token := self._arguments.token_file:
            files.append(_Watched([token.value], thresholds.TOKEN_SECONDS, self._read_token))
        if self._arguments.files:
            paths = [each.value for each in self._arguments.files]
            seconds = thresholds.CERTIFICATE_SECONDS
            files.append(_Watched(paths, seconds, self._read_certificates))
        return files

    def credentials_for(self, target: str) -> grpc.ChannelCredentials | None:
        """Return what a connection to a target proves and to whom; None: it is not encrypted."""
        tls = self._arguments.tls
        if self._credentials is not None or (tls is not None and not tls.value):
            return self._credentials
        has_token = self.metadata is not None
        if tls is None and (not has_token or is_loopback(target)):
            return None
        return grpc.ssl_channel_credentials()

    def follow(self, *, at_once: bool = False) -> None:
        """Read files that have changed, unless somebody has looked a moment ago."""
        now = time.monotonic()
        if at_once or any(each.is_due(now) for each in self._files):
            with self._lock:
                for each in self._files:
                    if at_once or each.is_due(now):
                        each.read_again(now)

    def is_renewed(self, error: LosswireError, since: float) -> bool:
        """Return whether what made a call fail has been replaced on disk since some time."""
        if not self.watches or type(error) not in self._changed:
            return False
        self.follow(at_once=True)
        return self._changed[type(error)] >= since

    def _read_token(self) -> None:
        given = self._arguments.token_file
        if given is None:
            return
        token = check_token(given.name, _read(given).decode("ascii", "replace").strip())
        if self._take_token(token):
            self._changed[UnauthenticatedError] = time.monotonic()

    def _take_token(self, token: str) -> bool:
        """Send a token from now on; returns whether it is another one than before."""
        metadata = (("authorization", f"Bearer {token}"),)
        if metadata == self.metadata:
            return False
        self.metadata, self.large_metadata = metadata, (*metadata, LARGE_MESSAGE)
        return True

    def _read_certificates(self) -> None:
        given = self._arguments
        ca = certificate = key = None
        if given.tls_ca is not None:
            ca = _checked_ca(given.tls_ca)
        if given.tls_cert is not None and given.tls_key is not None:
            certificate, key = _checked_pair(given.tls_cert, given.tls_key)
        self._credentials = grpc.ssl_channel_credentials(ca, key, certificate)
        self.generation += 1
        self._changed[UnavailableError] = time.monotonic()


class _Watched:
    """Some files that are read again when one of them has changed."""

    def __init__(self, paths: Sequence[Path], seconds: float, read: Callable[[], None]) -> None:
        """Look at the files every some seconds at most; `read` raises ValueError."""
        self._paths = paths
        self._seconds = seconds
        self._read = read
        self._seen: _Seen | None = None
        self._due = 0.0

    def is_due(self, now: float) -> bool:
        """Return whether it is time to look at the files."""
        return now >= self._due

    def read(self) -> None:
        """Read the files for the first time."""
        self._due = time.monotonic() + self._seconds
        seen = self._look()
        self._read()
        self._seen = seen

    def read_again(self, now: float) -> None:
        """Read the files if they have changed and are good."""
        self._due = now + self._seconds
        # Before they are read: what is written meanwhile is another change.
        seen = self._look()
        if seen is None or seen == self._seen:
            return
        try:
            self._read()
        except ValueError:
            return  # such as half of a pair: the rest comes in a moment
        self._seen = seen

    def _look(self) -> _Seen | None:
        try:
            found = [os.stat(path) for path in self._paths]  # noqa: PTH116 - many calls do it
        except OSError:
            return None
        return tuple((each.st_mtime_ns, each.st_size, each.st_ino, each.st_dev) for each in found)


def _read(given: Given[Path]) -> bytes:
    try:
        return given.value.read_bytes()
    except OSError as error:
        why = error.strerror or type(error).__name__
        raise given.refuse(f"cannot read {str(given.value)!r}: {why}") from None


def _read_pem(given: Given[Path], kind: str) -> bytes:
    """Return the contents of a file that has PEM of a kind; ValueError for others."""
    content = _read(given)
    if b"-----BEGIN " not in content or kind.encode() + b"-----" not in content:
        text = f"{str(given.value)!r} is not PEM: it has no line `-----BEGIN {kind}-----`"
        raise given.refuse(text)
    return content


def _checked_ca(given: Given[Path]) -> bytes:
    content = _read_pem(given, "CERTIFICATE")
    try:
        _context().load_verify_locations(cadata=content.decode("ascii", "replace"))
    except (ssl.SSLError, ValueError):
        raise given.refuse(f"{str(given.value)!r} has a damaged certificate") from None
    return content


def _checked_pair(certificate: Given[Path], key: Given[Path]) -> tuple[bytes, bytes]:
    contents = _read_pem(certificate, "CERTIFICATE"), _read_pem(key, "PRIVATE KEY")
    try:
        # Without a password, OpenSSL would ask for one at the terminal.
        _context().load_cert_chain(certificate.value, key.value, password="")
    except (ssl.SSLError, OSError, ValueError):
        raise key.refuse(
            f"{str(key.value)!r} is not the key of the certificate in "
            f"{str(certificate.value)!r}, is encrypted, or one of them is damaged"
        ) from None
    return contents


def _context() -> ssl.SSLContext:
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
