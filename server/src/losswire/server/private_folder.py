"""Folders for the sockets of one process, which are removed also when the process was killed.

Each holds a file that its process has locked. The kernel releases the lock when the process ends,
in whatever way; the next server of the same user then removes the folder. Whether somebody listens
at a socket would say less: at that of a server that starts nobody does yet.
"""

import fcntl
import os
import secrets
import shutil
import stat
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Final

_PREFIX: Final = "losswire-"
_LOCK: Final = "lock"
_OWNER_ONLY: Final = 0o700
_LONGEST_PARENT: Final = 60
"""The bytes of a parent's path with which those of sockets in the folder fit into their 107."""


def new_path() -> Path:
    """Return the path of a private folder that nobody else has."""
    parent = Path(tempfile.gettempdir())
    if len(os.fsencode(parent)) > _LONGEST_PARENT:
        parent = Path("/tmp")  # noqa: S108 - the folder in it is private and its name random
    return parent / f"{_PREFIX}{secrets.token_hex(8)}"


class PrivateFolder:
    """A folder that only the user of this process can enter, until it is removed."""

    def __init__(self, path: Path) -> None:
        """Create it, where nothing is yet, and remove those of killed processes beside it.

        Raises OSError when it cannot be created.
        """
        _remove_stale(path.parent)
        self.path = path
        self._lock = self._create()

    def restore(self) -> None:
        """Create it again, empty, if something has removed it, such as what clears /tmp.

        Raises OSError when that is not possible.
        """
        with suppress(FileNotFoundError):
            if _is_private(self.path):
                return
        lock = self._create()
        os.close(self._lock)
        self._lock = lock

    def _create(self) -> int:
        while True:
            self.path.mkdir(mode=_OWNER_ONLY)
            # Another process may remove it before it has a lock, or before that is locked here.
            with suppress(FileNotFoundError):
                lock = self._locked()
                if os.fstat(lock).st_nlink:
                    return lock
                os.close(lock)

    def _locked(self) -> int:
        lock = os.open(self.path / _LOCK, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        with suppress(OSError):  # a file system without locks: nobody removes it there
            fcntl.flock(lock, fcntl.LOCK_EX)
        return lock

    def remove(self) -> None:
        """Remove it with all that is in it; may be called again."""
        if self._lock >= 0:
            shutil.rmtree(self.path, ignore_errors=True)
            os.close(self._lock)
            self._lock = -1


def _remove_stale(parent: Path) -> None:
    """Remove the folders of processes that have ended without doing so."""
    for folder in parent.glob(f"{_PREFIX}*"):
        with suppress(OSError):
            if _is_private(folder):
                _remove_unlocked(folder)


def _is_private(folder: Path) -> bool:
    """Return whether only this user can have put anything there: then no link leads elsewhere."""
    status = folder.lstat()
    return (
        stat.S_ISDIR(status.st_mode)
        and stat.S_IMODE(status.st_mode) == _OWNER_ONLY
        and status.st_uid == os.geteuid()
    )


def _remove_unlocked(folder: Path) -> None:
    """Remove a folder whose lock is free; OSError where it has none, or a process holds it."""
    lock = os.open(folder / _LOCK, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(lock)
