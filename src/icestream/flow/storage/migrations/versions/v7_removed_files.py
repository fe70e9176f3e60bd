"""Version 7: files that were removed, and can be computed again."""

import sqlalchemy as sa
from alembic import op

revision = "7"
down_revision = "6"


def upgrade() -> None:
    """Add two tables; no row changes."""
    op.create_table(
        "removal",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("what", sa.Text, nullable=False),
        sa.Column("author", sa.String, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("state", sa.String, nullable=False),
        sa.Column("n_files", sa.Integer, nullable=False),
        sa.Column("n_bytes", sa.BigInteger, nullable=False),
        sa.Column("at", sa.Float, nullable=False),
        sa.Column("goes_at", sa.Float, nullable=False),
        sa.Column("done_by", sa.String),
    )
    op.create_table(
        "removed_file",
        sa.Column("ref", sa.Text, primary_key=True),
        sa.Column("key", sa.String, nullable=False),
        sa.Column("removal", sa.Integer, sa.ForeignKey("removal.id"), nullable=False),
        sa.Column("size_bytes", sa.BigInteger, nullable=False),
        sa.Column("wanted", sa.Boolean, nullable=False),
    )
    op.create_index("removed_file_by_key", "removed_file", ["key"])
    op.create_index("removed_file_by_removal", "removed_file", ["removal"])
    op.execute("UPDATE runner SET schema_version = 7")
