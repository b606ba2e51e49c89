"""Runs and their labels."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_KEY = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    """Create both tables."""
    op.create_table(
        "runs",
        sa.Column("sequence", _KEY, primary_key=True, autoincrement=True),
        sa.Column("tenant", sa.String, nullable=False),
        sa.Column("run_id", sa.String, nullable=False),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("loss", sa.String, nullable=False),
        sa.Column("saved_at", sa.BigInteger, nullable=False),
        sa.Column("digest", sa.LargeBinary, nullable=False),
        sa.Column("listing", sa.LargeBinary, nullable=False),
        sa.Column("detail", sa.LargeBinary, nullable=False),
        sa.Column("size_bytes", sa.BigInteger, nullable=False),
        sa.UniqueConstraint("tenant", "run_id", name="runs_by_id"),
        sqlite_autoincrement=True,
    )
    op.create_index("runs_by_age", "runs", ["tenant", "sequence"])
    op.create_index("runs_by_name", "runs", ["tenant", "name", "sequence"])
    op.create_index("runs_by_loss", "runs", ["tenant", "loss", "sequence"])
    op.create_table(
        "labels",
        sa.Column(
            "sequence", _KEY, sa.ForeignKey("runs.sequence", ondelete="CASCADE"), primary_key=True
        ),
        sa.Column("key", sa.String, primary_key=True),
        sa.Column("value", sa.String, nullable=False),
        sa.Column("tenant", sa.String, nullable=False),
    )
    op.create_index("labels_by_value", "labels", ["tenant", "key", "value", "sequence"])


def downgrade() -> None:
    """Drop both tables, with all runs."""
    op.drop_table("labels")
    op.drop_table("runs")
