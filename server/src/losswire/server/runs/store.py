"""The runs in a database: saved once, read, listed in pages, deleted. For any thread."""

import contextlib
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from alembic.util import CommandError
from sqlalchemy import Connection, Select, delete, insert, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from losswire.server.errors import (
    MissingRunError,
    OtherRunError,
    UnavailableStoreError,
)
from losswire.server.runs import thresholds
from losswire.server.runs.address import StoreAddress
from losswire.server.runs.database import (
    WRITES,
    connect,
    file_lock,
    first_line,
    transaction,
    use_write_ahead_log,
)
from losswire.server.runs.migrate import migrate
from losswire.server.runs.schema import LABELS, RUNS

_INSERTS: Final[Mapping[str, Any]] = {"postgresql": postgresql.insert, "sqlite": sqlite.insert}
"""The INSERT of each database that can do nothing where there is a row already."""

_SAVE_TRIES: Final = 5
"""How often a run is inserted that others save and delete at the same time."""


class StoreOpenError(Exception):
    """A database that cannot be set up; the text says why, without any password."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A run as the tables have it."""

    run_id: str
    name: str
    loss: str
    labels: Mapping[str, str]
    saved_at: int
    """Microseconds since 1970, UTC."""
    digest: bytes
    """The SHA-256 of what the caller sent: it tells a repetition from another run."""
    listing: bytes
    """The serialized run without header and summary."""
    detail: bytes
    """The rest, compressed."""
    size_bytes: int
    """The bytes of the whole run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Filters:
    """Which runs a list has; empty text and no labels stand for all."""

    loss: str
    name: str
    labels: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Page:
    """Some runs of a list."""

    listings: Sequence[bytes]
    after: int | None
    """The sequence number of the last one; None when no more follow."""


class RunStore:
    """The runs of all tenants in one database."""

    def __init__(self, address: StoreAddress) -> None:
        """Prepare to connect; `open` or the first use does."""
        self.address = address
        self._engine = connect(address)
        self._opening = threading.Lock()
        self._is_open = False
        self._not_before = 0.0

    def open(self) -> None:
        """Set the database up, if that has not been done; many threads wait for one.

        Raises StoreOpenError, at once for a moment after it failed.
        """
        if self._is_open:
            return
        with self._opening:
            if self._is_open:
                return
            if time.monotonic() < self._not_before:
                raise StoreOpenError("it failed a moment ago")
            try:
                self._set_up()
            except (OSError, SQLAlchemyError, sqlite3.Error, CommandError) as error:
                self._not_before = time.monotonic() + thresholds.STORE_RETRY_MS / 1000
                cause = error.orig if isinstance(error, DBAPIError) and error.orig else error
                raise StoreOpenError(first_line(cause)) from error
            self._is_open = True

    def close(self) -> None:
        """Close the connections."""
        self._engine.dispose()

    def save(self, tenant: str, row: Row) -> tuple[bytes, bool]:
        """Keep a run; returns the listing that is kept, and whether this call kept it.

        Raises OtherRunError when another run has its id.
        """
        for _ in range(_SAVE_TRIES):
            with self._transaction(writes=True) as connection:
                if _insert(connection, tenant, row):
                    return row.listing, True
                kept = connection.execute(
                    select(RUNS.c.digest, RUNS.c.listing).where(*_is_run(tenant, row.run_id))
                ).one_or_none()
            if kept is not None:
                if kept.digest != row.digest:
                    raise OtherRunError(row.run_id)
                return kept.listing, False
        raise UnavailableStoreError(thresholds.STORE_RETRY_MS)

    def size(self, tenant: str, run_id: str) -> int:
        """Return the bytes of a run; MissingRunError when there is none."""
        with self._transaction() as connection:
            found = connection.scalar(select(RUNS.c.size_bytes).where(*_is_run(tenant, run_id)))
        if found is None:
            raise MissingRunError(run_id)
        return int(found)

    def get(self, tenant: str, run_id: str) -> tuple[bytes, bytes]:
        """Return a run's listing and the rest of it; MissingRunError when there is none."""
        query = select(RUNS.c.listing, RUNS.c.detail).where(*_is_run(tenant, run_id))
        with self._transaction() as connection:
            found = connection.execute(query).one_or_none()
        if found is None:
            raise MissingRunError(run_id)
        return found.listing, found.detail

    def list(
        self, tenant: str, filters: Filters, after: int | None, size: int, size_bytes: int
    ) -> Page:
        """Return some runs, the one saved last first, from the one behind `after` on.

        At most `size`, and fewer when they have more than `size_bytes` bytes, but at least one.
        """
        query = _filtered(tenant, filters)
        if after is not None:
            query = query.where(RUNS.c.sequence < after)
        query = query.order_by(RUNS.c.sequence.desc()).limit(size + 1)
        listings: list[bytes] = []
        last, left = None, size_bytes
        with self._transaction() as connection:
            rows = connection.execution_options(yield_per=thresholds.STORE_FETCHED).execute(query)
            for row in rows:
                if len(listings) == size or (listings and len(row.listing) > left):
                    return Page(listings, last)
                listings.append(row.listing)
                last, left = row.sequence, left - len(row.listing)
        return Page(listings, None)

    def delete(self, tenant: str, run_id: str) -> bool:
        """Delete a run; returns whether there was one."""
        with self._transaction(writes=True) as connection:
            gone = connection.execute(delete(RUNS).where(*_is_run(tenant, run_id)))
        return gone.rowcount > 0

    def _set_up(self) -> None:
        file = self.address.file
        with file_lock(file) if file else contextlib.nullcontext():
            if file:
                # For this user alone, as SQLite then makes the files beside it.
                file.touch(mode=0o600)
                use_write_ahead_log(self._engine)
            with (
                self._engine.connect().execution_options(**{WRITES: True}) as connection,
                connection.begin(),
            ):
                migrate(connection)

    @contextlib.contextmanager
    def _transaction(self, *, writes: bool = False) -> Iterator[Connection]:
        try:
            self.open()
        except StoreOpenError as error:
            raise UnavailableStoreError(thresholds.STORE_RETRY_MS) from error
        with transaction(self._engine, writes=writes) as connection:
            yield connection


