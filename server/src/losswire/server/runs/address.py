"""Where runs are kept: what `--store` means."""

import os
import pwd
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from sqlalchemy import URL
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

NOWHERE: Final = "none"
"""The store that keeps nothing."""

FILE_NAME: Final = "runs.db"
"""The file of SQLite in a state folder."""

_DRIVERS: Final[Mapping[str, str]] = {
    "sqlite": "sqlite",
    "sqlite+pysqlite": "sqlite",
    "postgresql": "postgresql+psycopg",
    "postgresql+psycopg": "postgresql+psycopg",
}
"""The driver for each scheme of a URL that is accepted."""

_EXPECTED: Final = (
    "expected `none`, a folder, sqlite:////FOLDER/FILE or postgresql+psycopg://USER@HOST/DATABASE"
)


class StoreSettingError(Exception):
    """A `--store` that can never work; the text says why, without any password."""


@dataclass(frozen=True, slots=True)
class StoreAddress:
    """A database of runs."""

    url: URL
    text: str
    """The address for logs and errors: no user, no password and no parameters."""
    file: Path | None
    """The file of SQLite; None for a database server."""


def default_store(environment: Mapping[str, str] | None = None) -> str:
    """Return the state folder of this user, of which XDG_STATE_HOME names the parent."""
    variables = os.environ if environment is None else environment
    parent = variables.get("XDG_STATE_HOME", "")
    # A relative path is to be ignored, says the XDG Base Directory Specification.
    return str(
        Path(parent) / "losswire"
        if parent.startswith("/")
        else Path(variables.get("HOME") or _home()) / ".local/state/losswire"
    )


def _home() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_dir
    except KeyError:
        # A folder that nobody can make: a warning, and no runs.
        return "/nonexistent"


def parse_store(text: str) -> StoreAddress | None:
    """Read `none`, a folder or a URL; None when runs are not kept.

    Raises StoreSettingError.
    """
    if text == NOWHERE:
        return None
    if not text.strip():
        raise StoreSettingError(f"it is empty; {_EXPECTED}")
    if "://" not in text:
        return _file_address(Path(text).absolute() / FILE_NAME)
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):
        # Neither the text nor the cause is repeated: both may hold a password.
        raise StoreSettingError(f"the URL cannot be read; {_EXPECTED}") from None
    driver = _DRIVERS.get(url.drivername)
    if driver is None:
        raise StoreSettingError(f"there is no store of the kind {url.drivername}; {_EXPECTED}")
    return _of_file(url) if driver == "sqlite" else _of_server(url.set(drivername=driver))


def _of_file(url: URL) -> StoreAddress:
    name = url.database
    if not name or name == ":memory:" or name.startswith("file:"):
        raise StoreSettingError("the URL names no file; write sqlite:////FOLDER/FILE")
    if url.host or url.query:
        raise StoreSettingError(
            "a URL of SQLite has neither host nor parameters; write sqlite:////FOLDER/FILE"
        )
    return _file_address(Path(name).absolute())


def _file_address(file: Path) -> StoreAddress:
    return StoreAddress(URL.create("sqlite", database=str(file)), f"sqlite:///{file}", file)


def _of_server(url: URL) -> StoreAddress:
    if find_spec("psycopg") is None:
        raise StoreSettingError(
            "PostgreSQL needs the package psycopg; pip install 'losswire-server[postgresql]'"
        )
    if not url.database:
        raise StoreSettingError("the URL names no database; write postgresql+psycopg://HOST/NAME")
    port = f":{url.port}" if url.port else ""
    return StoreAddress(url, f"postgresql://{url.host or ''}{port}/{url.database}", None)
