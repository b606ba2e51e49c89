"""Runs migrations over the connection that `losswire.server.runs.migrate` hands over.

Alembic executes this file; it is never imported.
"""

from alembic import context

from losswire.server.runs.schema import METADATA

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=METADATA,
    # The transaction, with the lock in it, is the caller's.
    transactional_ddl=False,
)
context.run_migrations()
