"""Brings the database to this version's tables, one server at a time."""

import logging
from pathlib import Path
from typing import Final

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, text

_FOLDER: Final = Path(__file__).with_name("migrations")

_LOCK_NUMBER: Final = 0x6C6F7373_77697265
"""The advisory lock of PostgreSQL that a server holds while it migrates: `losswire` in ASCII."""


def migrate(connection: Connection) -> None:
    """Run the migrations that are missing, inside of the connection's transaction.

    On SQLite that transaction must have begun as a writer. Raises CommandError for a database that
    a newer version has migrated.
    """
    # Alembic reports each start, which says nothing to an operator.
    logging.getLogger("alembic").setLevel(logging.WARNING)
    if connection.dialect.name == "postgresql":
        # A migration may take long, and so does waiting for another server that migrates.
        connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
        # Until the end of the transaction, so that it also works behind a pooler of connections.
        connection.execute(text("SELECT pg_advisory_xact_lock(:number)"), {"number": _LOCK_NUMBER})
    config = Config()
    # The % of a path would begin a reference to another setting.
    config.set_main_option("script_location", str(_FOLDER).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
