"""The migrations of the database of runs, which Alembic runs when a server starts."""
