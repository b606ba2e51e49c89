"""The tables of runs, as the newest migration leaves them."""

from typing import Final

from sqlalchemy import (
    BigInteger,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    UniqueConstraint,
)

METADATA: Final = MetaData()

_KEY: Final = BigInteger().with_variant(Integer, "sqlite")
"""SQLite counts up only a key that is called INTEGER."""

RUNS: Final = Table(
    "runs",
    METADATA,
    # In the order of saving, whatever the clocks of the servers say, and never used again.
    Column("sequence", _KEY, primary_key=True, autoincrement=True),
    Column("tenant", String, nullable=False),
    Column("run_id", String, nullable=False),
    Column("name", String, nullable=False),
    Column("loss", String, nullable=False),
    # Microseconds since 1970, UTC.
    Column("saved_at", BigInteger, nullable=False),
    # The SHA-256 of the content that the caller sent.
    Column("digest", LargeBinary, nullable=False),
    # A Run without header and summary: what lists show.
    Column("listing", LargeBinary, nullable=False),
    # A Run of header and summary only, compressed by zlib.
    Column("detail", LargeBinary, nullable=False),
    # The bytes of the whole run, not compressed.
    Column("size_bytes", BigInteger, nullable=False),
    UniqueConstraint("tenant", "run_id", name="runs_by_id"),
    Index("runs_by_age", "tenant", "sequence"),
    Index("runs_by_name", "tenant", "name", "sequence"),
    Index("runs_by_loss", "tenant", "loss", "sequence"),
    sqlite_autoincrement=True,
)

LABELS: Final = Table(
    "labels",
    METADATA,
    Column("sequence", _KEY, ForeignKey("runs.sequence", ondelete="CASCADE"), primary_key=True),
    Column("key", String, primary_key=True),
    Column("value", String, nullable=False),
    Column("tenant", String, nullable=False),
    Index("labels_by_value", "tenant", "key", "value", "sequence"),
)
