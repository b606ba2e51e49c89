"""A server of several workers, and what its log tells of them."""

import os
import re
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from tests.support.harness import Child
from tests.support.vitals import family, wait_until

_LOADED: Final = re.compile(r"process (\d+) has loaded")
_SERVES: Final = re.compile(r"worker (\d+) serves as process (\d+)")


class Workers(Child):
    """A supervisor, whose first line was printed when all of its workers served."""

    def __init__(
        self,
        log: Path,
        *arguments: str,
        count: int = 2,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Start it, with some workers, and wait until they serve."""
        super().__init__(log, "--workers", str(count), *arguments, environment=environment)

    def serving(self) -> dict[int, int]:
        """Return the processes that serve, by place."""
        texts = [str(each["message"]) for each in self.entries()]
        found = [match for text in texts if (match := _SERVES.fullmatch(text))]
        return {int(match[1]): int(match[2]) for match in found}

    def wait_for_spare(self) -> None:
        """Wait until there is a process that has loaded and has no place yet."""

        def has_spare() -> bool:
            texts = [str(each["message"]) for each in self.entries()]
            loaded = {int(match[1]) for text in texts if (match := _LOADED.fullmatch(text))}
            return bool(loaded & {*family(self.process.pid)} - {*self.serving().values()})

        wait_until(has_spare)

    def strike(self, place: int, number: signal.Signals = signal.SIGKILL) -> float:
        """Send a signal to a worker; returns the seconds until another one has its place."""
        struck = self.serving()[place]
        os.kill(struck, number)
        return wait_until(lambda: self.serving()[place] != struck)
