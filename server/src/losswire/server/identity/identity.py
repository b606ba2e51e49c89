"""What a server knows of who may call, as long as it serves."""

import asyncio
import signal
from contextlib import suppress
from pathlib import Path
from typing import Any

from losswire.server.address import StartError
from losswire.server.identity import thresholds
from losswire.server.identity.files import BrokenFileError, WatchedFiles
from losswire.server.identity.gatekeeper import Gatekeeper
from losswire.server.identity.tokens import Tokens
from losswire.server.settings import Settings


class Identity:
    """The files of a server's identity, which it reads again when they change, and at SIGHUP."""

    def __init__(self, settings: Settings) -> None:
        """Read the files of the settings; StartError when one cannot be used."""
        self.gatekeeper: Gatekeeper | None = None
        """Asks who calls; None: everybody may."""
        self._watched: list[WatchedFiles[Any]] = []
        self._watching: asyncio.Task[None] | None = None
        if settings.tokens:
            self.gatekeeper = Gatekeeper(self._tokens(settings))

    def _tokens(self, settings: Settings) -> WatchedFiles[Tokens]:
        path = Path(settings.tokens)
        try:
            tokens = WatchedFiles([path], lambda: Tokens.read(path), "--tokens")
        except BrokenFileError as error:
            message = f"--tokens {error}"
            raise StartError(message) from None
        self._watched.append(tokens)
        return tokens

    def start(self) -> None:
        """Look at the files again and again from now on; nothing without any."""
        if not self._watched:
            return
        self._watching = asyncio.create_task(self._watch())
        # Only the main thread gets signals, and not every system has this one.
        with suppress(ValueError, RuntimeError, NotImplementedError, AttributeError):
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._read_again)

    def stop(self) -> None:
        """Look no more."""
        if self._watching is None:
            return
        self._watching.cancel()
        with suppress(ValueError, RuntimeError, NotImplementedError, AttributeError):
            asyncio.get_running_loop().remove_signal_handler(signal.SIGHUP)

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(thresholds.LOOK_SECONDS)
            for each in self._watched:
                each.look()

    def _read_again(self) -> None:
        for each in self._watched:
            each.look(again=True)