def _is_run(tenant: str, run_id: str) -> tuple[Any, ...]:
    return RUNS.c.tenant == tenant, RUNS.c.run_id == run_id


def _insert(connection: Connection, tenant: str, row: Row) -> bool:
    """Insert a run and its labels; False when its id is taken, also while others insert it."""
    sequence = connection.scalar(
        _INSERTS[connection.dialect.name](RUNS)
        .values(
            tenant=tenant,
            run_id=row.run_id,
            name=row.name,
            loss=row.loss,
            saved_at=row.saved_at,
            digest=row.digest,
            listing=row.listing,
            detail=row.detail,
            size_bytes=row.size_bytes,
        )
        .on_conflict_do_nothing(index_elements=["tenant", "run_id"])
        .returning(RUNS.c.sequence)
    )
    if sequence is None:
        return False
    if row.labels:
        labels = [
            {"sequence": sequence, "tenant": tenant, "key": key, "value": value}
            for key, value in row.labels.items()
        ]
        connection.execute(insert(LABELS), labels)
    return True


def _filtered(tenant: str, filters: Filters) -> Select[int, bytes]:
    query = select(RUNS.c.sequence, RUNS.c.listing).where(RUNS.c.tenant == tenant)
    if filters.loss:
        query = query.where(RUNS.c.loss == filters.loss)
    if filters.name:
        query = query.where(RUNS.c.name == filters.name)
    for key, value in filters.labels.items():
        having = select(LABELS.c.sequence).where(
            LABELS.c.tenant == tenant, LABELS.c.key == key, LABELS.c.value == value
        )
        query = query.where(RUNS.c.sequence.in_(having))
    return query
