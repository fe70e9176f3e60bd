"""Version 5: who drained a step, and what for, are fields; before they were a sentence."""

import sqlalchemy as sa
from alembic import op

from icestream.flow.storage.drains import DRAINED, RESUMED, read_sentence

revision = "5"
down_revision = "4"


def upgrade() -> None:
    """Put the rows of ``halt`` into ``drain``."""
    op.create_table(
        "drain",
        sa.Column("seq", sa.Integer, primary_key=True),
        sa.Column("step", sa.String, nullable=False),
        sa.Column("state", sa.String, nullable=False),
        sa.Column("cause", sa.String),
        sa.Column("by", sa.String, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("at", sa.Float, nullable=False),
    )
    _fill(op.get_bind())
    op.drop_table("halt")
    op.execute("UPDATE runner SET schema_version = 5")


def _fill(connection: sa.Connection) -> None:
    before = sa.table("halt", *(sa.column(name) for name in ("seq", "step", "state", "reason", "at")))
    now = sa.table("drain", *(sa.column(name) for name in ("seq", "step", "state", "cause", "by", "reason", "at")))
    rows = []
    for row in connection.execute(sa.select(before)).mappings():
        what: dict[str, object] = {"state": RESUMED, "cause": None, "by": "", "reason": row["reason"]}
        if row["state"] == "halted":
            why = read_sentence(row["reason"])
            what = {"state": DRAINED, "cause": why.cause.value, "by": why.by, "reason": why.reason}
        rows.append({"seq": row["seq"], "step": row["step"], "at": row["at"], **what})
    if rows:
        connection.execute(sa.insert(now), rows)
