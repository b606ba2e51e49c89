"""Files that are read again when they change."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, TypeVar

_log = logging.getLogger(__name__)

ReadT = TypeVar("ReadT")

_Version = tuple[tuple[int, ...] | None, ...]
"""When each of some files was written, how large it is and which file it is; None: missing."""


class BrokenFileError(Exception):
    """A file that cannot be used; the text names it and the mistake."""


def read_bytes(path: Path) -> bytes:
    """Return the bytes of a file; BrokenFileError when it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        message = f"{path}: {error.strerror or error}"
        raise BrokenFileError(message) from None


class WatchedFiles(Generic[ReadT]):
    """What was read from some files; once they are broken, what was read last of good ones."""

    def __init__(self, paths: Sequence[Path], read: Callable[[], ReadT], name: str) -> None:
        """Read; BrokenFileError when that fails. The `name` is for the log."""
        self._paths = paths
        self._read = read
        self._name = name
        self._version = self._look()
        self.current = read()
        """What the files say."""

    def look(self, *, again: bool = False) -> None:
        """Read the files if they have changed, or in any case."""
        # Before they are read: what changes meanwhile is read the next time.
        version = self._look()
        if version == self._version and not again:
            return
        self._version = version
        try:
            self.current = self._read()
        except BrokenFileError as error:
            _log.error("%s: what was read before stays in force: %s", self._name, error)
        else:
            _log.info("%s: read again", self._name)

    def _look(self) -> _Version:
        """Return the version of the files."""
        return tuple(map(_version, self._paths))


def _version(path: Path) -> tuple[int, ...] | None:
    try:
        state = path.stat()
    except OSError:
        return None
    return state.st_mtime_ns, state.st_size, state.st_ino
