"""The connections to a database of runs, and its errors in the server's own terms."""

import contextlib
import fcntl
import logging
import os
import sqlite3
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import DatabaseError, DataError, IntegrityError, InterfaceError
from sqlalchemy.exc import ProgrammingError as MistakeError

from losswire.server.errors import (
    DamagedStoreError,
    FullStoreError,
    LosswireServerError,
    UnavailableStoreError,
)
from losswire.server.runs import thresholds
from losswire.server.runs.address import StoreAddress

_log = logging.getLogger(__name__)

WRITES: Final = "losswire_writes"
"""The execution option of a connection whose transaction writes."""

_SERVER_ARGUMENTS: Final[Mapping[str, Any]] = {
    "application_name": "losswire-server",
    "connect_timeout": thresholds.STORE_CONNECT_SECONDS,
    # A database server that vanishes without a word must not hold threads for hours.
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": thresholds.STORE_STATEMENT_SECONDS * 1000,
    "client_encoding": "utf8",
}
"""libpq's parameters, where the URL has none of its own."""

_FULL: Final = {sqlite3.SQLITE_FULL, "53100"}
"""How SQLite and PostgreSQL say that the disk is full."""

_DAMAGED: Final = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, "XX001", "XX002"}
"""How they say that what they read is damaged."""


def connect(address: StoreAddress) -> Engine:
    """Return the connections to a database; the first use connects."""
    if address.file is not None:
        engine = create_engine(
            address.url,
            pool_size=thresholds.STORE_THREADS,
            max_overflow=0,
            hide_parameters=True,
            connect_args={
                "timeout": thresholds.STORE_BUSY_SECONDS,
                "check_same_thread": False,
                # Transactions begin as the listener below says.
                "isolation_level": None,
            },
        )
        event.listen(engine, "connect", _set_up_file)
        event.listen(engine, "begin", _begin)
        return engine
    given = address.url.query
    arguments = {key: value for key, value in _SERVER_ARGUMENTS.items() if key not in given}
    engine = create_engine(
        address.url,
        pool_size=thresholds.STORE_THREADS,
        max_overflow=0,
        pool_pre_ping=True,
        hide_parameters=True,
        # Prepared statements would fail behind a pooler that hands out connections by transaction.
        connect_args={"prepare_threshold": None, **arguments},
    )
    event.listen(engine, "begin", _limit_statements)
    return engine


def _set_up_file(connection: sqlite3.Connection, _: object) -> None:
    connection.execute("PRAGMA foreign_keys = ON")
    # A run that was acknowledged must survive a power failure.
    connection.execute("PRAGMA synchronous = FULL")


def _begin(connection: Connection) -> None:
    """Begin a transaction of SQLite.

    One that writes takes the lock at once: raised later, it can fail without waiting.
    """
    writes = connection.get_execution_options().get(WRITES, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _limit_statements(connection: Connection) -> None:
    limit = thresholds.STORE_STATEMENT_SECONDS * 1000
    connection.exec_driver_sql(f"SET LOCAL statement_timeout = {limit}")


@contextlib.contextmanager
def transaction(engine: Engine, *, writes: bool = False) -> Iterator[Connection]:
    """Begin a transaction, and commit it unless an exception ends it.

    Raises UnavailableStoreError, FullStoreError and DamagedStoreError for the database's errors.
    """
    with translated(), engine.connect() as connection:
        connection = connection.execution_options(**{WRITES: writes})  # noqa: PLW2901 (the same one)
        with connection.begin():
            yield connection


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """Convert the database's errors to those of the server; the log has their texts.

    Those that only a mistake of this program can cause stay as they are.
    """
    try:
        yield
    except (DataError, IntegrityError, MistakeError):
        raise
    except (DatabaseError, InterfaceError) as error:
        raise _error_for(error.orig or error) from error
    except sqlite3.Error as error:
        raise _error_for(error) from error


def _error_for(cause: BaseException) -> LosswireServerError:
    _log.warning("the store of runs failed: %s", first_line(cause))
    code = getattr(cause, "sqlite_errorcode", None)
    # An extended code of SQLite has the plain one in its lowest byte.
    plain = getattr(cause, "sqlstate", None) if code is None else code & 0xFF
    if plain in _FULL:
        return FullStoreError()
    if plain in _DAMAGED:
        return DamagedStoreError()
    return UnavailableStoreError(thresholds.STORE_RETRY_MS)


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text, which never holds a password."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


@contextlib.contextmanager
def file_lock(file: Path) -> Iterator[None]:
    """Keep other processes from setting up the same file of SQLite.

    Switching to the write-ahead log fails at once, instead of waiting, while another process does
    the same. Raises OSError when the folder cannot be written, TimeoutError when it takes too long.
    """
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(f"{file}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        _acquire(descriptor)
        yield
    finally:
        os.close(descriptor)


def _acquire(descriptor: int) -> None:
    deadline = time.monotonic() + thresholds.STORE_BUSY_SECONDS
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                message = "another process keeps the lock of the store"
                raise TimeoutError(message) from None
            time.sleep(thresholds.STORE_LOCK_RETRY_SECONDS)
        else:
            return


def use_write_ahead_log(engine: Engine) -> None:
    """Let readers and a writer of a SQLite file work at the same time.

    Raises the driver's own errors, and SQLAlchemy's.
    """
    with contextlib.closing(engine.raw_connection()) as connection:
        connection.cursor().execute("PRAGMA journal_mode = WAL")
