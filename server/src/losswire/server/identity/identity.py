"""What a server knows of who may call, as long as it serves."""

import asyncio
import signal
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from losswire.server.address import StartError
from losswire.server.identity import thresholds
from losswire.server.identity.files import BrokenFileError, WatchedFiles
from losswire.server.identity.gatekeeper import Gatekeeper
from losswire.server.identity.tls import (
    Certificates,
    grpc_credentials,
    http_context,
    read_certificates,
)
from losswire.server.identity.tokens import Tokens
from losswire.server.settings import Settings

if TYPE_CHECKING:
    import ssl

    import grpc

ReadT = TypeVar("ReadT")


class Identity:
    """The files of a server's identity, which it reads again when they change, and at SIGHUP."""

    def __init__(self, settings: Settings) -> None:
        """Read the files of the settings; StartError when one cannot be used."""
        self.gatekeeper: Gatekeeper | None = None
        """Asks who calls; None: everybody may."""
        self._watched: list[WatchedFiles[Any]] = []
        self._watching: asyncio.Task[None] | None = None
        self.credentials: grpc.ServerCredentials | None = None
        """What gRPC proves itself with; None: it has no TLS."""
        self.context: ssl.SSLContext | None = None
        """The same for the HTTP door."""
        asks = bool(settings.tls_client_ca)
        if certificates := self._certificates(settings):
            self.credentials = grpc_credentials(certificates)
            self.context = http_context(certificates)
        tokens: WatchedFiles[Tokens] | None = None
        if settings.tokens:
            path = Path(settings.tokens)
            tokens = self._read("--tokens", [path], lambda: Tokens.read(path))
        if tokens is not None or asks:
            self.gatekeeper = Gatekeeper(tokens, asks_for_certificates=asks)

    def _certificates(self, settings: Settings) -> WatchedFiles[Certificates] | None:
        cert, key, client_ca = settings.tls_cert, settings.tls_key, settings.tls_client_ca
        if bool(cert) != bool(key) or (client_ca and not cert):
            message = "--tls-cert and --tls-key need each other, and --tls-client-ca needs both"
            raise StartError(message)
        if not cert:
            return None
        paths = [Path(each) for each in (cert, key, client_ca) if each]
        authorities = Path(client_ca) if client_ca else None
        return self._read(
            "--tls-cert", paths, lambda: read_certificates(Path(cert), Path(key), authorities)
        )

    def _read(
        self, option: str, paths: Sequence[Path], read: Callable[[], ReadT]
    ) -> WatchedFiles[ReadT]:
        """Read the files of an option, and watch them; StartError when they cannot be used."""
        try:
            files = WatchedFiles(paths, read, option)
        except BrokenFileError as error:
            message = f"{option}: {error}"
            raise StartError(message) from None
        self._watched.append(files)
        return files

    def start(self) -> None:
        """Look at the files again and again from now on; nothing without any."""
        if not self._watched:
            return
        self._watching = asyncio.create_task(self._watch())
        # Only the main thread gets signals, and not every system has this one.
        with suppress(ValueError, RuntimeError, NotImplementedError, AttributeError):
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._read_again)

    def stop(self) -> None:
        """Look no more, except at SIGHUP: without a handler it would end a server that drains."""
        if self._watching is not None:
            self._watching.cancel()

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(thresholds.LOOK_SECONDS)
            for each in self._watched:
                each.look()

    def _read_again(self) -> None:
        for each in self._watched:
            each.look(again=True)
