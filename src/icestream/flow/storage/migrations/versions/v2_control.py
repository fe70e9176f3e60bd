"""Version 2: what people decide by hand, holds, halts, clocks of gates, edits of the document."""

import sqlalchemy as sa
from alembic import op

revision = "2"
down_revision = "1"


def upgrade() -> None:
    """Add columns and tables; no row changes."""
    op.add_column("runner", sa.Column("uptime_s", sa.Float, nullable=False, server_default="0"))
    op.add_column("runner", sa.Column("hold", sa.Text))
    op.add_column("gate_opening", sa.Column("last", sa.Boolean, nullable=False, server_default=sa.false()))
    op.add_column("command", sa.Column("done_at", sa.Float))
    _add_decisions_of_people()
    _add_board_and_clocks()
    op.execute("UPDATE runner SET schema_version = 2")


def _add_decisions_of_people() -> None:
    op.create_table(
        "override",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("unit", sa.String, nullable=False),
        sa.Column("step", sa.String, nullable=False),
        sa.Column("verdict", sa.String, nullable=False),
        sa.Column("author", sa.String, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("active", sa.Boolean, nullable=False),
        sa.Column("at", sa.Float, nullable=False),
        sa.Column("seq", sa.Integer, nullable=False, unique=True),
    )
    op.create_index("override_by_unit", "override", ["unit", "step"])
    op.create_table(
        "halt",
        sa.Column("seq", sa.Integer, primary_key=True),
        sa.Column("step", sa.String, nullable=False),
        sa.Column("state", sa.String, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("at", sa.Float, nullable=False),
    )
    op.create_table(
        "document",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("text", sa.Text, nullable=False),
        sa.Column("author", sa.String, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("at", sa.Float, nullable=False),
    )


def _add_board_and_clocks() -> None:
    op.create_table(
        "board",
        sa.Column("step", sa.String, primary_key=True),
        sa.Column("waiting", sa.Integer, nullable=False),
        sa.Column("running", sa.Integer, nullable=False),
        sa.Column("note", sa.Text, nullable=False),
        sa.Column("at", sa.Float, nullable=False),
    )
    op.create_table(
        "gate_clock",
        sa.Column("revision", sa.Integer, sa.ForeignKey("revision.id"), primary_key=True),
        sa.Column("started_uptime_s", sa.Float, nullable=False),
    )
    op.create_table(
        "stale",
        sa.Column("revision", sa.Integer, sa.ForeignKey("revision.id"), nullable=False),
        sa.Column("unit", sa.String, nullable=False),
        sa.Column("reason", sa.Text),
        sa.Column("at", sa.Float, nullable=False),
        sa.PrimaryKeyConstraint("revision", "unit"),
    )
